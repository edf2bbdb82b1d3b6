"""Reading pieces of what a job printed."""

from pathlib import Path

from topod.errors import StoreError

MAX_BYTES = 1 << 20


def read_piece(path: Path, offset: int, limit: int) -> tuple[bytes, int]:
    """Return up to `limit` bytes of a file from `offset` (negative: from the end), and where they end.

    A file that is not there yet is empty. Raises `StoreError` when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            begin = min(max(0, size + offset) if offset < 0 else offset, size)
            file.seek(begin)
            data = file.read(max(0, min(limit, MAX_BYTES)))
    except FileNotFoundError:
        return b"", max(0, offset)
    except OSError as error:
        raise StoreError(f"cannot read the log {path}: {error.strerror}") from error
    return data, begin + len(data)
