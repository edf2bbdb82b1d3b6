"""Writes a running container to disk (CRIU, through the engine) and lets it go on from there.

A checkpoint's name ends with the moment at which the frozen life began, so a restore that is repeated knows
whether it was done: a container that began later than its checkpoint says has been restored already.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import docker
import docker.errors
import requests

from topod.adapters.cuda_checkpoint import CudaCheckpoint
from topod.adapters.docker_container import epoch
from topod.adapters.docker_engine import Engine, engine_errors, explain, rejected
from topod.errors import JobRejectedError

log = logging.getLogger(__name__)

LIST_SECONDS: Final = 15.0
UPLOAD_SECONDS: Final = 20.0
UPLOAD_EVERY_SECONDS: Final = 0.3
"""The engine's containerd keeps its copy of a checkpoint for a moment, and takes no second one meanwhile."""


class Freezer:
    """Freezes and restores the containers of one engine."""

    def __init__(self, engine: Engine, cuda: CudaCheckpoint, pids: Callable[[str], tuple[int, ...]]) -> None:
        """`pids` gives the host's numbers of a container's processes."""
        self._engine = engine
        self._cuda = cuda
        self._pids = pids

    def freeze(self, handle: str, found: Mapping[str, Any], name: str, seconds: float) -> float | None:
        """Freeze the inspected container within `seconds`; return when the life that ended had begun.

        Raises `JobRejectedError` when it cannot be frozen; then it still runs, or has ended.
        """
        own, there = _own_name(found, name), self._checkpoints(handle)
        if not found["State"]["Running"]:
            if own in there:
                return epoch(found["State"]["StartedAt"])
            raise JobRejectedError("its container does not run any more")
        for old in there:
            self._call("DELETE", f"/containers/{handle}/checkpoints/{old}", LIST_SECONDS)
        end = time.monotonic() + seconds
        suspended = self._suspend(handle, found, end)
        try:
            body = {"CheckpointID": own, "Exit": True}
            left = max(0.5, end - time.monotonic())
            self._call("POST", f"/containers/{handle}/checkpoints", left, body)
        except BaseException:
            self._cuda.resume(suspended, LIST_SECONDS)
            raise
        return epoch(found["State"]["StartedAt"])

    def restore(self, handle: str, found: Mapping[str, Any], name: str, seconds: float) -> None:
        """Let the inspected container go on from its checkpoint; no-op when it did, or has none.

        Raises `JobRejectedError` when it cannot be restored.
        """
        if not found["State"]["Running"]:
            own = _own_name(found, name)
            if own not in self._checkpoints(handle):
                return
            self._start(handle, own, seconds)
        if _has_gpus(found):
            self._cuda.resume(self._pids(handle), seconds)

    def forget(self, handle: str, name: str) -> None:
        """Give back the disk space of what was restored."""
        for old in self._checkpoints(handle):
            if old.startswith(f"{name}."):
                self._call("DELETE", f"/containers/{handle}/checkpoints/{old}", LIST_SECONDS)

    def _start(self, handle: str, checkpoint: str, seconds: float) -> None:
        end = time.monotonic() + UPLOAD_SECONDS
        while True:
            try:
                self._call("POST", f"/containers/{handle}/start?checkpoint={checkpoint}", seconds)
            except JobRejectedError as error:
                if "already exists" not in error.message or time.monotonic() > end:
                    raise
                time.sleep(UPLOAD_EVERY_SECONDS)
            else:
                return

    def _suspend(self, handle: str, found: Mapping[str, Any], end: float) -> tuple[int, ...]:
        if not _has_gpus(found):
            return ()
        if not self._cuda.installed:
            raise JobRejectedError("it uses GPUs, and cuda-checkpoint is not installed on this host")
        return self._cuda.suspend(self._pids(handle), max(0.5, end - time.monotonic()))

    def _checkpoints(self, handle: str) -> tuple[str, ...]:
        rows = self._call("GET", f"/containers/{handle}/checkpoints", LIST_SECONDS) or ()
        return tuple(str(row["Name"]) for row in rows)

    def _call(self, method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the engine; the SDK does not know of checkpoints."""
        action = "freezing or restoring a container"
        client = self._engine.slow
        with engine_errors(action):
            url = f"{client.base_url}/v{client.api_version}{path}"
            try:
                response = client.request(method, url, json=body, timeout=seconds)
            except requests.ReadTimeout as error:
                raise JobRejectedError(f"the engine did not do it within {seconds:.0f} s") from error
            # Docker has the call and refuses it, other engines do not know it.
            if not response.ok and ("experimental" in response.text or "page not found" in response.text):
                raise JobRejectedError("the engine has no checkpoints: it runs without `experimental`")
            try:
                response.raise_for_status()
            except requests.HTTPError as error:
                try:
                    docker.errors.create_api_error_from_http_exception(error)
                except docker.errors.APIError as refusal:
                    raise _refused(action, refusal) from refusal
            return response.json() if response.content and method == "GET" else None


def _refused(action: str, error: docker.errors.APIError) -> Exception:
    sentence = explain(error)
    return JobRejectedError(f"CRIU: {sentence}") if "criu" in sentence.lower() else rejected(action, error)


def _own_name(found: Mapping[str, Any], name: str) -> str:
    began = epoch(found["State"]["StartedAt"]) or 0.0
    return f"{name}.{round(began * 1000)}"


def _has_gpus(found: Mapping[str, Any]) -> bool:
    return bool(found["HostConfig"].get("DeviceRequests"))
