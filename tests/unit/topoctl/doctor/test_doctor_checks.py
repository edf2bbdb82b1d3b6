"""What the doctor says without a GPU, and beside a topod that answers."""

import socket
from pathlib import Path

import pytest

from topoctl.doctor import daemon, engine
from topoctl.doctor.gpus import gpus
from topoctl.doctor.troubles import judged
from topod.protocol.replies import Welcome


def test_no_remedy_is_a_command_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    for check in gpus(emulated=False):
        assert check.verdict == "ok" or not check.mend.startswith("nvidia-smi")


def test_the_runtime_is_that_of_the_topod_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topod.adapters.docker_engine.find_engine", lambda: None)
    fields: dict[str, object] = {"version": "1", "host": "h", "emulated": True, "runtime": "docker"}
    welcome = Welcome(**{**_defaults(), **fields})  # type: ignore[arg-type] # every field has its own type
    (found,) = (check for check in engine.engine({}, welcome) if check.name == "runtime")
    assert (found.name, found.text) == ("runtime", "docker: chosen by the topod that answers")


def test_the_engine_is_that_of_the_topod_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_other() -> None:
        raise AssertionError("the default engines are nobody's here")

    monkeypatch.setattr("topod.adapters.docker_engine.find_engine", no_other)
    url = f"unix://{tmp_path / 'engine'}"
    fields: dict[str, object] = {"version": "1", "host": "h", "runtime": "docker", "engine": url}
    welcome = Welcome(**{**_defaults(), **fields})  # type: ignore[arg-type] # every field has its own type
    first = next(iter(engine.engine({"TOPOD_ENGINE": "unix:///other"}, welcome)))
    assert first.text.endswith(f"the engine is not running: its socket is not there ({url})")
    assert first.mend == f"docker -H {url} version"


def test_the_mend_of_an_engine_fits_which_engine_it_is() -> None:
    default = "unix:///var/run/docker.sock"
    mend = engine.mend_engine
    assert mend(default, "it: the engine does not answer", used=True) == "systemctl restart docker"
    assert mend(default, "it: the engine is not running", used=False) == "systemctl status docker"
    denied = "it: no permission to use the engine's socket"
    assert mend(default, denied, used=True).startswith("sudo topoctl doctor")
    assert mend(default, denied, used=False) == "systemctl status docker"


def test_an_engine_that_hangs_is_told_from_one_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    assert not engine.listens(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert engine.listens(path)
        (check,) = (
            check
            for check in engine.engine({"TOPOD_ENGINE": f"unix://{path}"}, None)
            if check.name == "engine"
        )
        assert "the engine does not answer" in check.text
        assert check.mend == f"docker -H unix://{path} version"
    assert not engine.listens(path)


def test_a_coordinator_that_lets_in_by_an_old_file_or_reaches_no_etcd_is_bad() -> None:
    def verdict(*troubles: str) -> str:
        fields: dict[str, object] = {"troubles": troubles, "state_dir": "/s", "fleet": True}
        return judged(Welcome(**{**_defaults(), **fields}))[0]  # type: ignore[arg-type] # every field has its own type

    assert verdict("port: keys:3: no roles; the keys read before stay in force", "store: full") == "bad"
    assert verdict("store: etcd does not answer; x") == "bad"
    assert (verdict("store: cannot write x: disk is full"), verdict()) == ("warn", "ok")


def test_a_coordinators_socket_is_told_from_a_hosts(tmp_path: Path) -> None:
    for name, mend in (("coordinator.sock", "topod-coordinator"), ("topod.sock", "topod")):
        welcome, check = daemon.check_daemon(tmp_path / name)
        assert (welcome, check.mend) == (None, mend)
        assert check.text == f"no {mend} listens at {tmp_path / name}"


def _defaults() -> dict[str, object]:
    return dict.fromkeys(Welcome.__struct_fields__, "")
