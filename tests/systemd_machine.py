"""A machine for tests: a real systemd as PID 1 over a copy-on-write view of this machine's files.

It has its own processes, mounts, network, host name and cgroups, and a Docker engine whose cgroups systemd makes.
Nothing of it is left afterwards.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import docker

from tests.engine import busybox_rootfs, skip_or_fail

ROOT = Path(__file__).resolve().parents[1]
UNITS = ROOT / "systemd"
BOOT_SECONDS = 120.0
CGROUPS = Path("/sys/fs/cgroup")
HANG = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: time.sleep(1e6))\n"
"""A program that has this and gets SIGUSR1 hangs in its main thread, and in no other."""

DOCKER = """
[Service]
Type=notify
ExecStart=/usr/sbin/dockerd --data-root /run/docker-data --bridge=none --iptables=false --ip6tables=false \
 --ip-forward=false --ip-masq=false --userland-proxy=false --live-restore --log-level warn \
 --exec-opt native.cgroupdriver=systemd -H unix:///run/docker.sock
KillMode=process
Delegate=yes

[Install]
WantedBy=multi-user.target
"""
ONCE = "[Service]\nType=oneshot\nExecStart=/bin/sleep 0.3\nRemainAfterExit=yes\n[Install]\nWantedBy=multi-user.target\n"


def missing_parts() -> str | None:
    """Return why no such machine can be had here, or None."""
    if os.geteuid() != 0:
        return "a machine with systemd needs root"
    for program, package in (
        ("/lib/systemd/systemd", "systemd"),
        ("/usr/bin/dbus-daemon", "dbus"),
        ("/usr/sbin/dockerd", "docker.io"),
        ("/bin/busybox", "busybox-static"),
    ):
        if not Path(program).exists():
            return f"{program} is not there (package {package})"
    return None


class Machine:
    """One such machine. `start` boots it, `stop` ends it."""

    def __init__(self, directory: Path, *, topod: bool) -> None:
        """With `topod`, its units are there, and commands that run this checkout."""
        self.directory = directory
        self.name = f"topod-machine-{secrets.token_hex(4)}"
        self.files = directory / "upper"
        """What is written here before `start` is there after the boot, over this machine's own files."""
        self.pid = 0
        self._topod = topod
        self._outside: subprocess.Popen[bytes] | None = None
        for name in ("upper", "work", "root"):
            (directory / name).mkdir()

    # --- before the boot ------------------------------------------------------------------------------------

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file in place."""
        file = self.files / path.lstrip("/")
        for folder in reversed(file.relative_to(self.files).parents):
            (self.files / folder).mkdir(mode=0o755, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def install_topod(self) -> None:
        """Install the units, and commands that run this checkout for every user."""
        for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.slice")):
            self.write(f"/etc/systemd/system/{unit.name}", unit.read_text())
        for kind in ("sysusers", "tmpfiles"):
            self.write(f"/usr/lib/{kind}.d/topod.conf", (UNITS / f"topod.{kind}").read_text())
        self.write("/opt/topod/hang/sitecustomize.py", HANG)
        python = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
        for name, module in (("topod", "topod.daemon"), ("topod-coordinator", "topod.coordinator")):
            lines = (
                "#!/bin/sh",
                "export PYTHONPATH=/opt/topod/hang:/opt/topod/source:/opt/topod/site PYTHONDONTWRITEBYTECODE=1",
                "export LD_LIBRARY_PATH=/opt/topod/python/lib",
                f'exec /opt/topod/python/{python} -m {module} "$@"',
            )
            self.write(f"/usr/local/bin/{name}", "\n".join(lines), 0o755)

    # --- the boot -------------------------------------------------------------------------------------------

    def start(self, *enabled: str) -> None:
        """Boot with these units enabled, and wait until it is up."""
        self.write("/etc/systemd/system/docker.service", DOCKER)
        # Where cgroups are of version 1 nobody tells a systemd in namespaces that a scope is empty: it waits so long.
        self.write("/etc/systemd/system.conf.d/quick.conf", "[Manager]\nDefaultTimeoutStopSec=2s\n")
        inner, outer = self.directory / "inner.sh", self.directory / "outer.sh"
        inner.write_text(self._inner(enabled))
        outer.write_text(self._outer(inner))
        with (self.directory / "boot.log").open("wb") as log:
            self._outside = subprocess.Popen(
                ["/bin/sh", str(outer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.await_(self._is_up, "the machine is up")

    def _outer(self, inner: Path) -> str:
        lines = ["set -e"]
        for folder in self._cgroups():
            lines += [
                f"mkdir {folder}",
                f"for f in cpuset.cpus cpuset.mems; do [ ! -f {folder.parent}/$f ] || cat {folder.parent}/$f >{folder}/$f; done",
                f"echo $$ >{folder}/cgroup.procs",
            ]
        kinds = "--pid --mount --uts --ipc --net --cgroup"
        lines.append(
            f"exec unshare {kinds} --fork --kill-child=SIGKILL --propagation private /bin/sh {inner}"
        )
        return "\n".join(lines)

    def _inner(self, enabled: Sequence[str]) -> str:
        root, own = self.directory / "root", ("null", "zero", "full", "random", "urandom", "tty")
        flags, mounts = "", "mount -t cgroup2 none sys/fs/cgroup"
        if legacy := [path.name for path in _hierarchies() if path.name not in ("unified", "cgroup")]:
            flags = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
            mounts = "mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup\n" + "\n".join(
                f"mkdir sys/fs/cgroup/{name}; mount -t cgroup -o {'none,name=systemd' if name == 'systemd' else name}"
                f" cgroup sys/fs/cgroup/{name}"
                for name in legacy
            )
        binds = {
            "python": Path(sys.base_prefix),
            "site": Path(sysconfig.get_paths()["purelib"]),
            "source": ROOT,
        }
        bound = "\n".join(
            f"mkdir -p opt/topod/{name}; mount --bind {path} opt/topod/{name}" for name, path in binds.items()
        )
        return textwrap.dedent(
            """\
            set -e
            # Volatile: nothing of it is kept, so nothing needs to reach the disk.
            layers=lowerdir=/,upperdir={files},workdir={work}
            mount -t overlay overlay -o $layers,volatile {root} || mount -t overlay overlay -o $layers {root}
            cd {root}
            # What this machine itself has enabled is none of the test's.
            rm -rf etc/systemd/system/*.wants etc/systemd/system/default.target usr/sbin/policy-rc.d
            {bound}
            mount -t proc proc proc; mount -t sysfs sysfs sys
            mount -t tmpfs -o mode=755 tmpfs dev
            for n in {own}; do touch dev/$n; mount --bind /dev/$n dev/$n; done
            mkdir -p dev/pts dev/shm
            mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
            ln -s pts/ptmx dev/ptmx; mount -t tmpfs tmpfs dev/shm; ln -s /proc/self/fd dev/fd
            mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp
            {mounts}
            hostname machine
            mkdir -p run/oldroot; pivot_root . run/oldroot; cd /; umount -l /run/oldroot; rmdir /run/oldroot
            # Without it the credentials of a unit are an empty folder.
            mount --make-rshared /
            ip link set lo up || true
            : >/etc/machine-id
            {users}
            systemctl --root=/ -q enable {enabled}
            systemctl --root=/ -q mask getty.target systemd-logind.service systemd-networkd-wait-online.service
            export container=lxc
            exec /lib/systemd/systemd --system --unit=multi-user.target {flags}
            """
        ).format(
            files=self.files,
            work=self.directory / "work",
            root=root,
            bound=bound,
            own=" ".join(own),
            mounts=mounts,
            users="systemd-sysusers topod.conf; systemd-tmpfiles --create topod.conf" if self._topod else "",
            enabled=" ".join(("docker.service", *enabled)),
            flags=flags,
        )

    def _cgroups(self) -> list[Path]:
        return [path / self.name for path in _hierarchies()]

    def _is_up(self) -> bool:
        assert self._outside is not None
        if self._outside.poll() is not None:
            raise RuntimeError(f"the machine does not boot: {self.log_tail()}")
        if not self.pid:
            outside = Path(f"/proc/{self._outside.pid}")
            if (outside / "comm").read_text() == "unshare\n":
                children = (outside / f"task/{outside.name}/children").read_text().split()
                self.pid = int(children[0]) if children else 0
            return False
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    # --- while it runs --------------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command as root of the machine and return what it printed."""
        entered = ["nsenter", "-t", str(self.pid), "-a", "--", *command]
        done = subprocess.run(entered, capture_output=True, text=True, check=False, timeout=BOOT_SECONDS)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def path(self, path: str) -> Path:
        """Return where a file of the machine is seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def write_now(self, path: str, text: str) -> None:
        """Give a file of the running machine a new content."""
        self.path(path).write_text(text)

    def unit(self, unit: str) -> dict[str, str]:
        """Return what systemd knows of a unit."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, unit: str) -> str:
        """Return what a unit has logged, and systemd of it."""
        return self.run("journalctl", "-u", unit, "-o", "cat", "--no-pager")

    def await_(self, holds: Callable[[], bool], what: str) -> None:
        """Return when something holds."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain: {what}; {self.log_tail()}")
            time.sleep(0.05)

    def engine(self) -> docker.DockerClient:
        """Return a new client of the machine's engine; the caller closes it."""
        return docker.DockerClient(base_url=f"unix://{self.path('/run/docker.sock')}", timeout=60)

    def import_image(self) -> None:
        """Make the image `bb:latest`: busybox, nothing else."""
        with contextlib.closing(self.engine()) as client:
            client.api.import_image_from_data(busybox_rootfs(), repository="bb", tag="latest")

    def log_tail(self) -> str:
        """Return the end of what the boot printed."""
        return (self.directory / "boot.log").read_text(errors="replace")[-800:]

    # --- the end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Power it off, and leave nothing behind."""
        if self._outside is not None:
            # Its PID 1 takes all its processes with it; mounts go with the last of them.
            self._outside.kill()
            self._outside.wait(60)
        for cgroup in self._cgroups():
            for folder, _, _ in os.walk(cgroup, topdown=False):
                self._remove(Path(folder))
        shutil.rmtree(self.directory, ignore_errors=True)

    def _remove(self, cgroup: Path) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # the dead leave a cgroup a moment later
            try:
                cgroup.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)
            else:
                return


def _hierarchies() -> list[Path]:
    """Return where the hierarchies of cgroups are mounted; a version 2 that has no limits beside version 1 too."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = {Path(line[1]) for line in lines if line[2] in ("cgroup", "cgroup2")}
    return sorted(path for path in found if CGROUPS in (path, path.parent))


@contextlib.contextmanager
def machine(*, topod: bool = True) -> Iterator[Machine]:
    """Give a machine that was not booted yet, with topod installed or not, and leave nothing of it behind."""
    if reason := missing_parts():
        skip_or_fail(reason)
    directory = Path(f"/tmp/tpm-{secrets.token_hex(4)}")
    directory.mkdir(mode=0o755)
    one = Machine(directory, topod=topod)
    try:
        if topod:
            one.install_topod()
        yield one
    finally:
        one.stop()
