"""A few thousand damaged inputs in the suite; `make soak-fuzz` tries a hundred thousand."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.sockets import besiege
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_input_becomes_a_value_or_one_line(target: Target) -> None:
    checked = given(target.inputs)(target.check)
    settings(max_examples=150 * target.weight, deadline=None, suppress_health_check=[*HealthCheck])(checked)()


def test_damaged_messages_leave_a_real_topod_alive_and_as_it_was(tmp_path: Path) -> None:
    besiege(tmp_path, seed=1, messages=3000)
