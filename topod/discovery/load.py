"""Read a host from a file: a capture of `nvidia-smi topo -m` or an exported host document."""

import codecs
import sys
from pathlib import Path
from typing import Final

from topod.discovery.document import HostDocument, load_host
from topod.discovery.from_matrix import topology_from_matrix
from topod.discovery.parse_smi_topo import parse_matrix
from topod.errors import DataError, NotFoundError

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_MATRIX_CHARACTERS: Final = 1 << 20
"""The matrix of 16 GPUs with 17 NICs has 7,000 characters; what is around it is read several times."""
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def load_host_file(path: Path) -> HostDocument:
    """Return the host in the file at `path`.

    Raises `NotFoundError` when there is no such file, `DataError` when it cannot be read or is damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot be read: {reason}", source=str(path)) from error
    return load_host_bytes(data, str(path), name=path.stem)


def read_host(path: Path) -> HostDocument:
    """Return the host in the file at `path`, where `-` is standard input. Raises as `load_host_file` does."""
    if str(path) != "-":
        return load_host_file(path)
    return load_host_bytes(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>", name="stdin")


def load_host_bytes(data: bytes, source: str, *, name: str) -> HostDocument:
    """Return the host in `data`; a matrix, which names no host, gets `name`. Raises `DataError`."""
    if len(data) > MAX_BYTES:
        raise DataError(f"larger than {MAX_BYTES // 1024 // 1024} MiB: not a host", source=source)
    if data.lstrip()[:1] == b"{":
        return load_host(data, source)
    text = _text(data, source)
    if text.lstrip("\ufeff \t\r\n")[:1] == "{":
        return load_host(text.lstrip("\ufeff").encode(), source)
    if len(text) > MAX_MATRIX_CHARACTERS:
        hint = "a long log? keep the matrix, from its line GPU0 GPU1 ... on"
        raise DataError("more than 1 MiB of text: no matrix is as long", source=source, hint=hint)
    return HostDocument(topology=topology_from_matrix(parse_matrix(text, source), name))


def _text(data: bytes, source: str) -> str:
    # PowerShell's `>` writes UTF-16
    text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8", errors="replace")
    if "\0" in text:
        raise DataError("a binary file: neither a matrix nor a host document", source=source)
    return text
