"""The emulated hosts that come with topod, by name: what `--host NAME|FILE` means."""

from difflib import get_close_matches
from pathlib import Path

from topod.discovery.document import HostDocument
from topod.discovery.load import load_host_file
from topod.errors import NotFoundError

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "_hosts", _PACKAGE.parent / "fixtures" / "hosts")
"""Inside an installed wheel, else in the checkout."""


def host_names() -> tuple[str, ...]:
    """Return the names of the emulated hosts, sorted; empty when none was installed."""
    return tuple(sorted(path.stem for path in _folder().glob("*.json")))


def load_library_host(name_or_path: str | Path) -> HostDocument:
    """Return the emulated host of that name, else the host read from the file at that path.

    A name wins over a file of the same name; write `./name` for the file. Raises `NotFoundError` when there
    is neither, and `DataError` when the file is damaged.
    """
    names = host_names()
    wanted = str(name_or_path)
    if wanted in names:
        return load_host_file(_folder() / f"{wanted}.json")
    path = Path(name_or_path)
    if path.is_file():
        return load_host_file(path)
    if "/" in wanted or path.suffix:
        raise NotFoundError(f"no such host file: {wanted}", hint=_hint(path.stem, names))
    raise NotFoundError(f"no emulated host and no file is called {wanted!r}", hint=_hint(wanted, names))


def _folder() -> Path:
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[-1])


def _hint(wanted: str, names: tuple[str, ...]) -> str:
    if not names:
        return "no emulated hosts are installed; give the path of a host document or a matrix"
    nearest = get_close_matches(wanted.lower(), names, n=1, cutoff=0.5)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{meant}emulated hosts: {', '.join(names)}"
