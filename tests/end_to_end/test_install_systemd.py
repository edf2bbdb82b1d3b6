"""The Debian package and `topoctl install` on a real systemd: a job outlives the upgrade, and the change between both."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine import skip_or_fail
from tests.systemd_machine import ROOT, Machine, machine
from topod import __version__
from topod.model.job import JobSpec
from topod.model.request import ResourceRequest
from topod.protocol.client import Client
from topod.protocol.replies import Jobs, Welcome
from topod.protocol.requests import GetJob, Hello, Submit, WaitJob
from topod.protocol.views import JobView

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
COUNT = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
NEXT = f"{__version__}+1"
DPKG = "dpkg --force-unsafe-io"
VENV = "/opt/topod-venv"


@dataclass
class Packages:
    first: Path
    second: Path
    """The same one with a higher version."""
    wheel: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    if shutil.which("dpkg-deb") is None:
        skip_or_fail("dpkg-deb is not there (package dpkg)")
    folder = tmp_path_factory.mktemp("deb")
    build = [
        sys.executable,
        str(ROOT / "debian/build.py"),
        "--fast",
        "--wheel",
        "--extras=",
        "--out",
        str(folder),
    ]
    subprocess.run(build, check=True, timeout=250)
    (first,), (wheel,) = folder.glob("*.deb"), folder.glob("*.whl")
    return Packages(first=first, second=_newer(first, folder), wheel=wheel)


def _newer(package: Path, folder: Path) -> Path:
    """Pack what is in a package once more, with another version in it and on it."""
    tree = folder / "newer"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    (source,) = tree.glob("usr/lib/topod/lib/python3*/site-packages/topod/__init__.py")
    for file, line in ((source, '__version__ = "{}"'), (tree / "DEBIAN/control", "Version: {}\n")):
        text = file.read_text()
        assert line.format(__version__) in text
        file.write_text(text.replace(line.format(__version__), line.format(NEXT)))
    compiled = [
        "-m",
        "compileall",
        "-q",
        "-f",
        "--invalidation-mode=unchecked-hash",
        "-s",
        str(tree),
        "-p",
        "/",
    ]
    subprocess.run(["/usr/bin/python3", *compiled, str(source)], check=True)
    newer = folder / "newer.deb"
    words = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(newer)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return newer


class Site:
    """A machine without topod, but with its engine and the files to install it from."""

    def __init__(self, one: Machine, packages: Packages) -> None:
        self.machine = one
        one.write("/etc/systemd/system/topod.service.d/host.conf", "[Service]\nEnvironment=TOPOD_HOST=dgx1\n")
        for path in (packages.first, packages.second, packages.wheel):
            one.write(f"/opt/packages/{path.name}", "")
            path.rename(one.files / "opt/packages" / path.name)
        one.start()
        one.import_image()

    def root(self, command: str, status: int = 0) -> str:
        """Type a command as root; return all it printed."""
        printed = self.machine.run("sh", "-c", f"({command}) 2>&1; echo $?", check=False).splitlines()
        assert printed.pop() == str(status), "\n".join(printed)
        return "\n".join(printed)

    def client(self) -> Client:
        return Client(self.machine.path("/run/topod/topod.sock"))

    def version(self) -> str:
        """Ask the daemon who it is."""
        with self.client() as client:
            welcome = client.ask(Hello())
        assert isinstance(welcome, Welcome)
        return welcome.version

    def started(self) -> JobView:
        request = ResourceRequest(gpus=2)
        with self.client() as client:
            reply = client.ask(Submit(spec=JobSpec(name="count", image="bb", command=COUNT, request=request)))
            assert isinstance(reply, Jobs)
            reply = client.ask(WaitJob(job=reply.jobs[0].id, states=["running"], timeout=50.0), timeout=60.0)
        assert isinstance(reply, Jobs)
        return reply.jobs[0]

    def goes_on(self, job: JobView) -> None:
        """See topod know the job as before, and the job print number after number, none twice and none lost."""
        with self.client() as client:
            reply = client.ask(GetJob(job=job.id))
        assert isinstance(reply, Jobs)
        found = reply.jobs[0]
        assert (found.state, found.attempt, found.gpus) == ("running", 1, job.gpus)

        def printed() -> list[int]:
            return [int(line) for line in self.root(f"topoctl logs {job.id}").splitlines()]

        before = len(printed())
        self.machine.await_(lambda: len(printed()) > before, "the job prints")
        numbers = printed()
        assert numbers == list(range(1, len(numbers) + 1))

    def pids(self) -> list[int]:
        with contextlib.closing(self.machine.engine()) as client:
            return [one.attrs["State"]["Pid"] for one in client.containers.list()]

    def there(self, path: str) -> bool:
        return self.machine.path(path).exists()


@pytest.fixture
def site(packages: Packages) -> Iterator[Site]:
    with machine(topod=False) as one:
        yield Site(one, packages)


def test_a_job_outlives_the_package_its_upgrade_and_the_change_to_pip(site: Site, packages: Packages) -> None:
    told = site.root(f"{DPKG} -i /opt/packages/{packages.first.name}")
    assert "systemctl enable --now topod" in told
    show = site.machine.unit
    # Which of the two services this machine is to have, the administrator says.
    assert (show("topod")["ActiveState"], show("topod-coordinator")["ActiveState"]) == (
        "inactive",
        "inactive",
    )
    key = site.machine.path("/etc/topod/host.key")
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, 0)
    secret = key.read_text()
    assert "systemd-analyze" not in site.root("systemd-analyze verify /usr/lib/systemd/system/topod.service")
    site.root("systemctl enable --now topod")
    assert site.version() == __version__
    job, pids = site.started(), site.pids()
    site.goes_on(job)

    before = show("topod")
    site.machine.path("/etc/topod/topod.toml").write_text('[coordinator]\nlisten = "tcp://127.0.0.1:7461"\n')
    site.root("topoctl keys new fleet --coordinator --out /etc/topod/coordinator.key")
    site.root("touch /etc/topod/authorized_keys && systemctl start topod-coordinator")
    site.root(f"{DPKG} -i /opt/packages/{packages.second.name}")
    after = show("topod")
    assert (after["ActiveState"], after["UnitFileState"]) == ("active", "enabled")
    assert after["MainPID"] != before["MainPID"]
    assert site.version() == NEXT
    assert site.pids() == pids
    assert show("topod-coordinator")["ActiveState"] == "active"
    assert "listen" in site.machine.path("/etc/topod/topod.toml").read_text()
    assert key.read_text() == secret
    site.goes_on(job)

    told = site.root(f"{DPKG} -r topod")
    assert f"topod: job {job.id} (count) runs; without topod nobody watches that" in told
    assert show("topod")["ActiveState"] == "inactive"
    assert not site.there("/usr/bin/topod")
    assert site.pids() == pids

    # From the wheel, with what it depends on lent by this checkout's environment.
    site.root(f"/usr/bin/python3 -m venv --without-pip {VENV}")
    site.root(
        f"cd / && {sys.executable} -m pip -q --python {VENV}/bin/python install --no-deps --no-index"
        f" /opt/packages/{packages.wheel.name}"
    )
    (folder,) = site.machine.path(VENV).glob("lib/python3*/site-packages")
    (folder / "lent.pth").write_text("/opt/topod/site\n")
    site.root(f"ln -s {VENV}/bin/topoctl /usr/local/bin/")
    told = site.root(f"{VENV}/bin/topoctl install --apply")
    assert "it is yours" in told
    assert key.read_text() == secret
    site.root("systemctl enable --now topod")
    assert (
        f"ExecStart={VENV}/bin/topod\n" in site.machine.path("/etc/systemd/system/topod.service").read_text()
    )
    assert site.version() == __version__
    assert site.pids() == pids
    site.goes_on(job)

    told = site.root("topoctl uninstall --apply", status=5)
    assert told.startswith(f"error: job {job.id} (count) runs\n")
    assert show("topod")["ActiveState"] == "active"
    site.root("topoctl uninstall --apply --leave-jobs")
    assert not site.there("/etc/systemd/system/topod.service")
    assert show("topod")["ActiveState"] == "inactive"
    # Now the engine is asked.
    told = site.root("topoctl uninstall --apply", status=5)
    assert told.startswith("error: container ")
    assert site.pids() == pids
    site.root("kill -KILL " + str(pids[0]))
    site.machine.await_(lambda: not site.pids(), "the job has ended")
    told = site.root("topoctl uninstall --apply")
    assert "/var/lib/topod\n" in told

    site.root(f"{DPKG} -P topod")
    for path in ("/etc/topod", "/var/lib/topod", "/run/topod", "/usr/lib/topod"):
        assert not site.there(path), path
