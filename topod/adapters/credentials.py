"""Keys that the service manager hands over, so that a daemon needs no right to read the files of root."""

import os
from pathlib import Path
from typing import Final

FOLDER: Final = Path("/etc/topod")
"""A key of this folder is taken from the credential of its name, where the unit hands one over."""
NONE: Final = b"none"
"""What a unit hands over in the place of a key that is not there."""
_VARIABLE: Final = "CREDENTIALS_DIRECTORY"


def handed(path: Path, folder: Path = FOLDER) -> Path:
    """Return where the key is to be read: the credential of its name, else the file itself."""
    given = os.environ.get(_VARIABLE)
    if not given or path.parent != folder:
        return path
    credential = Path(given) / path.name
    try:
        with credential.open("rb") as file:
            return path if file.read(len(NONE) + 1).strip() == NONE else credential
    except OSError:
        return path
