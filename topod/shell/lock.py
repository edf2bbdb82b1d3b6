"""One topod for each state folder."""

import fcntl
import os
from pathlib import Path
from typing import Self

from topod.errors import ConflictError, StoreError


class StateLock:
    """Holds a state folder until it is released or the process ends, however it ends.

    A record lock: child processes do not inherit it, so jobs that outlive topod do not keep it.
    """

    def __init__(self, folder: Path, who: str = "topod") -> None:
        """Create the folder if needed and lock it for a `who`.

        Raises `ConflictError` when another topod holds it and `StoreError` when it cannot be written.
        """
        self._path = folder / "topod.lock"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # What jobs print and their variables lie in it: theirs and nobody else's, whoever made it.
            if folder.stat().st_mode & 0o077:
                folder.chmod(0o700)
            self._file = self._path.open("a+")
        except OSError as error:
            hint = "name another folder with --state-dir, or make this one writable"
            raise StoreError(f"cannot use the state folder {folder}: {error.strerror}", hint=hint) from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read(20).strip()
            self._file.close()
            another = f"another {who} (pid {holder})" if holder.isdecimal() else f"another {who}"
            hint = "talk to it with topoctl, stop it, or name another folder with --state-dir"
            raise ConflictError(f"{another} works on {folder}", hint=hint) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
