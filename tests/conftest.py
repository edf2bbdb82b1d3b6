"""Fixtures and settings that several folders of tests use."""

import pytest

from tests.engine import engine

__all__ = ["engine"]


def pytest_configure(config: pytest.Config) -> None:
    # The docker SDK leaves the socket of a refused connection to the garbage collector.
    config.addinivalue_line(
        "filterwarnings", r"ignore:unclosed <socket.socket fd=\d+, family=1:ResourceWarning"
    )
