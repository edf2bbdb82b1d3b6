"""The support bundle of a real topod with planted secrets, and of one that is down."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.integration.daemon_process import Topod
from topoctl import exit_codes
from topoctl.main import run
from topod.model.job import CheckpointHook

SECRET = "hunter2-in-the-dark"


def contents(path: Path) -> dict[str, str]:
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        return {
            entry.name.partition("/")[2]: (tar.extractfile(entry) or io.BytesIO()).read().decode()
            for entry in tar.getmembers()
        }


def test_all_that_helps_is_in_it_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, config = tmp_path / "out.tar.gz", tmp_path / "topod.toml"
    config.write_text(f"[history]\nkeep_days = 30 # the password: {SECRET}\n")
    with Topod(tmp_path / "t") as topod:
        topod.environment |= {"TOPOD_METRICS": "0", "TOPOD_CONFIG": str(config)}
        topod.start()
        told = ("sh", "-c", f"echo {SECRET}; exec sleep 300", f"--token={SECRET}")
        hook = CheckpointHook(command=("sh", "-c", f"echo {SECRET}; exit 3"))
        low = topod.submit(
            *told, gpus=8, priority=100, env={"X": SECRET}, labels={"team": "a"}, checkpoint=hook
        )
        topod.wait(low.id, "running")
        high = topod.submit(*told, gpus=4, priority=1000, env={"Y": f"x{SECRET}"}, name="serve")
        topod.wait(high.id, "running")
        topod.until(lambda: "preemption" in topod.log.read_text())
        with topod.log.open("a") as log:
            log.write(f"engine: cannot start with X={SECRET}\n")
        words = ["--socket", str(topod.socket), "support-bundle", "--out", str(out), "--log", str(topod.log)]
        assert run([*words, "--config", str(config)]) == exit_codes.OK
        told_about = capsys.readouterr()
        assert run(words) == exit_codes.CONFLICT
        assert f"{out} is there already" in capsys.readouterr().err
        topod.cancel(high.id)
    assert told_about.out == f"{out}\n"
    files = contents(out)
    assert SECRET not in "".join(files.values())
    assert {name for name in files if not name.startswith("nvidia-smi")} == {
        "README.txt",
        "doctor.json",
        "log-1.txt",
        "metrics.txt",
        "state-folder.txt",
        "topod.toml",
        "topod/config.json",
        "topod/ended.json",
        "topod/events.json",
        "topod/host.json",
        "topod/jobs.json",
        "topod/rules.json",
        "topod/welcome.json",
        "versions.json",
    }
    jobs = json.loads(files["topod/jobs.json"])
    assert [job["name"] for job in jobs] == ["t", "serve"]
    assert jobs[0]["spec"]["env"] == {"X": "<removed>"}
    assert jobs[0]["spec"]["labels"] == {"team": "a"}
    assert "preemption job=2" in files["log-1.txt"]
    assert 'topod_preemptions_total{result="completed"} 1.0' in files["metrics.txt"]
    assert any(event["name"] == "job.preempted" for event in json.loads(files["topod/events.json"]))
    assert "state.db" in files["state-folder.txt"]
    assert "keep_days = 30" in files["topod.toml"]


def test_where_topod_is_down_the_rest_is_gathered_and_what_lacks_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tar.gz"
    monkeypatch.setenv("TOPOD_STATE_DIR", str(tmp_path / "none"))
    words = ["--socket", str(tmp_path / "none.sock"), "support-bundle", "--out", str(out)]
    assert run([*words, "--config", str(tmp_path / "none.toml")]) == exit_codes.OK
    told = capsys.readouterr().err
    files = contents(out)
    assert {"README.txt", "doctor.json", "versions.json", "topology.json"} <= files.keys()
    for part in ("topod/", "metrics.txt", "topod.toml", "state-folder.txt"):
        assert f"not in it: {part}: " in told
        assert f"{part}: " in files["README.txt"]
