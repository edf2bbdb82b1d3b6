"""Runs a command inside a container: a hook for a bounded time, or one with its streams for a user."""

import os
import select
import struct
import time
from typing import Any

import docker
import docker.errors
import requests

from topod.adapters.docker_engine import Engine, engine_errors, explain
from topod.adapters.executions import ContainerExecution
from topod.adapters.job_environment import JOB_PID
from topod.errors import ConflictError

OUTPUT_BYTES = 4096
"""How much of the end of the output is kept."""
CANNOT_RUN = 126
"""The shell's status for a command that was found but could not be run."""
IN_CONTAINER = {JOB_PID: "1"}
"""Process 1 is the engine's init, which passes signals on to the job."""

_HEADER_BYTES = 8


def run_in_container(
    engine: Engine, container: str, command: tuple[str, ...], timeout_seconds: float
) -> tuple[int | None, str]:
    """Run the command; return (exit status or None on time-out, end of its output).

    A command that ran out of time is left to the container, which is about to be stopped. A container that
    is gone or not running gives status 126.
    """
    deadline = time.monotonic() + timeout_seconds
    with engine_errors(f"running a hook in {container}"):
        try:
            execution = engine.quick.exec_create(container, list(command), environment=IN_CONTAINER)["Id"]
            stream = engine.quick.exec_start(execution, socket=True)
        except docker.errors.APIError as error:
            if error.status_code is not None and error.status_code < 500:
                return CANNOT_RUN, explain(error)
            raise
        try:
            finished, output = _read(stream, deadline)
        finally:
            _close(stream)
        text = output[-OUTPUT_BYTES:].decode(errors="replace").replace("\r\n", "\n")
        if not finished:
            return None, text
        return engine.quick.exec_inspect(execution)["ExitCode"], text


def execute_in_container(
    engine: Engine, container: str, command: tuple[str, ...], *, stdin: bool
) -> ContainerExecution:
    """Start a command in a running container. Raises `ConflictError` when it does not run."""
    with engine_errors(f"starting a command in {container}"):
        try:
            created = engine.quick.exec_create(
                container, list(command), environment=IN_CONTAINER, stdin=stdin
            )
            ident = created["Id"]
            stream = engine.quick.exec_start(ident, socket=True)
        except docker.errors.APIError as error:
            if error.status_code in (404, 409):
                raise ConflictError(f"the job does not run: {explain(error)}") from error
            raise

    def inspect() -> dict[str, Any]:
        try:
            found: dict[str, Any] = engine.quick.exec_inspect(ident)
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return {}
        return found

    return ContainerExecution(stream, inspect)


def _read(stream: Any, deadline: float) -> tuple[bool, bytes]:
    """Read frames until the end or the deadline; return whether the end came, and the end of the text."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    raw, text = bytearray(), bytearray()
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            return False, bytes(text)
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            return True, bytes(text)
        raw += chunk
        while len(raw) >= _HEADER_BYTES:
            (length,) = struct.unpack(">4xL", raw[:_HEADER_BYTES])
            if len(raw) < _HEADER_BYTES + length:
                break
            text += raw[_HEADER_BYTES : _HEADER_BYTES + length]
            del raw[: _HEADER_BYTES + length]
        del text[:-OUTPUT_BYTES]


def _close(stream: Any) -> None:
    # The SDK hands out the bare socket and hangs the response on it; closing that one closes both.
    response = getattr(stream, "_response", stream)
    response.close()
