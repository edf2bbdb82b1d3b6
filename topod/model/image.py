"""Names of container images, as an engine reads them."""

import re
from fnmatch import fnmatchcase
from typing import Final

_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID: Final = re.compile(r"(sha256:)?[0-9a-f]{1,64}")


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
    every image; otherwise nothing that may be the number of an image is meant.
    """
    if pattern == "*":
        return True
    if may_be_an_id(reference):
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
