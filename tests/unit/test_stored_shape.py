"""What is kept is what the number of the schema stands for: a change of the one without the other is seen here."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from topod.adapters.etcd_layout import LAYOUT
from topod.adapters.sqlite_upgrade import _scripts
from topod.fleet.states import FleetJob, HostRecord
from topod.lifecycle.states import Job, Mark

WRITTEN = Path(__file__).with_name("stored_shape.txt")
CHANGED = """
What is kept in databases has changed. A topod from before would lose or misread it: so that it refuses, add a
migration (without a change of tables: one that is a comment) for the host or the fleet, and raise LAYOUT for
etcd; say there what became of what is kept already. Where no topod that is in use wrote the schema that stands
here, its number can stay. Then: .venv/bin/python -m tests.unit.test_stored_shape
"""


def shape() -> str:
    numbers = [f"host schema {max(_scripts('migrations'))}", f"fleet schema {max(_scripts('fleet'))}"]
    seen: dict[str, list[str]] = {}
    for kind in (Job, Mark, FleetJob, HostRecord):
        walk(kind, seen)
    lines = [line for name in sorted(seen) for line in seen[name]]
    return "\n".join([*numbers, f"etcd layout {LAYOUT}", "", *lines]) + "\n"


def walk(kind: Any, seen: dict[str, list[str]]) -> None:
    """Note the fields of a type, the members of an enumeration, and all that it is made of."""
    for part in parts(kind):
        name = f"{part.__module__}.{part.__qualname__}"
        if name in seen:
            continue
        if issubclass(part, Enum):
            seen[name] = [f"{part.__name__} = {' '.join(str(member.value) for member in part)}"]
        elif is_dataclass(part):
            hints = get_type_hints(part)
            seen[name] = [f"{part.__name__}.{one.name}: {words(hints[one.name])}" for one in fields(part)]
            for field in fields(part):
                walk(hints[field.name], seen)


def words(kind: Any) -> str:
    """Return a type in words that do not depend on the version of Python."""
    inner = [words(one) for one in get_args(kind)]
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(inner)
    name = "..." if kind is ... else getattr(kind, "__name__", str(kind))
    return f"{name}[{', '.join(inner)}]" if inner else name


def parts(kind: Any) -> Iterator[type]:
    if isinstance(kind, type) and not get_args(kind):
        yield kind
    for one in get_args(kind):
        yield from parts(one)


def test_what_is_kept_is_what_the_numbers_of_the_schemas_stand_for() -> None:
    assert shape() == WRITTEN.read_text(encoding="utf-8"), CHANGED


if __name__ == "__main__":
    WRITTEN.write_text(shape(), encoding="utf-8")
