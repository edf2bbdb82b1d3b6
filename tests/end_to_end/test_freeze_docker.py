"""A preempted job is written to disk and counts on where it was; with a real engine and CRIU."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.fault_site import FaultSite
from tests.engine import PrivateEngine, private_engine
from topod.errors import DaemonUnavailableError
from topod.model.job import Mount, OnPreempt
from topod.protocol.views import JobView

pytestmark = pytest.mark.docker

COUNTER = "n=0; until [ -e /runs/enough ]; do n=$((n + 1)); echo $n; sleep 0.05; done"
SEARCHED = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"


def why_not() -> str | None:
    """Return why nothing can be frozen on this machine, or None. CRIU is no part that must be there."""
    criu = shutil.which("criu", path=SEARCHED)
    if criu is None:
        return "criu is not installed (.ci/install-criu)"
    version = subprocess.run([criu, "--version"], capture_output=True, text=True, check=False).stdout
    if not version.startswith("Version: ") or int(version.split()[1].split(".")[0]) < 4:
        return f"criu is too old for today's kernels: {version.strip()}"
    check = subprocess.run([criu, "check"], capture_output=True, text=True, check=False)
    return None if check.returncode == 0 else f"criu check: {check.stderr.strip()}"


@pytest.fixture(scope="module")
def switches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which a file `fail` or `hang` makes CRIU do so."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("criu")
    script = folder / "bin/criu"
    script.parent.mkdir()
    real = shutil.which("criu", path=SEARCHED)
    script.write_text(
        "#!/bin/sh\n"
        f"[ ! -e {folder}/fail ] || exit 1\n"
        f"while [ -e {folder}/hang ]; do sleep 0.05; done\n"
        f'exec {real} "$@"\n'
    )
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def freezer(switches: Path) -> Iterator[PrivateEngine]:
    # A link, as Debian's docker-init is one, is a mount that CRIU cannot restore.
    init = os.path.realpath(shutil.which("docker-init", path=SEARCHED) or "/usr/bin/docker-init")
    flags = ("--experimental", "--init-path", init)
    with private_engine(programs=switches / "bin", flags=flags) as engine:
        yield engine


@pytest.fixture
def site(tmp_path: Path, freezer: PrivateEngine) -> Iterator[FaultSite]:
    with FaultSite(tmp_path, freezer) as site:
        yield site


def count(site: FaultSite, **fields: object) -> int:
    """Submit a job that counts, on all GPUs; return it once it has counted a little."""
    fields = {"gpus": 8, "priority": 100, "on_preempt": OnPreempt.CHECKPOINT, "grace_seconds": 20.0} | fields
    mounts = (Mount(source=str(site.runs), target="/runs"),)
    job = site.topod.submit("sh", "-c", COUNTER, image=site.engine.image, mounts=mounts, **fields).id  # type: ignore[arg-type]  # test shorthand
    site.topod.until(lambda: len(numbers(site, job)) > 10, 60)
    return job


def numbers(site: FaultSite, job: int) -> list[int]:
    """Return what the job has printed, without a line that is not yet whole."""
    return [int(line) for line in site.topod.printed(job).decode().split("\n")[:-1]]


def finish(site: FaultSite, job: int) -> JobView:
    """Let the counting end, and look that no number is missing and none came twice."""
    before = len(numbers(site, job))
    site.topod.until(lambda: len(numbers(site, job)) > before + 10, 60)
    (site.runs / "enough").touch()
    view = site.topod.wait(job, timeout=60)
    assert (view.state, view.exit_code) == ("succeeded", 0)
    printed = [int(line) for line in site.topod.output(job).split()]
    assert printed == list(range(1, len(printed) + 1)), "it did not count on"
    return view


def told(site: FaultSite, name: str) -> list[str]:
    """Return the sentences of the host's story with that name."""
    return [event.text for event in site.topod.events() if event.name == name]


