"""What the doctor says without a GPU, and beside a topod that answers."""

import socket
from pathlib import Path

import pytest

from topoctl import doctor_checks
from topod.protocol.replies import Welcome


def test_no_remedy_is_a_command_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    for check in doctor_checks._gpus(emulated=False):
        assert check.verdict == "ok" or not check.mend.startswith("nvidia-smi")


def test_the_runtime_is_that_of_the_topod_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topod.adapters.docker_engine.find_engine", lambda: None)
    fields: dict[str, object] = {"version": "1", "host": "h", "emulated": True, "runtime": "docker"}
    welcome = Welcome(**{**_defaults(), **fields})  # type: ignore[arg-type] # every field has its own type
    last = list(doctor_checks._engine({}, welcome))[-1]
    assert (last.name, last.text) == ("runtime", "docker: chosen by the topod that answers")


def test_an_engine_that_hangs_is_told_from_one_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    assert not doctor_checks._listens(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert doctor_checks._listens(path)
        (check,) = (
            check
            for check in doctor_checks._engine({"TOPOD_ENGINE": f"unix://{path}"}, None)
            if check.name == "engine"
        )
        assert check.text.endswith("the engine does not answer")
        assert check.mend == "systemctl restart docker"
    assert not doctor_checks._listens(path)


def _defaults() -> dict[str, object]:
    return dict.fromkeys(Welcome.__struct_fields__, "")
