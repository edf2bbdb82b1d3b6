"""Runs jobs as plain processes of the host, where there is no container engine. Linux only.

Each attempt has a directory under `root` and a shim process (`process_shim`) that outlives topod. The service
manager must leave the shims alone when it stops topod (systemd: `KillMode=process`).
"""

import grp
import json
import logging
import os
import pwd
import resource
import shutil
import signal as signals
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topod.adapters import process_shim
from topod.adapters.executions import ProcessExecution
from topod.adapters.job_environment import JOB_PID, job_environment, secret_variable
from topod.adapters.process_attempt import MARK, Attempt, attempts
from topod.adapters.process_launcher import Launcher
from topod.adapters.process_shim import write_durably
from topod.adapters.process_watch import ExitWatcher
from topod.adapters.secret_files import checked_secrets
from topod.errors import ConflictError, JobRejectedError, RuntimeUnavailableError
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec, Network
from topod.ports import LOG_BYTES, ContainerStatus, Exit, Observed, Signal

log = logging.getLogger(__name__)

REMOVE_SECONDS = 15.0
OUTPUT_BYTES = 4096
"""How much of the end of a hook's output is kept."""
INHERITED = ("HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""Variables of topod that a job sees; the others (service manager, secrets) are topod's own."""


class ProcessRuntime:
    """`ContainerRuntime` without containers; the handle of an attempt is `JOB.ATTEMPT`.

    Images, shared-memory size and memory limits mean nothing here. Thread-safe.
    """

    name = "process"
    engine_url = ""

    def __init__(
        self,
        *,
        root: Path,
        state_id: str,
        log_dir: Path,
        machine_cpus: CpuSet,
        emulated: bool = False,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        """Keep the settings; of what an attempt prints about the last `log_bytes` are kept."""
        self._log_bytes = log_bytes
        self._root = root.absolute()
        self._state_id = state_id
        self._log_dir = log_dir.absolute()
        self._machine_cpus = machine_cpus
        self._emulated = emulated
        self._watcher: ExitWatcher | None = None
        self._beside: dict[str, set[int]] = {}
        self._lock = threading.Lock()
        self._launcher = Launcher()

    def describe(self) -> str:
        """Return one line for people."""
        gpus = "; GPUs are emulated" if self._emulated else ""
        return f"process: jobs run as plain processes of this host, images are ignored{gpus}"

    def notes(self, allocation: Allocation, spec: JobSpec | None = None) -> tuple[str, ...]:
        """Return what of the allocation and the job this runtime only records, one sentence each."""
        notes = []
        if allocation.gpus and self._emulated:
            notes.append(f"the host is emulated: {len(allocation.gpus)} GPUs are booked, none is used")
        missing = allocation.cpus - self._machine_cpus
        if missing and self._emulated:
            real = allocation.cpus & self._machine_cpus
            where = f"pinned to {real}" if real else "not pinned"
            notes.append(f"CPUs {missing} are emulated: they are only recorded, the job is {where}")
        if allocation.memory_nodes:
            notes.append("memory is not bound to NUMA nodes without a container engine")
        if spec is not None and spec.image is not None:
            notes.append(f"image {spec.image} is ignored: the command runs on the host itself")
        if spec is not None and spec.memory_bytes is not None:
            notes.append("the memory limit is not enforced without a container engine")
        return tuple(notes)

    def ensure_image(self, spec: JobSpec) -> None:
        """Do nothing: there are no images."""

    def image_seen(self, spec: JobSpec) -> bool:
        """Return True: no image is needed."""
        del spec
        return True

    def create(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> str:
        """Write down what to run; what was written before is replaced unless it was started."""
        document = self._document(job, attempt, spec, allocation)
        found = self._attempt(f"{job}.{attempt}")
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            found.directory.mkdir(parents=True, exist_ok=True)
            if found.read("claim") is None and found.read("spec") != document:
                write_durably(found.directory / "spec.json", document)
        except OSError as error:
            raise _unavailable(f"creating {found.handle}", error) from error
        return found.handle

    def start(self, handle: str, checkpoint: str | None = None) -> float:
        """Start the job unless it runs or ran; return when it started (epoch seconds)."""
        if checkpoint is not None:
            raise JobRejectedError("the process runtime cannot restore a job")
        attempt = self._attempt(handle)
        if attempt.read("spec") is None:
            raise JobRejectedError(f"attempt {handle} was removed by someone before it was started")
        if attempt.read("claim") is None:
            self._launcher.launch(attempt.directory)
        started = attempt.wait_started()
        if started is None:
            raise RuntimeUnavailableError(
                f"attempt {handle} was claimed but never started: its shim was killed",
                hint=f"remove {attempt.directory} and submit the job again",
            )
        with self._lock:
            if self._watcher is not None:
                self._watcher.wake(handle)
        return float(started["started_at"])

    def freeze(self, handle: str, name: str, timeout_seconds: float) -> float | None:
        """Refuse: it is not supported."""
        del handle, name, timeout_seconds
        raise JobRejectedError("the process runtime cannot freeze a job")

    def signal(self, handle: str, signal: Signal) -> None:
        """Send the signal to the job's process group; SIGKILL goes to all its processes."""
        attempt = self._attempt(handle)
        if attempt.read("claim") is None:
            return
        started = attempt.wait_started()
        # The shim keeps the job's number taken until all is over, so the group cannot be another's.
        if started and (attempt.living("claim") or attempt.living("started")):
            _quietly(os.killpg, started["pid"], signals.Signals[signal.value])
        if signal is Signal.KILL:
            for pid in self.pids(handle):
                _quietly(os.kill, pid, signals.SIGKILL)

    def run_hook(
        self, handle: str, command: tuple[str, ...], timeout_seconds: float
    ) -> tuple[int | None, str]:
        """Run a command as the job's user, in its directory; killed with its children at the time-out."""
        spec = self._attempt(handle).read("spec")
        if spec is None:
            return process_shim.CANNOT_RUN, f"attempt {handle} is gone"
        main = self._attempt(handle).living("started")
        if main is None:
            return process_shim.CANNOT_RUN, f"the job of attempt {handle} has ended"
        with tempfile.TemporaryFile() as output:
            try:
                hook = subprocess.Popen(  # noqa: S603 - the job's own command, run as the job's user
                    command,
                    cwd=spec["workdir"],
                    env={**spec["environment"], JOB_PID: str(main)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    user=spec["uid"],
                    group=spec["gid"],
                    extra_groups=spec["groups"] if spec["gid"] is not None else None,
                )
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                return process_shim.NOT_FOUND if missing else process_shim.CANNOT_RUN, str(error)
            code: int | None
            try:
                code = hook.wait(timeout_seconds)
                code = 128 - code if code < 0 else code
            except subprocess.TimeoutExpired:
                code = None
                _quietly(os.killpg, hook.pid, signals.SIGKILL)
                hook.wait()
            output.seek(max(0, output.seek(0, os.SEEK_END) - OUTPUT_BYTES))
            return code, output.read().decode(errors="replace")

    def execute(self, handle: str, command: tuple[str, ...], *, stdin: bool) -> ProcessExecution:
        """Start a command as the job's user, in its directory, on its CPUs."""
        attempt = self._attempt(handle)
        if attempt.living("started") is None:
            raise ConflictError(f"job {attempt.job} does not run")
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(  # noqa: S603 - what the job's owner asks for
                [sys.executable, "-I", "-S", process_shim.__file__, str(attempt.directory), *command],
                cwd="/",
                stdin=pipe if stdin else subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise _unavailable(f"starting a command beside {handle}", error) from error
        beside = self._beside.setdefault(handle, set())
        beside.add(process.pid)
        return ProcessExecution(process, beside.discard)

    def observe(self) -> tuple[Observed, ...]:
        """Return every attempt under the root."""
        seen = (attempt.observe() for attempt in attempts(self._root))
        return tuple(one for one in seen if one is not None)

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        """Call `on_exit` for each attempt that has ended or ends."""
        with self._lock:
            if self._watcher is not None:
                raise RuntimeError("watch() is called once")
            self._watcher = ExitWatcher(self._root, on_exit)
        self._launcher.keep_one_ready()

    def log_path(self, job: JobId, attempt: int) -> Path:
        """Return the file that the job's output goes to directly."""
        return self._log_dir / f"{job}.{attempt}.log"

    def remove(self, handle: str) -> None:
        """Kill what is left of the job and forget the attempt; its log stays."""
        attempt = self._attempt(handle)
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            seen = attempt.observe()
            left = self.pids(handle)
            if (seen is None or seen.status is not ContainerStatus.RUNNING) and not left:
                break
            if time.monotonic() > deadline:
                raise RuntimeUnavailableError(
                    f"job {attempt.job} does not die: processes {', '.join(map(str, left))} ignore SIGKILL",
                    hint="they hang in a driver; look at `dmesg` and at the GPU",
                )
            self.signal(handle, Signal.KILL)
            time.sleep(process_shim.LOOK_SECONDS)
        try:
            # spec.json goes first: without it the directory counts as gone, also when the rest stays.
            (attempt.directory / "spec.json").unlink(missing_ok=True)
            shutil.rmtree(attempt.directory)
            self._beside.pop(handle, None)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unavailable(f"removing {handle}", error) from error

    def pids(self, handle: str) -> tuple[int, ...]:
        """Return the PIDs of the job's processes, also of commands beside it."""
        pids = set(self._attempt(handle).pids())
        for pid in tuple(self._beside.get(handle, ())):
            pids |= {pid, *process_shim.descendants(pid)}
        return tuple(sorted(pids))

    def close(self) -> None:
        """Stop watching; leaves every job running."""
        with self._lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()
        self._launcher.close()

    def _attempt(self, handle: str) -> Attempt:
        return Attempt(self._root / handle)

    def _document(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> dict[str, Any]:
        if not spec.command:
            raise JobRejectedError(
                f"job {job} ({spec.name}) has no command", hint="add `command:` to the job file"
            )
        for mount in spec.mounts:
            if Path(mount.source) != Path(mount.target):
                raise JobRejectedError(
                    f"job {job} mounts {mount.source} at {mount.target}, which needs a container engine",
                    hint="use the same path on both sides, or install Docker",
                )
            if mount.read_only:
                raise JobRejectedError(
                    f"job {job} mounts {mount.source} read-only, which needs a container engine",
                    hint="drop `read_only`, or install Docker",
                )
        if spec.cap_add or spec.devices or spec.network not in (None, Network.HOST):
            raise JobRejectedError(
                f"job {job} asks for capabilities, devices or a network, which needs a container engine"
            )
        for name in spec.ulimits:
            if not hasattr(resource, f"RLIMIT_{name.upper()}"):
                raise JobRejectedError(f"job {job} sets the unknown ulimit {name!r}")
        missing = allocation.cpus - self._machine_cpus
        if missing and not self._emulated:
            raise JobRejectedError(f"CPUs {missing} are not on this machine, which has {self._machine_cpus}")
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment = inherited | job_environment(job, attempt, spec, allocation)
        environment |= {secret_variable(name): path for name, path in checked_secrets(spec).items()}
        environment |= {"TOPOD_STATE": self._state_id, MARK: str(self._attempt(f"{job}.{attempt}").directory)}
        if not self._emulated:
            # Nothing but this hides the other GPUs. Indices, since some programs fail on UUIDs here.
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, allocation.gpu_indices))
        uid, gid, groups = _user(job, spec.container_user)
        document = {
            "command": list(spec.command),
            "environment": environment,
            "workdir": spec.workdir or "/",
            "cpus": list(allocation.cpus & self._machine_cpus),
            "ulimits": dict(spec.ulimits),
            "uid": uid,
            "gid": gid,
            "groups": groups,
            "grace_seconds": spec.grace_seconds,
            "log": str(self.log_path(job, attempt)),
            "log_bytes": self._log_bytes,
        }
        return dict(json.loads(json.dumps(document)))  # as it will be read back, to compare


def _user(job: JobId, user: str | None) -> tuple[int | None, int | None, list[int]]:
    """Return uid, gid and further groups of `uid[:gid]` or a name; None means topod's own user."""
    if user is None:
        return None, None, []
    if os.geteuid() != 0:
        raise JobRejectedError(
            f"job {job} wants to run as user {user!r}, but topod does not run as root",
            hint="drop `container_user`, or run topod as root",
        )
    name, colon, group = user.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        uid, gid, groups = entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        if not name.isdecimal():
            raise JobRejectedError(
                f"job {job} wants to run as user {name!r}, who is not on this host"
            ) from None
        uid, gid, groups = int(name), int(name), []
    if colon:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise JobRejectedError(f"job {job} wants group {group!r}, which is not on this host") from None
        groups = []
    return uid, gid, groups


def _quietly(call: Callable[[int, int], None], number: int, signal: int) -> None:
    try:
        call(number, signal)
    except ProcessLookupError:
        log.debug("process %d is gone already", number)


def _unavailable(action: str, error: Exception) -> RuntimeUnavailableError:
    return RuntimeUnavailableError(
        f"the process runtime failed while {action}: {error}", hint="see topod's log"
    )
