"""What a running daemon is configured by: what is in force, and what of its files waits."""

import asyncio
from pathlib import Path

import msgspec

from topod.errors import DataError, TopodError
from topod.protocol.replies import ConfigRow, Configuration
from topod.shell.config_file import ConfigFile
from topod.shell.config_reading import Loaded, lines_of, load_config
from topod.shell.config_rows import is_live, rows_of
from topod.shell.options import DEFAULT, Given


class Configured:
    """Used from the event loop only."""

    def __init__(self, path: Path | None, begun_with: Loaded, given: Given) -> None:
        self._path = path
        self._begun_with = begun_with
        self._taken = begun_with
        """As it was read last; what a reload takes of it is in force."""
        self._given = given

    async def read(self) -> Loaded:
        """Return the files as they are now. Raises what `load_config` raises."""
        return await asyncio.to_thread(load_config, self._path)

    def took(self, loaded: Loaded) -> None:
        """Take note of a reload."""
        self._taken = loaded

    def waits(self, file: ConfigFile) -> list[str]:
        """Return the keys that differ from those the daemon began with, and that only a start takes."""
        found: list[str] = []
        for name in file.__struct_fields__:
            old, new = getattr(self._begun_with.config, name), getattr(file, name)
            if old == new or name in self._given.program.foreign:
                continue
            live = self._given.program.live.get(name)
            if live is None or (live and isinstance(new, msgspec.Struct)):
                found += _differing(name, old, new, live or frozenset())
        return [key for key in found if not self._is_given(key)]

    async def told(self) -> Configuration:
        """Return every value that is in force, and what waits."""
        live = self._given.program.live
        begun, taken = rows_of(self._begun_with, self._given), rows_of(self._taken, self._given)
        now = {key: row for key, row in begun.items() if not is_live(key, live)}
        now |= {key: row for key, row in taken.items() if is_live(key, live)}
        files, mistakes = list(self._taken.files), list[str]()
        try:
            loaded = await self.read()
        except DataError as error:
            mistakes = list(lines_of(error))
        except TopodError as error:
            mistakes = [error.message]
        else:
            files = list(loaded.files)
            coming = rows_of(loaded, self._given)
            now = {
                key: _compared(key, now.get(key), coming.get(key), live=is_live(key, live))
                for key in dict.fromkeys((*coming, *now))
            }
        return Configuration(rows=list(now.values()), files=files, mistakes=mistakes, running=True)

    def _is_given(self, key: str) -> bool:
        """Say whether an option or a variable wins over the key."""
        mine = (option.name for option in self._given.program.options if option.key == key)
        return any(self._given.origins[name] != DEFAULT for name in mine)


def _compared(key: str, now: ConfigRow | None, coming: ConfigRow | None, *, live: bool) -> ConfigRow:
    """Return the row that is in force with what would come instead of it; one of them is there."""
    if now is not None and coming is not None and now.value == coming.value:
        return now
    row = now or ConfigRow(key=key, text="-", origin="-")
    waits = "reload" if live else "restart"
    if coming is None:
        return msgspec.structs.replace(row, waits=waits, coming_text="-")
    return msgspec.structs.replace(
        row, waits=waits, coming=coming.value, coming_text=coming.text, coming_origin=coming.origin
    )


def _differing(name: str, old: object, new: object, live: frozenset[str]) -> list[str]:
    if not isinstance(new, msgspec.Struct):
        return [name]
    keys = [key for key in new.__struct_fields__ if getattr(old, key) != getattr(new, key)]
    return [f"{name}.{key}" for key in keys if key not in live]


async def unconfigured() -> Configuration:
    """Say that everything has its default."""
    return Configuration(running=True)
