"""Builds the Debian package: a virtual environment for the system's Python in /usr/lib/topod.

`make deb` writes it to dist/. Nothing is asked of the network beyond what pip asks for.
"""

import argparse
import configparser
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from email.utils import formatdate
from pathlib import Path

from topoctl.install.parts import COORDINATOR, HOST, SHARED, part
from topod.shell.config_sample import sample_config

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "debian"
HOME = "/usr/lib/topod"
PYTHON = "/usr/bin/python3"
EXTRAS = "tui,web,etcd"
SCRIPT = "#!{home}/bin/python3 -I\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"


def main() -> None:
    """Build the package and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder it is written to")
    parser.add_argument("--fast", action="store_true", help="do not compress: larger, and done sooner")
    parser.add_argument("--extras", default=EXTRAS, help="of topod, that come with it")
    parser.add_argument("--wheel", action="store_true", help="leave the wheel beside it")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="topod-deb-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir(mode=0o755)
        _environment(tree, Path(folder), given.extras)
        _system_files(tree)
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        _documents(tree, version)
        package = given.out / f"topod_{version}_{_said('dpkg', '--print-architecture')}.deb"
        _control(tree, version)
        _pack(tree, package, fast=given.fast)
        if given.wheel:
            for wheel in Path(folder).glob("*.whl"):
                shutil.copy(wheel, given.out)
    print(package)


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _environment(tree: Path, work: Path, extras: str) -> None:
    """Make the virtual environment, such as it is to lie in `HOME`."""
    home = tree / HOME.lstrip("/")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(work), str(ROOT)], check=True)
    (wheel,) = work.glob("*.whl")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(home)], check=True)
    into = [
        *pip,
        "--python",
        str(home / "bin/python3"),
        "install",
        "--no-compile",
        f"{wheel}[{extras}]" if extras else str(wheel),
    ]
    subprocess.run(into, check=True)
    for script in (home / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()
    (site,) = home.glob("lib/python*/site-packages")
    for unused in ("**/tests", "numpy/_core/include"):
        for folder in list(site.glob(unused)):
            shutil.rmtree(folder, ignore_errors=True)
    for name in ("direct_url.json", "RECORD"):  # they know this machine, and what was removed
        for file in site.glob(f"*.dist-info/{name}"):
            file.unlink()
    shutil.rmtree(home / "include", ignore_errors=True)
    (home / "pyvenv.cfg").write_text(f"home = {Path(PYTHON).parent}\ninclude-system-site-packages = false\n")
    _scripts(tree, site)
    # Not by the times of files: those are of the archive.
    compiled = [
        str(home / "bin/python3"),
        "-m",
        "compileall",
        "-q",
        "-j0",
        "--invalidation-mode=unchecked-hash",
    ]
    subprocess.run([*compiled, "-s", str(tree), "-p", "/", str(site)], check=True)


def _scripts(tree: Path, site: Path) -> None:
    """Write the commands, which nothing in the environment of who calls them can change."""
    (tree / "usr/bin").mkdir()
    points = configparser.ConfigParser()
    points.read(next(site.glob("topod-*.dist-info/entry_points.txt")))
    for name, point in points["console_scripts"].items():
        module, _, function = point.partition(":")
        script = tree / HOME.lstrip("/") / "bin" / name
        script.write_text(SCRIPT.format(home=HOME, module=module, function=function))
        script.chmod(0o755)
        (tree / "usr/bin" / name).symlink_to(f"../lib/topod/bin/{name}")


def _system_files(tree: Path) -> None:
    """Write units, groups, folders and the configuration where a package has them."""
    for name, path in {**HOST, **COORDINATOR, **SHARED}.items():
        file = tree / path.replace("/etc/", "usr/lib/", 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(part(name, Path("/usr/bin")))
    config = tree / "etc/topod/topod.toml"
    config.parent.mkdir(parents=True)
    config.write_text(sample_config())


def _documents(tree: Path, version: str) -> None:
    folder = tree / "usr/share/doc/topod"
    folder.mkdir(parents=True)
    shutil.copyfile(HERE / "copyright", folder / "copyright")
    (folder / "changelog.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))
    entry = f"topod ({version}) stable; urgency=medium\n\n  * What is new: changelog.gz.\n\n"
    entry += f" -- topod maintainers <topod@localhost>  {formatdate(_epoch())}\n"
    (folder / "changelog.Debian.gz").write_bytes(gzip.compress(entry.encode(), mtime=0))


def _epoch() -> int:
    """Return the time of the package: that of the last commit, so that a commit gives one package."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or _said("git", "-C", str(ROOT), "log", "-1", "--format=%ct"))


def _control(tree: Path, version: str) -> None:
    """Write what dpkg reads."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files]
    minor = int(_said(PYTHON, "-c", "import sys; print(sys.version_info.minor)"))
    python = f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})"  # parts of it are compiled for that one
    size = sum(path.stat().st_size for path in files) // 1024
    words = {"VERSION": version, "ARCHITECTURE": _said("dpkg", "--print-architecture"), "SIZE": str(size)}
    text = (HERE / "control.in").read_text()
    for name, word in {**words, "PYTHON": python}.items():
        text = text.replace(f"@{name}@", word)
    folder = tree / "DEBIAN"
    folder.mkdir(mode=0o755)
    (folder / "control").write_text(text)
    (folder / "conffiles").write_text("/etc/topod/topod.toml\n")
    (folder / "md5sums").write_text("".join(sums))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / script, folder / script)
        (folder / script).chmod(0o755)


def _pack(tree: Path, package: Path, *, fast: bool) -> None:
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    how = ["-Znone"] if fast else ["-Zzstd", "-z9"]  # xz takes minutes for a tenth less
    words = ["dpkg-deb", "--root-owner-group", *how, "--build", str(tree), str(package)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_epoch())}
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
