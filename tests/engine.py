"""A private Docker engine for tests: its own directory, socket, cgroups and containerd, gone afterwards."""

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest
import requests

from topod.adapters.process_shim import read_process

IMAGE = "bb:latest"
START_SECONDS = 60.0


def missing_parts() -> str | None:
    """Return why no private engine can be started here, or None."""
    if os.geteuid() != 0:
        return "a private Docker engine needs root"
    for program, package in (("dockerd", "docker.io"), ("busybox", "busybox-static")):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed (package {package})"
    return None


def skip_or_fail(reason: str) -> None:
    """Skip the test for a missing part; fail where the caller promised that all parts are there."""
    if os.environ.get("TOPOD_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, but TOPOD_REQUIRE_ALL=1")
    pytest.skip(reason)


class PrivateEngine:
    """One dockerd, started without any network set-up; its containers outlive it with `live_restore`."""

    def __init__(
        self,
        directory: Path,
        *,
        programs: Path | None = None,
        live_restore: bool = True,
        flags: tuple[str, ...] = (),
    ) -> None:
        """`programs` is a folder that the engine searches before the system's; `flags` go to dockerd."""
        self.directory = directory
        self._flags = ("--live-restore", *flags) if live_restore else flags
        self._path = ":".join([*([str(programs)] if programs else []), "/usr/sbin:/usr/bin:/sbin:/bin"])
        self.base_url = f"unix://{directory}/docker.sock"
        self.image = IMAGE
        # The folder's name may begin with what containerd takes for no name: mkdtemp does so.
        self._name = f"topod-test-{secrets.token_hex(6)}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        directory = self.directory
        command = [
            "dockerd",
            *("--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec"),
            *("--pidfile", f"{directory}/docker.pid", "-H", self.base_url),
            *(
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
            ),
            *("--userland-proxy=false", *self._flags, "--shutdown-timeout", "5", "--log-level", "warn"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self._name}"),
            *(
                "--containerd-namespace",
                self._name,
                "--containerd-plugins-namespace",
                f"{self._name}-plugins",
            ),
        ]
        with (directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": self._path},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not come up: {self.log_tail()}")
            time.sleep(0.02)

    def kill9(self) -> None:
        """Kill the engine, and with it its containerd; its containers live on."""
        assert self._process is not None, "started before"
        self._process.kill()
        self._process.wait()
        # A containerd that is dead but not yet reaped counts as running for the next engine, which then waits
        # for it in vain; so it is waited for here, and its number is taken away.
        pid_file = self.directory / "exec/containerd/containerd.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text())
            deadline = time.monotonic() + START_SECONDS
            while (process := read_process(pid)) and process.alive and time.monotonic() < deadline:
                time.sleep(0.02)
            pid_file.unlink(missing_ok=True)

    def kill9_containerd(self) -> None:
        """Kill the engine's containerd; the engine starts another one by itself, after some seconds."""
        os.kill(int((self.directory / "exec/containerd/containerd.pid").read_text()), signal.SIGKILL)

    def terminate(self) -> None:
        """End the engine as a service manager would; without live-restore its containers end with it."""
        assert self._process is not None, "started before"
        self._process.terminate()
        self._process.wait(60)

    def restart(self) -> None:
        """Start the engine after `kill9`, or kill and start it."""
        assert self._process is not None, "started before"
        if self._process.poll() is None:
            self.kill9()
        self.start()

    def pause(self) -> None:
        """Stop the engine from answering: connections are accepted, then nothing comes."""
        assert self._process is not None, "started before"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused engine go on."""
        assert self._process is not None, "started before"
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> docker.DockerClient:
        """Return a new client of this engine; the caller closes it."""
        return docker.DockerClient(base_url=self.base_url, timeout=60)

    def import_image(self) -> None:
        """Make the image `bb:latest`: busybox, nothing else."""
        with contextlib.closing(docker.APIClient(base_url=self.base_url, timeout=60)) as client:
            client.import_image_from_data(busybox_rootfs(), repository="bb", tag="latest")

    def remove_containers(self, prefix: str = "") -> None:
        """Remove all containers whose name begins with `prefix`."""
        with contextlib.closing(docker.APIClient(base_url=self.base_url, timeout=60)) as client:
            for row in client.containers(all=True):
                if any(name.startswith(f"/{prefix}") for name in row["Names"]):
                    try:
                        client.remove_container(row["Id"], force=True, v=True)
                    except docker.errors.APIError as error:
                        if error.status_code not in (404, 409):  # 409: topod is just removing it
                            raise

    def stop(self) -> None:
        """Remove the containers, end the engine, and leave no mount, cgroup or file behind."""
        if self._process is not None:
            self.resume()
            if self._process.poll() is not None:
                self.start()
            self.remove_containers()
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill9()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            mount = line.split()[1]
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "-l", mount], check=False)
        for cgroup in (
            *Path("/sys/fs/cgroup").glob(self._name),
            *Path("/sys/fs/cgroup").glob(f"*/{self._name}"),
        ):
            for directory, _, _ in os.walk(cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self) -> str:
        """Return the end of what the engine wrote."""
        return (self.directory / "dockerd.log").read_text(errors="replace")[-600:]

    def _answers(self) -> bool:
        try:
            with contextlib.closing(docker.APIClient(base_url=self.base_url, timeout=5)) as client:
                return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False


def busybox_rootfs() -> bytes:
    """Return a tar archive with a static busybox, a link for each of its commands, and a user database."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox").resolve()
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        archive.add(busybox, "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        passwd = b"root:x:0:0:root:/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        archive.addfile(entry, io.BytesIO(passwd))
    return buffer.getvalue()


@contextlib.contextmanager
def private_engine(
    *, programs: Path | None = None, live_restore: bool = True, flags: tuple[str, ...] = ()
) -> Iterator[PrivateEngine]:
    """Give a private engine with the image `bb:latest` and leave nothing behind."""
    if reason := missing_parts():
        skip_or_fail(reason)
    # Short: the path of a Unix socket holds 107 bytes.
    directory = Path(f"/tmp/tpd-{secrets.token_hex(4)}")
    directory.mkdir(mode=0o700)
    private = PrivateEngine(directory, programs=programs, live_restore=live_restore, flags=flags)
    try:
        private.start()
        private.import_image()
        yield private
    finally:
        private.stop()


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    """Give a private engine that the tests of one process share."""
    with private_engine() as private:
        yield private
