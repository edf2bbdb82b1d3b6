"""Fixtures and settings that several folders of tests use."""

import os
import signal
import sys

import pytest

from tests.engine import engine
from tests.etcd_cluster import one_etcd

__all__ = ["engine", "one_etcd"]


def pytest_configure(config: pytest.Config) -> None:
    # A run in the background inherits that Ctrl-C is ignored, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hundreds of programs are started: without bytecode each of them, and each worker, compiles all of topod anew.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        sys.dont_write_bytecode = False
    # The docker SDK leaves the socket of a refused connection to the garbage collector.
    config.addinivalue_line(
        "filterwarnings", r"ignore:unclosed <socket.socket fd=\d+, family=1:ResourceWarning"
    )
