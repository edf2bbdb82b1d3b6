"""Keys of CURVE as people handle them: Z85, as ZeroMQ has it, behind a word that tells public from secret."""

import re
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import zmq
from zmq.utils import z85

from topod.errors import DataError

PUBLIC: Final = "topod-public:"
PRIVATE: Final = "topod-secret:"
KEY_CHARACTERS: Final = 40
MAX_KEY_FILE_BYTES: Final = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


class Kind(StrEnum):
    """What somebody with a key is in the fleet."""

    HOST = "host"
    USER = "user"
    COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A private key and its public half, each 40 characters of Z85."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLine:
    """The line that holds a key in a file: `topod-public:... host node-a`."""

    public: str
    pair: KeyPair | None = None
    """Where the line holds the private key."""
    kind: Kind | None = None
    name: str = ""


def new_pair() -> KeyPair:
    """Return a key that nobody had before."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public=public.decode(), secret=secret.decode())


def check_name(name: str) -> str:
    """Return a name that a key may have. Raises `ValueError`."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name: {name[:80]!r}; letters, digits and _ . @ - are, 64 at most")
    return name


def read_public(word: str) -> str:
    """Return the 40 characters of `topod-public:...`. Raises `ValueError`; it never shows a secret."""
    if word.startswith(PRIVATE):
        raise ValueError(
            f"this is a private key ({PRIVATE}...); its public line is told by `topoctl keys show`"
        )
    if not word.startswith(PUBLIC):
        raise ValueError(f"a public key starts with {PUBLIC}, not {word[:13]!r}")
    return _checked(word.removeprefix(PUBLIC), "public")


def read_line(line: str) -> KeyLine:
    """Return what a key's line says: `topod-public:KEY [KIND NAME ...]`, or the same with the private key.

    Raises `ValueError`; it never shows a secret.
    """
    word, *rest = line.split()
    pair = None
    if word.startswith(PRIVATE):
        secret = _checked(word.removeprefix(PRIVATE), "private")
        pair = KeyPair(public=zmq.curve_public(secret.encode()).decode(), secret=secret)
    public = pair.public if pair else read_public(word)
    if not rest or rest[0].startswith("#"):
        return KeyLine(public=public, pair=pair)
    if len(rest) < 2 or rest[0] not in {*Kind}:
        raise ValueError(f"after the key: one of {', '.join(Kind)} and a name, not {' '.join(rest)[:80]!r}")
    return KeyLine(public=public, pair=pair, kind=Kind(rest[0]), name=check_name(rest[1]))


def read_text(text: str, source: str) -> KeyLine:
    """Return the one key of a file's text; empty lines and lines that start with `#` do not count.

    Raises `DataError`.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise DataError("holds no key", source=source, hint="topoctl keys new NAME --out FILE makes one")
    if len(lines) > 1:
        raise DataError("holds more than one key", source=source, line=lines[1][0])
    try:
        return read_line(lines[0][1])
    except ValueError as error:
        raise DataError(str(error), source=source, line=lines[0][0]) from None


def _checked(key: str, which: str) -> str:
    # libzmq's own decoder takes what it does not know for zeros.
    if len(key) != KEY_CHARACTERS or not key.isascii() or not {*key.encode()} <= {*z85.Z85CHARS}:
        raise ValueError(f"a {which} key has {KEY_CHARACTERS} characters of Z85 after its word; this one not")
    try:
        z85.decode(key.encode())
    except struct.error:  # five characters can say more than four bytes hold
        raise ValueError(f"not a {which} key: it is no number of 256 bits") from None
    return key
