"""The disk under topod's state is full, or turns read-only: what runs goes on, and nothing is forgotten."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.end_to_end.fault_site import UNTIL_RELEASED, FaultSite
from tests.engine import PrivateEngine
from topoctl.doctor.daemon import check_daemon
from topod.protocol.client import RemoteError
from topod.protocol.replies import JobLines, Jobs
from topod.protocol.requests import ListJobs

pytestmark = pytest.mark.docker

LINES = 2000


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """Mount something at the folder for a while."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this machine cannot mount it: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all the space that is left, for a while."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    yield
    ballast.unlink()


def refused(submit: Callable[[], int]) -> str:
    """Submit and return what topod says against it."""
    with pytest.raises(RemoteError) as caught:
        submit()
    assert caught.value.code == "store-failed"
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_full_disk(tmp_path: Path, engine: PrivateEngine) -> None:
    disk = tmp_path / "s/t"
    with mounted(disk, "-t", "tmpfs", "-o", "size=4m", "tmpfs"), FaultSite(tmp_path / "s", engine) as site:
        chatter = f"echo 0; until [ -e /runs/speak ]; do sleep 0.1; done; seq {LINES}; {UNTIL_RELEASED}"
        talker = site.submit(chatter, gpus=2)
        ends = site.submit("until [ -e /runs/end ]; do sleep 0.1; done; exit 3", gpus=2)
        for job in (talker, ends):
            site.begun(job)
            assert site.topod.wait(job, "running").state == "running"
        # The log has its first page: on the full disk it can grow to the end of that and no further.
        site.topod.until(lambda: site.topod.printed(talker) == b"0\n")
        with filled(disk):
            assert "full" in refused(site.submit)
            for reply in (site.topod.ask(ListJobs()), site.topod.ask(ListJobs(brief=True))):
                assert isinstance(reply, Jobs | JobLines)
                assert [trouble.split(":")[0] for trouble in reply.troubles] == ["store"]
            _, check = check_daemon(site.topod.socket)
            assert check.verdict == "warn"
            assert check.mend.startswith(f"df -h {disk}")
            (site.runs / "speak").touch()
            (site.runs / "end").touch()
            # The end is known and cannot be written down; and the log, which cannot be either, is not lost.
            site.topod.until(lambda: site.log_says(f"container.exited job={ends} "))
            site.topod.until(lambda: site.log_says("stands still"))
            assert site.topod.job(ends).state == "running", "what is not written down has not happened"
        assert site.topod.wait(ends, timeout=60).exit_code == 3
        after = site.submit("true", gpus=8, priority=1000)
        assert site.topod.wait(after, timeout=60).state == "succeeded"
        site.release()
        views = site.await_all([talker, after], "succeeded")
        assert views[talker].preemptions == 1
        printed = site.topod.output(talker, 1).split()
        assert printed == [str(number) for number in range(LINES + 1)], "neither a hole nor a double"
        site.check([talker, ends, after])


def test_a_disk_that_turns_read_only(tmp_path: Path, engine: PrivateEngine) -> None:
    if shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("mkfs.ext4 is not installed (package e2fsprogs)")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", str(image)], check=True)
    state = tmp_path / "s/t"
    with mounted(state, "-o", "loop", str(image)), FaultSite(tmp_path / "s", engine) as site:
        stays = site.submit(gpus=2)
        ends = site.submit("until [ -e /runs/end ]; do sleep 0.1; done; exit 3", gpus=2)
        for job in (stays, ends):
            site.begun(job)
            # Its mark is there before topod has written down that it runs.
            assert site.topod.wait(job, "running").state == "running"
        # What ext4 does by itself when the disk under it fails.
        subprocess.run(["mount", "-o", "remount,abort", str(state)], check=True)
        refused(site.submit)
        (site.runs / "end").touch()
        site.topod.until(lambda: site.log_says(f"container.exited job={ends} "))
        assert {site.topod.job(job).state for job in (stays, ends)} == {"running"}
        site.topod.kill()
        # The operator mends it and starts topod again.
        subprocess.run(["umount", str(state)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(state)], check=True)
        site.start()
        assert site.topod.wait(ends, timeout=60).exit_code == 3
        assert site.topod.job(stays).state == "running"
        after = site.submit("true", gpus=8, priority=1000)
        assert site.topod.wait(after, timeout=60).state == "succeeded"
        site.release()
        views = site.await_all([stays, after], "succeeded")
        assert views[stays].starts == 2
        site.check([stays, ends, after])
