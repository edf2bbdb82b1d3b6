"""Runs a function as another user of this machine, in a child process with that user's rights."""

import os
import pickle
import signal
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

T = TypeVar("T")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


def as_user(uid: int, groups: Iterable[int], function: Callable[[], T], seconds: int = 60) -> T:
    """Return what `function` returns when user `uid` calls it; an exception comes through as it is.

    The first of `groups` is the user's own. A fork, not a new interpreter: that user may be unable to read
    the interpreter's files, so the function must not import anything new.
    """
    first, *more = groups
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(seconds)
            os.setgroups(more)
            os.setgid(first)
            os.setuid(uid)
            try:
                answer: tuple[bool, object] = (True, function())
            except Exception as error:  # noqa: BLE001 - passed on to the caller
                answer = (False, error)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, f"the child as user {uid} died"
    done, value = pickle.loads(data)
    if not done:
        raise value
    return value  # type: ignore[no-any-return]  # it is what `function` returned
