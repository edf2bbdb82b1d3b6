"""What sections of the configuration file are made of."""

import msgspec


class Seconds(float):
    """A duration: a number of seconds, or text such as `10m`."""

    __slots__ = ()


class Size(int):
    """A size: a number of bytes, or text such as `10G`."""

    __slots__ = ()


class Level(int):
    """A priority: a number, or one of the names `low`, `normal`, `high`."""

    __slots__ = ()


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: every key is known, has a type and a default."""