def test_a_preempted_job_counts_on_where_it_was(site: FaultSite) -> None:
    job = count(site)
    before = site.topod.job(job)
    serve = site.submit(gpus=2, priority=1000)
    site.begun(serve)
    frozen = site.topod.wait(job, "pending")
    assert frozen.state == "pending"
    assert frozen.frozen
    assert frozen.reason.startswith("frozen, to be restored on GPUs 0-7")
    assert frozen.handle == before.handle
    stood = numbers(site, job)
    low = site.submit("true", gpus=6, priority=50)
    assert site.topod.wait(low, timeout=60).state == "succeeded", "what it does not hold, others may use"
    assert numbers(site, job) == stood
    site.release()
    view = finish(site, job)
    assert (view.starts, view.attempt, view.preemptions) == (1, 1, 1)
    assert (view.gpu_uuids, view.cpu_list) == (before.gpu_uuids, before.cpu_list)
    assert not view.frozen
    site.check([serve, low])
    site.topod.until(lambda: not site.containers([job]))


def test_twice_frozen_and_preempting_its_way_back(site: FaultSite) -> None:
    job = count(site)
    for high in (1, 2):
        site.topod.until(lambda high=high: len(numbers(site, job)) > high * 15, 60)  # type: ignore[misc]  # bound now
        serve = site.submit("sleep 0.1", gpus=8, priority=1000)
        assert site.topod.wait(serve, timeout=60).state == "succeeded"
        # A job of still lower priority must not keep it from its place.
        site.submit("sleep 600", gpus=8, priority=50, grace_seconds=1.0)
        assert site.topod.wait(job, "running", timeout=60).state == "running"
    assert finish(site, job).preemptions == 2


@pytest.mark.parametrize("passage", [9, 14, 17, 23])
def test_topod_dies_while_it_freezes_or_restores(site: FaultSite, passage: int) -> None:
    job = count(site)
    site.topod.kill()
    site.topod.start("--crash-at", str(passage))
    with contextlib.suppress(DaemonUnavailableError):  # it may die before it has answered
        site.submit("sleep 0.1", gpus=8, priority=1000, token="one")
    assert site.topod.crashed(20), "it did not come to the crash"
    site.topod.start()
    serve = site.submit("sleep 0.1", gpus=8, priority=1000, token="one")
    assert site.topod.wait(serve, timeout=60).state == "succeeded"
    site.topod.until(lambda: site.topod.job(job).state == "running", 60)
    view = finish(site, job)
    assert (view.starts, view.attempt, view.preemptions) == (1, 1, 1)


def test_cancelled_while_frozen_leaves_nothing(site: FaultSite) -> None:
    job = count(site)
    serve = site.submit(gpus=8, priority=1000)
    site.begun(serve)
    site.topod.cancel(job)
    assert site.topod.wait(job).state == "cancelled"
    site.topod.until(lambda: not site.containers([job]), 60)
    assert site.topod.job(serve).state == "running"


def test_a_checkpoint_that_is_gone_means_a_new_start(site: FaultSite, freezer: PrivateEngine) -> None:
    job = count(site)
    serve = site.submit(gpus=8, priority=1000)
    site.begun(serve)
    for folder in freezer.directory.glob("data/containers/*/checkpoints"):
        shutil.rmtree(folder)
    site.release()
    site.topod.until(lambda: site.topod.job(job).attempt == 2, 60)
    assert finish(site, job).starts == 2
    assert told(site, "job.not-restored")


@pytest.mark.parametrize("trouble", ["fail", "hang"])
def test_what_cannot_be_frozen_is_stopped_and_requeued(site: FaultSite, switches: Path, trouble: str) -> None:
    job = count(site, grace_seconds=1.0)
    (switches / trouble).touch()
    try:
        serve = site.submit("true", gpus=8, priority=1000)
        site.topod.until(lambda: bool(told(site, "job.not-frozen")), 60)
    finally:
        (switches / trouble).unlink()
    assert site.topod.wait(serve, timeout=60).state == "succeeded"
    view = finish(site, job)
    assert (view.starts, view.preemptions) == (2, 1)
    [why] = told(site, "job.not-frozen")
    assert ("CRIU" if trouble == "fail" else "did not do it within 1 s") in why


def test_an_engine_without_checkpoints_says_so(tmp_path: Path, engine: PrivateEngine) -> None:
    with FaultSite(tmp_path, engine) as site:
        job = count(site)
        serve = site.submit("true", gpus=8, priority=1000)
        assert site.topod.wait(serve, timeout=60).state == "succeeded"
        assert finish(site, job).starts == 2
        assert "it runs without `experimental`" in told(site, "job.not-frozen")[0]
