"""Runs jobs as containers of a Docker engine (or of Podman's compatible socket).

Which process gets SIGTERM: the engine signals process 1 of the container, the engine's init, which passes it
on to its child's process group. A shell without a trap dies of it at once, and with it the container, so a
job that saves its work on SIGTERM is started as `exec program`, or by a shell that traps and waits.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import docker.errors
import psutil

from topod.adapters.cuda_checkpoint import CudaCheckpoint
from topod.adapters.docker_container import ENDED_STATES, OLD, epoch, observed, ran
from topod.adapters.docker_engine import (
    Engine,
    engine_errors,
    explain,
    rejected,
    unavailable,
)
from topod.adapters.docker_freeze import Freezer
from topod.adapters.docker_hook import execute_in_container, run_in_container
from topod.adapters.docker_images import Images
from topod.adapters.docker_logs import LogKeeper
from topod.adapters.docker_spec import (
    ATTEMPT_LABEL,
    DIGEST_LABEL,
    JOB_LABEL,
    JOBS_SLICE,
    STATE_LABEL,
    EngineHost,
    Hardening,
    container_body,
    container_name,
    emulation_notes,
    without_default_ulimits,
)
from topod.adapters.docker_watch import ExitWatcher, Lives
from topod.adapters.executions import ContainerExecution
from topod.adapters.gpu_nodes import control_nodes, gpu_nodes
from topod.adapters.secret_files import with_real_secrets
from topod.errors import JobRejectedError, RuntimeUnavailableError
from topod.model.cpuset import CpuSet
from topod.model.job import Allocation, JobId, JobSpec
from topod.ports import LOG_BYTES, Exit, ImageMissingError, Observed, Signal

log = logging.getLogger(__name__)

LOG_SECONDS = 30.0
"""How long `remove` waits for the rest of a log."""


class DockerRuntime:
    """`ContainerRuntime` on a container engine; the handle of a container is its name.

    Calls end within `call_timeout` seconds, create, start and remove within a small multiple of
    `slow_timeout`, `ensure_image` within twice `pull_timeout`. Thread-safe.
    """

    name = "docker"

    def __init__(
        self,
        *,
        state_id: str,
        log_dir: Path,
        machine_cpus: CpuSet,
        base_url: str | None = None,
        machine_nodes: tuple[int, ...] = (0,),
        emulated: bool = False,
        network_mode: str | None = None,
        hardening: Hardening = Hardening(),  # noqa: B008 - a frozen value
        pull_timeout: float = 3600.0,
        call_timeout: float = 15.0,
        slow_timeout: float = 120.0,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        """Keep the settings; connects on first use, so topod also starts while the engine is down."""
        self._engine = Engine(
            base_url, call_timeout=call_timeout, slow_timeout=slow_timeout, pull_timeout=pull_timeout
        )
        self.engine_url = self._engine.base_url
        self._host = EngineHost(
            state_id=state_id,
            emulated=emulated,
            machine_cpus=machine_cpus,
            machine_nodes=machine_nodes,
            network_mode=network_mode,
            hardening=hardening,
        )
        self._images = Images(self._engine, pull_timeout)
        self._slow_timeout = slow_timeout
        self._log_dir = log_dir
        self._logs = LogKeeper(self._engine, log_bytes)
        self._freezer = Freezer(self._engine, CudaCheckpoint(), self.pids)
        self._watcher: ExitWatcher | None = None
        self._lives = Lives()
        self._made: dict[str, tuple[JobId, int]] = {}
        """Containers that were made here and that nobody has tried to start."""
        self._lock = threading.Lock()

    def describe(self) -> str:
        """Return one line for people: engine, version, what is emulated."""
        try:
            facts = self._engine.facts()
        except RuntimeUnavailableError as error:
            return f"docker at {self._engine.base_url}: {error.message}"
        devices = "GPUs by CDI" if facts.cdi_devices else "GPUs by the NVIDIA runtime"
        if self._host.emulated:
            devices = "GPUs are emulated: no device is passed"
        elif facts.podman:
            devices = "no GPUs: Podman ignores such requests"
        return f"{facts.name} {facts.version} (API {facts.api_version}) at {self._engine.base_url}; {devices}"

    def notes(self, allocation: Allocation) -> tuple[str, ...]:
        """Return what of the allocation is only recorded on this host, one sentence each."""
        return emulation_notes(allocation, self._host)

    def ensure_image(self, spec: JobSpec) -> None:
        """Make the image local, pulling it if needed."""
        self._images.ensure(spec)

    def image_seen(self, spec: JobSpec) -> bool:
        """Say whether the image was local not long ago; asks nobody."""
        return self._images.seen(spec)

    def create(self, job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> str:
        """Create the container without starting it; one of other content that never ran is replaced."""
        spec = with_real_secrets(spec)
        facts = self._engine.facts()
        host = replace(
            self._host,
            podman=facts.podman,
            cdi_devices=facts.cdi_devices,
            gpu_nodes=gpu_nodes(),
            control_nodes=control_nodes(),
            # With the other driver a slice's name is no more than a folder that systemd does not know of.
            cgroup_parent=JOBS_SLICE if facts.by_systemd and not facts.podman else None,
        )
        body = container_body(job, attempt, spec, allocation, host)
        name = container_name(host.state_id, job, attempt)
        for _ in range(2):
            if self._create(name, body):
                if not facts.podman:  # of whose events and logs less is known
                    self._made[name] = job, attempt
                return name
            found = self._engine.inspect_container(name)
            if found is None:
                continue
            same = found["Config"]["Labels"].get(DIGEST_LABEL) == body["Labels"][DIGEST_LABEL]
            if same or ran(found):
                return name
            self.remove(name)
        raise unavailable(f"creating {name}", "the name stays taken")

    def start(self, handle: str, checkpoint: str | None = None) -> float:
        """Start the container unless it runs or ran; return when it started (epoch seconds)."""
        made = self._made.pop(handle, None)
        if made is not None and checkpoint is None and self._start(handle):
            return self._begun(handle, *made)
        found = self._engine.inspect_container(handle) or self._replaced(handle)
        if found is None:
            raise JobRejectedError(f"container {handle} was removed by someone before it was started")
        if checkpoint is not None or not ran(found):
            if checkpoint is not None:
                self._restore(handle, found, checkpoint)
            else:
                self._start(handle)
            found = self._engine.inspect_container(handle)
            if found is None:
                raise unavailable(f"starting {handle}", "the container vanished")
        labels = found["Config"]["Labels"]
        self._follow(handle, JobId(int(labels[JOB_LABEL])), int(labels[ATTEMPT_LABEL]))
        return epoch(found["State"]["StartedAt"]) or time.time()

    def _begun(self, handle: str, job: JobId, attempt: int) -> float:
        """Take up a container that was just started for the first time; return since when it runs."""
        # Somebody may be waiting for its first line: the log comes before the look.
        self._logs.follow(handle, self.log_path(job, attempt), running=True)
        found = self._engine.inspect_container(handle)
        if found is None:
            raise unavailable(f"starting {handle}", "the container vanished")
        began = epoch(found["State"]["StartedAt"]) or time.time()
        self._lives.began(handle, began)
        return began

    def _restore(self, handle: str, found: dict[str, Any], checkpoint: str) -> None:
        # Its first life is over and told; what follows is news again.
        self._logs.again(handle)
        if self._watcher is not None:
            self._watcher.again(handle)
        self._freezer.restore(handle, found, checkpoint, self._slow_timeout)
        try:
            self._freezer.forget(handle, checkpoint)
        except (JobRejectedError, RuntimeUnavailableError) as error:
            log.warning("the checkpoint of %s stays on disk: %s", handle, error.message)

    def freeze(self, handle: str, name: str, timeout_seconds: float) -> float | None:
        """Write the container to disk, which ends it; return when the life that ended had begun."""
        self._lives.forget(handle)
        found = self._engine.inspect_container(handle)
        if found is None:
            raise JobRejectedError("its container is gone")
        return self._freezer.freeze(handle, found, name, timeout_seconds)

    def signal(self, handle: str, signal: Signal) -> None:
        """Send the signal; no error when the container is gone or does not run."""
        action = f"sending {signal} to {handle}"
        if signal in (Signal.TERM, Signal.KILL):
            self._lives.told_to_stop(handle)
        with engine_errors(action):
            try:
                self._engine.quick.kill(handle, signal.value)
            except docker.errors.APIError as error:
                sentence = explain(error).lower()
                quiet = ("not running", "no such container", "already finished", "no such process")
                if error.status_code not in (404, 409) and not any(text in sentence for text in quiet):
                    raise

    def run_hook(
        self, handle: str, command: tuple[str, ...], timeout_seconds: float
    ) -> tuple[int | None, str]:
        """Run a command inside the container; return (exit code or None on time-out, last output)."""
        return run_in_container(self._engine, handle, command, timeout_seconds)

    def execute(self, handle: str, command: tuple[str, ...], *, stdin: bool) -> ContainerExecution:
        """Start a command inside the running container."""
        return execute_in_container(self._engine, handle, command, stdin=stdin)

    def observe(self) -> tuple[Observed, ...]:
        """Return every container that carries this topod's labels."""
        with engine_errors("listing containers"):
            rows = self._engine.quick.containers(
                all=True, filters={"label": f"{STATE_LABEL}={self._host.state_id}"}
            )
        inspected = (self._engine.inspect_container(row["Id"]) for row in rows)
        found = [container for container in inspected if container is not None]
        # One that is being replaced counts only while its successor is not there.
        found.sort(key=lambda container: not container["Name"].endswith(OLD))
        return tuple({one.handle: one for one in map(observed, found)}.values())

    def watch(self, on_exit: Callable[[Exit], None]) -> None:
        """Call `on_exit` for each container that has ended or ends; also takes up their logs again."""
        with self._lock:
            if self._watcher is not None:
                raise RuntimeError("watch() is called once")
            self._watcher = ExitWatcher(self._engine, self._host.state_id, on_exit, self._follow, self._lives)

    def log_path(self, job: JobId, attempt: int) -> Path:
        """Return the file that holds what the attempt printed."""
        return self._log_dir / f"{job}.{attempt}.log"

    def remove(self, handle: str) -> None:
        """Kill the container if needed, complete its log, remove it."""
        self._made.pop(handle, None)
        self._lives.forget(handle)
        self._remove(handle + OLD)
        found = self._engine.inspect_container(handle)
        if found is None:
            return
        labels = found["Config"]["Labels"]
        path = self.log_path(JobId(int(labels[JOB_LABEL])), int(labels[ATTEMPT_LABEL]))
        if ran(found):
            if found["State"]["Status"] not in ENDED_STATES:
                self._kill(handle)
            if not self._logs.finish(handle, path, LOG_SECONDS):
                log.warning("the log of %s may lack its end: the engine did not deliver it in time", handle)
        self._remove(handle)
        self._logs.forget(handle, path)

    def pids(self, handle: str) -> tuple[int, ...]:
        """Return the host PIDs of the container's processes, its init included; empty when not running."""
        found = self._engine.inspect_container(handle)
        if found is None or not found["State"]["Pid"]:
            return ()
        first = int(found["State"]["Pid"])
        if not self._engine.facts().podman:
            try:
                with engine_errors(f"listing the processes of {handle}"):
                    top = self._engine.quick.top(handle, ps_args="-eo pid")
                return tuple(sorted(int(row[0]) for row in top["Processes"] or ()))
            except RuntimeUnavailableError as error:  # no `ps` on the host, or the container just ended
                log.debug("%s", error)
        try:
            children = psutil.Process(first).children(recursive=True)
        except psutil.NoSuchProcess:
            return ()
        return tuple(sorted({first, *(child.pid for child in children)}))

    def close(self) -> None:
        """Stop watching and copying logs; leaves every container running."""
        with self._lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()
        self._logs.close()
        self._engine.close()

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        """Return False where the name is taken."""
        action = f"creating {name}"
        with engine_errors(action):
            try:
                answer = self._engine.create_container(name, body)
            except docker.errors.ImageNotFound as error:
                raise ImageMissingError(explain(error)) from error
            except docker.errors.APIError as error:
                # Podman 4.3 answers 500 where Docker answers 409.
                if error.status_code == 409 or "already in use" in explain(error):
                    return False
                self._discard_leftover(name)
                raise rejected(action, error) from error
        for warning in answer.get("Warnings") or ():
            log.info("%s: %s", name, warning)
        return True

    def _start(self, handle: str, *, last_try: bool = False) -> bool:
        """Return False where there is no such container."""
        action = f"starting {handle}"
        with engine_errors(action):
            try:
                self._engine.slow.start(handle)
            except docker.errors.APIError as error:
                if f"No such container: {handle}" in explain(error):
                    return False
                if last_try or "setting rlimit" not in explain(error):
                    raise rejected(action, error) from error
            else:
                return True
        self._drop_default_ulimits(handle)
        return self._start(handle, last_try=True)

    def _drop_default_ulimits(self, handle: str) -> None:
        """Make the container again without them: this engine may not raise limits, and says so at start."""
        if self._host.default_ulimits:
            log.warning(
                "this engine may not raise ulimits: jobs run with its own (memlock may be too low for RDMA)"
            )
            self._host = replace(self._host, default_ulimits=False)
        with engine_errors(f"creating {handle} again"):
            self._engine.slow.rename(handle, handle + OLD)
        self._replaced(handle)

    def _replaced(self, handle: str) -> dict[str, Any] | None:
        """Finish a replacement that was begun, maybe before a crash; return the new container, if any."""
        old = self._engine.inspect_container(handle + OLD)
        if old is None:
            return None
        with engine_errors(f"creating {handle} again"):
            try:
                self._engine.create_container(handle, without_default_ulimits(old))
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
        self._remove(handle + OLD)
        return self._engine.inspect_container(handle)

    def _remove(self, name: str) -> None:
        """Remove the container, if there is one, with all that the engine keeps of it."""
        with engine_errors(f"removing {name}"):
            try:
                self._engine.slow.remove_container(name, force=True, v=True)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):  # 409: another removal is under way
                    raise

    def _kill(self, handle: str) -> None:
        """SIGKILL, and wait until the engine says that it ended."""
        action = f"killing {handle}"
        self.signal(handle, Signal.KILL)
        with engine_errors(action):
            try:
                self._engine.slow.wait(handle)
            except docker.errors.NotFound:
                log.debug("%s is gone", handle)

    def _discard_leftover(self, name: str) -> None:
        try:
            self._engine.slow.remove_container(name, force=True, v=True)
        except docker.errors.APIError as error:
            log.debug("nothing left of %s: %s", name, explain(error))

    def _follow(self, handle: str, job: JobId, attempt: int) -> None:
        self._logs.follow(handle, self.log_path(job, attempt))
