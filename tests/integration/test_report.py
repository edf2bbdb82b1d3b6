"""`topoctl report` of a real host and a real fleet, read in a real browser."""

import subprocess
import sys
from pathlib import Path

from tests.browser import Browser
from tests.integration.daemon_process import ROOT
from tests.integration.fleet_process import Fleet
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.curve import PUBLIC
from topod.protocol.replies import Jobs
from topod.protocol.requests import Submit

EVIL = "<script>document.title='evil'</script>"


def test_a_preemption_in_a_fleet_is_in_the_reports_of_the_fleet_and_of_its_host(tmp_path: Path) -> None:
    def topoctl(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "topoctl", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    with Fleet(tmp_path / "fleet", ("node-a",)) as fleet:
        remote = (
            *("--coordinator", fleet.coordinator.endpoint, "--coordinator-key", PUBLIC + fleet.keys.public),
            *("--key", str(tmp_path / "fleet/alice.key")),
        )
        for name, gpus, priority in ((EVIL, 4, 100), ("serve", 8, 1000)):
            request = ResourceRequest(gpus=gpus, priority=priority)
            spec = JobSpec(name=name, command=("sleep", "600"), request=request)
            reply = fleet.ask(Submit(spec=spec))
            assert isinstance(reply, Jobs)
            fleet.wait(reply.jobs[0].id, "running")
        pages = {
            "fleet": remote,
            "through": (*remote, "--host", "node-a"),
            "host": ("--socket", str(fleet.hosts["node-a"].socket)),
        }
        for name, where in pages.items():
            done = topoctl(*where, "report", "--since", "1h", "--out", str(tmp_path / f"{name}.html"))
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
        nowhere = topoctl(*pages["host"], "report", "--out", str(tmp_path / "none/a.html"))
        assert (nowhere.returncode, nowhere.stderr.count("\n")) == (74, 1)
        backwards = topoctl(*pages["host"], "report", "--since", "1h", "--until", "2h")
        assert backwards.returncode == 2
        assert "error: the period ends before it begins" in backwards.stderr
    with Browser(tmp_path / "profile") as page:
        for name in pages:
            address = (tmp_path / f"{name}.html").as_uri()
            page.asked.clear()
            page.open(address)
            text = page.value("document.body.innerText")
            assert "2 first starts" in text, name
            assert f"({EVIL}): holds GPUs 0-3" in text, name
            assert ", 8 GPUs" in text
            assert "emulated" in text
            assert page.value("document.querySelectorAll('svg[role=img] rect').length") > 10
            assert page.value("document.title.includes('evil')") is False
            assert page.asked == [address]
        assert page.complaints == []
