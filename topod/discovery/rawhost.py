"""What was read from a host, before anything is made of it.

Rule: text only, bounded by the reader, and nothing else is needed to interpret the host again elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSysfs:
    """The files of `/sys` and `/proc` that describe CPUs, memory and PCI. Paths are relative to the root."""

    files: Mapping[str, str]
    """Path to text, without NUL bytes and without white space at either end."""
    folders: Mapping[str, tuple[str, ...]]
    """Path to the names in it, sorted. A folder that is missing is absent."""
    links: Mapping[str, str]
    """Path of a symbolic link to the path it leads to, for PCI devices and network devices."""
    skipped: tuple[str, ...] = ()
    """One text per file that was there and was not read, with the reason."""

    def first(self, folder: str, *names: str) -> str | None:
        """Return the text of the first of `names` in `folder` that was read."""
        for name in names:
            text = self.files.get(f"{folder}/{name}")
            if text is not None:
                return text
        return None
