"""The units under a real systemd: a host with its engine and a coordinator, on a machine of their own."""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import skip_or_fail
from tests.systemd_machine import ONCE, UNITS, Machine, machine
from topod.adapters.curve_keys import create_key_file
from topod.errors import TopodError
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.curve import PUBLIC, Kind
from topod.protocol.replies import Jobs
from topod.protocol.requests import AnyRequest, Cancel, GetJob, ListJobs, Submit, WaitJob
from topod.protocol.views import JobView

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
CONFIG = "/etc/topod/topod.toml"
BEFORE = ("docker.service", "nvidia-persistenced.service", "nvidia-fabricmanager.service")
QUICK = "[Service]\nWatchdogSec=4s\nRestartSec=100ms\n"
QUOTA = '[[quota]]\nuser = "*"\ngpus = 3\n'


@pytest.mark.parametrize(("unit", "exposure"), [("topod", 50), ("topod-coordinator", 20)])
def test_the_units_are_sound_and_shut_in(unit: str, exposure: int) -> None:
    if shutil.which("systemd-analyze") is None:
        skip_or_fail("systemd-analyze is not installed (package systemd)")
    file = UNITS / f"{unit}.service"
    both = [str(file), str(UNITS / "topod-jobs.slice")]
    verified = subprocess.run(
        ["systemd-analyze", "verify", *both], capture_output=True, text=True, check=False
    )
    # Of a key that it does not know it only says so.
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    words = [
        "systemd-analyze",
        "security",
        "--offline=yes",
        f"--threshold={exposure}",
        "--no-pager",
        str(file),
    ]
    judged = subprocess.run(words, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout


class Site:
    """A booted machine with one host of a fleet and the fleet's coordinator."""

    def __init__(self, one: Machine) -> None:
        self.machine = one
        keys = one.directory / "keys"
        ours = create_key_file(keys / "coordinator.key", Kind.COORDINATOR, "fleet")
        host = create_key_file(keys / "host.key", Kind.HOST, "node-a")
        for name in ("coordinator.key", "host.key"):
            # Whoever reads them without being root got them from systemd.
            one.write(f"/etc/topod/{name}", (keys / name).read_text(), 0o600)
        one.write("/etc/topod/authorized_keys", f"{PUBLIC}{host.public} host node-a\n")
        self.config = (
            '[fleet]\ncoordinator = "tcp://127.0.0.1:7461"\n'
            f'coordinator_key = "{PUBLIC}{ours.public} coordinator fleet"\nname = "node-a"\n'
            '[coordinator]\nlisten = "tcp://127.0.0.1:7461"\n'
        )
        one.write(CONFIG, self.config)
        for unit in ("topod", "topod-coordinator"):
            one.write(f"/etc/systemd/system/{unit}.service.d/quick.conf", QUICK)
        one.write("/etc/systemd/system/topod.service.d/host.conf", "[Service]\nEnvironment=TOPOD_HOST=dgx1\n")
        for unit in BEFORE[1:]:
            one.write(f"/etc/systemd/system/{unit}", ONCE)
        one.start("topod.service", "topod-coordinator.service", *BEFORE[1:])
        one.import_image()

    @property
    def socket(self) -> Path:
        """Where the host's topod listens, as seen from outside."""
        return self.machine.path("/run/topod/topod.sock")

    def ask(self, request: AnyRequest, timeout: float = 60.0) -> JobView:
        with Client(self.socket) as client:
            reply = client.ask(request, timeout=timeout)
        assert isinstance(reply, Jobs)
        return reply.jobs[0]

    def submit(self, gpus: int) -> JobView:
        request = ResourceRequest(gpus=gpus)
        spec = JobSpec(name="t", image="bb", command=("sleep", "100000"), request=request, grace_seconds=1.0)
        return self.ask(Submit(spec=spec))

    def running(self, gpus: int) -> JobView:
        job = self.submit(gpus)
        return self.ask(WaitJob(job=job.id, states=["running"], timeout=50.0))

    def status(self, unit: str = "topod") -> str:
        return self.machine.unit(unit)["StatusText"]

    def says(self, text: str, unit: str = "topod") -> None:
        self.machine.await_(lambda: text in self.status(unit), f"{unit} says {text}")

    def containers(self) -> dict[str, int]:
        """Return the PIDs of what runs in the engine."""
        with contextlib.closing(self.machine.engine()) as client:
            return {str(one.name): one.attrs["State"]["Pid"] for one in client.containers.list()}

    def comes_again(self, before: dict[str, str]) -> None:
        """Wait until topod was started once more and is ready."""

        def again() -> bool:
            now = self.machine.unit("topod")
            return now["ActiveState"] == "active" and now["MainPID"] != before["MainPID"]

        self.machine.await_(again, "topod is there again")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with machine() as one:
        yield Site(one)


@pytest.fixture
def job(site: Site) -> Iterator[JobView]:
    """Give a job that runs on 2 GPUs; each test has the host to itself."""
    yield site.running(2)
    with Client(site.socket) as client:
        left = client.ask(ListJobs())
        assert isinstance(left, Jobs)
        for one in left.jobs:
            with contextlib.suppress(TopodError):  # it may end of itself
                client.ask(Cancel(jobs=[one.id]))
            client.ask(WaitJob(job=one.id, timeout=50.0), timeout=60.0)
    site.machine.write_now(CONFIG, site.config)


def test_after_the_boot_both_are_ready_in_order_with_their_keys(site: Site) -> None:
    show = site.machine.unit
    topod, coordinator = show("topod"), show("topod-coordinator")
    assert (topod["ActiveState"], coordinator["ActiveState"]) == ("active", "active")
    assert (topod["Type"], topod["NRestarts"], coordinator["NRestarts"]) == ("notify", "0", "0")
    for unit in BEFORE:
        ready = int(show(unit)["ActiveEnterTimestampMonotonic"])
        assert ready < int(topod["ExecMainStartTimestampMonotonic"]), unit
    # Each has proven to the other that it has its key.
    site.says("1 of 1 hosts heard, 0 of 8 GPUs held, 0 jobs running, 0 waiting", "topod-coordinator")
    line = "0 of 8 GPUs held, 0 jobs running, 0 waiting"
    site.machine.await_(lambda: site.status() == line, line)
    process = site.machine.path(f"/proc/{coordinator['MainPID']}")
    assert process.stat().st_uid == int(site.machine.run("id", "-u", "topod-coordinator")) != 0
    group = int(site.machine.run("getent", "group", "topod").split(":")[2])
    for socket in ("/run/topod/topod.sock", "/run/topod-coordinator/coordinator.sock"):
        found = site.machine.path(socket).stat()
        assert (found.st_gid, found.st_mode & 0o777) == (group, 0o660), socket


def test_jobs_outlive_a_crash_a_hang_and_a_stop_and_end_with_their_slice(site: Site, job: JobView) -> None:
    containers = site.containers()
    (pid,) = containers.values()
    assert "/topod.slice/topod-jobs.slice/" in site.machine.path(f"/proc/{pid}/cgroup").read_text()
    site.says("2 of 8 GPUs held, 1 job running, 0 waiting")

    before = site.machine.unit("topod")
    site.machine.run("kill", "-KILL", before["MainPID"])
    site.comes_again(before)
    site.says("2 of 8 GPUs held, 1 job running, 0 waiting")

    before = site.machine.unit("topod")
    site.machine.run("kill", f"-{signal.SIGUSR1.name}", before["MainPID"])
    site.comes_again(before)
    assert "Watchdog timeout" in site.machine.journal("topod")
    # It says where it hung.
    assert "sitecustomize.py" in site.machine.journal("topod")
    site.says("2 of 8 GPUs held, 1 job running, 0 waiting")

    site.machine.run("systemctl", "stop", "topod")
    assert site.machine.unit("topod")["Result"] == "success"
    assert site.containers() == containers
    site.machine.run("systemctl", "start", "topod")
    site.says("2 of 8 GPUs held, 1 job running, 0 waiting")
    found = site.ask(GetJob(job=job.id))
    assert (found.state, found.attempt) == ("running", 1)

    site.machine.run("systemctl", "stop", "topod")
    site.machine.run("systemctl", "stop", "topod-jobs.slice")
    site.machine.await_(lambda: not site.containers(), "the jobs are gone")
    site.machine.run("systemctl", "start", "topod")


def test_a_reload_takes_a_good_file_refuses_a_bad_one_and_loses_no_job(site: Site, job: JobView) -> None:
    before, containers = site.machine.unit("topod"), site.containers()
    site.machine.write_now(CONFIG, f"{site.config}{QUOTA}")
    site.machine.run("systemctl", "reload", "topod")
    site.machine.await_(lambda: "config.reloaded" in site.machine.journal("topod"), "the file is read")
    waiting = site.submit(2)
    site.says("2 of 8 GPUs held, 1 job running, 1 waiting")
    assert "3" in site.ask(GetJob(job=waiting.id)).reason

    site.machine.write_now(CONFIG, f"{site.config}[qouta]\n")
    site.machine.run("systemctl", "reload", "topod")
    site.says("1 waiting; config: refused, the one before stays in force: /etc/topod/topod.toml")
    assert site.machine.unit("topod")["ActiveState"] == "active"

    site.machine.write_now(CONFIG, f"{site.config}[health]\ninterval = 7\n")
    site.machine.run("systemctl", "reload", "topod")
    # What waited for the quota starts; what only a start takes is named.
    site.says(
        "4 of 8 GPUs held, 2 jobs running, 0 waiting; config: health.interval changed: that needs a restart"
    )
    after = site.machine.unit("topod")
    assert (after["MainPID"], after["NRestarts"]) == (before["MainPID"], before["NRestarts"])
    assert containers.items() <= site.containers().items()
    assert site.ask(GetJob(job=job.id)).attempt == 1
