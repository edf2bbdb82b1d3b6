"""How the end of a command that topod did not stop is told."""

import pytest

from topod.lifecycle.exits import describe_exit


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (3, "exit code 3"),
        (137, "exit code 137 (signal 9, not sent by topod)"),
        (139, "exit code 139 (signal 11)"),
        (None, "its container vanished and nobody saw how it ended"),
    ],
)
def test_an_end_says_whether_somebody_else_sent_a_signal(code: int | None, told: str) -> None:
    assert describe_exit(code) == told


def test_memory_that_ran_out_is_nobodys_signal() -> None:
    assert describe_exit(137, out_of_memory=True) == "killed: out of memory"
