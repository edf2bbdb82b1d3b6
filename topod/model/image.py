"""Names of container images, as an engine reads them."""

import re
from fnmatch import fnmatchcase
from typing import Final

_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID: Final = re.compile(r"(sha256:)?[0-9a-f]{1,64}")

# Docker's grammar of references, see github.com/distribution/reference.
_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ALGORITHM: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_ANY_DIGEST: Final = re.compile(rf"{_ALGORITHM}:[0-9a-fA-F]{{32,256}}")
_NAME_MAX: Final = 255


def is_reference(reference: str) -> bool:
    """Whether this is the name of an image by Docker's grammar: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

    Nothing else may get into an engine's URL: `a/../../containers/x` would ask for something else there.
    """
    name, at, digest = reference.partition("@")
    path, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = f"{path}{slash}{last}"
    return (
        len(repository) <= _NAME_MAX
        and _NAME.fullmatch(repository) is not None
        and (not colon or _TAG.fullmatch(tag) is not None)
        and (not at or _ANY_DIGEST.fullmatch(digest) is not None)
    )


def canonical(reference: str) -> str:
    """Return the full name: `ubuntu` is `docker.io/library/ubuntu:latest`.

    A digest says all: a tag beside it is left away, as the engine does.
    """
    name, _, digest = reference.partition("@")
    path, _, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = _repository(f"{path}/{last}" if path else last)
    return f"{repository}@{digest}" if digest else f"{repository}:{tag or 'latest'}"


def has_digest(reference: str) -> bool:
    """Whether the name says which content it stands for, whatever a registry holds later."""
    return _DIGEST.fullmatch(reference.partition("@")[2]) is not None


def may_be_an_id(reference: str) -> bool:
    """Whether an engine might take this for the number of an image that it has, whatever its name."""
    return _BARE_ID.fullmatch(reference) is not None


def matches(reference: str, pattern: str) -> bool:
    """Whether an image is meant by a pattern such as `ghcr.io/lab/*`, `ubuntu` or `ubuntu:24.*`.

    `*` stands for anything, also for `/`. A pattern without a tag means every tag and digest. `*` alone means
    every image; otherwise nothing is meant that may be the number of an image, or is no name.
    """
    if pattern == "*":
        return True
    if may_be_an_id(reference) or not is_reference(reference):
        return False
    whole = canonical(reference)
    name, _, digest = pattern.partition("@")
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = _repository(f"{path}{slash}{last}")
    if digest or tag:
        return fnmatchcase(whole, f"{repository}@{digest}" if digest else f"{repository}:{tag}")
    return fnmatchcase(whole, f"{repository}:*") or fnmatchcase(whole, f"{repository}@*")


def _repository(name: str) -> str:
    first, slash, rest = name.partition("/")
    if name == "*":
        return name
    if slash and first in _HUB_NAMES:
        return f"{_HUB}/{rest}" if set(rest) & set("/*") else f"{_HUB}/library/{rest}"
    if slash and (first == "localhost" or set(first) & set(".:*?[")):
        return name
    return f"{_HUB}/{name}" if slash else f"{_HUB}/library/{name}"
