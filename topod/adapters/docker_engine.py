"""The connection to a container engine: bounded calls, errors in topod's words, what the engine can do."""

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
import urllib3
import yaml

from topod.errors import JobRejectedError, PullFailedError, RuntimeUnavailableError

log = logging.getLogger(__name__)

DEFAULT_URL = "unix:///var/run/docker.sock"
FIND_TIMEOUT_SECONDS = 2

# What an engine says with status 500 when the fault is not the job's.
_TRANSIENT = (
    "connection refused",
    "connection reset",
    "containerd.sock",
    "context deadline exceeded",
    "i/o timeout",
    "no route to host",
    "no space left on device",
    "no such host",
    "network is unreachable",
    "server misbehaving",
    "timeout exceeded",
    "tls handshake",
    "toomanyrequests",
    "transport is closing",
    "unexpected eof",
)
# Of those, what is the engine's own trouble also when it comes of a pull.
_ENGINES_OWN = ("containerd.sock", "no space left on device", "transport is closing")

NO_ANSWER = "the engine does not answer"
NO_PERMISSION = "no permission to use the engine's socket"
_LATE = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)
_CUT = (ConnectionError, EOFError, requests.exceptions.ChunkedEncodingError, urllib3.exceptions.ProtocolError)
_PLAIN = {
    errno.ECONNREFUSED: "the engine is not running: nothing listens on its socket",
    errno.ENOENT: "the engine is not running: its socket is not there",
    errno.EACCES: NO_PERMISSION,
    errno.EPERM: NO_PERMISSION,
    errno.EPIPE: "the engine broke the connection off",
    errno.ECONNRESET: "the engine broke the connection off",
}


class _BoundedClient(docker.APIClient):
    """The SDK's client, with a time limit also where the SDK asks for none (events, pull)."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return super().send(request, **kwargs)

    def _check_is_tty(self, container: str) -> bool:
        # Before it reads a log the SDK asks the engine whether the container has a terminal. None of topod's
        # has; where the SDK no longer calls this, it asks once more.
        del container
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine said about itself."""

    name: str
    version: str
    api_version: str
    podman: bool
    cdi_devices: frozenset[str]
    live_restore: bool = False
    """Whether containers outlive a restart of the engine."""
    cgroups: str = ""
    """Version and driver: `v2, driver systemd`."""
    by_systemd: bool = False
    """Whether the cgroups of containers are made by systemd."""
    experimental: bool = False
    """Whether it offers checkpoints."""
    rootless: bool = False
    """Whether it runs without the rights of root."""
    log_driver: str = ""
    """How it keeps what containers print, where they say nothing of it: `json-file`."""
    root_dir: str = ""
    """Where it keeps images and containers."""
    init_binary: str = ""
    """The init it puts into containers, a path or a name to be found in PATH; empty: not told."""


class Engine:
    """Clients of one engine, each with its own time limit; connects on first use."""

    def __init__(
        self, base_url: str | None, *, call_timeout: float, slow_timeout: float, pull_timeout: float
    ) -> None:
        self.base_url = base_url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
        self._timeouts = {"quick": call_timeout, "slow": slow_timeout, "pull": pull_timeout}
        self._clients: dict[str, docker.APIClient] = {}
        self._facts: EngineFacts | None = None
        self._lock = threading.Lock()

    @property
    def quick(self) -> docker.APIClient:
        """The client for calls that only ask, and for streams: limit per read."""
        return self._client("quick")

    @property
    def slow(self) -> docker.APIClient:
        """The client for calls during which the engine works: create, start, remove."""
        return self._client("slow")

    @property
    def pull(self) -> docker.APIClient:
        """The client that pulls images."""
        return self._client("pull")

    def facts(self) -> EngineFacts:
        """Return what the engine can do; asked once. Raises `RuntimeUnavailableError`."""
        if self._facts is None:
            with engine_errors("asking for its version"):
                version = self.quick.version()
                info = self.quick.info()
            names = [component.get("Name", "") for component in version.get("Components") or ()]
            podman = any("podman" in name.lower() for name in names)
            self._facts = EngineFacts(
                name="podman" if podman else "docker",
                version=str(version.get("Version", "unknown")),
                api_version=str(version.get("ApiVersion", "unknown")),
                podman=podman,
                cdi_devices=_cdi_devices(info),
                live_restore=bool(info.get("LiveRestoreEnabled")) or podman,
                experimental=bool(info.get("ExperimentalBuild")),
                init_binary=str(info.get("InitBinary") or ""),
                rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
                log_driver=str(info.get("LoggingDriver") or ""),
                root_dir=str(info.get("DockerRootDir") or ""),
                by_systemd=info.get("CgroupDriver") == "systemd",
                cgroups=f"v{info.get('CgroupVersion', '1')}, driver {info.get('CgroupDriver', 'unknown')}",
            )
        return self._facts

    def inspect_image(self, name: str) -> dict[str, Any]:
        """Return what the engine knows of a local image; raises what the SDK raises."""
        client: Any = self.quick  # the stubs leave the method bare
        image: dict[str, Any] = client.inspect_image(name)
        return image

    def inspect_container(self, name: str) -> dict[str, Any] | None:
        """Return what the engine says of a container; None: there is none.

        Raises `RuntimeUnavailableError`.
        """
        with engine_errors(f"inspecting {name}"):
            try:
                container: dict[str, Any] = self.quick.inspect_container(name)
            except docker.errors.NotFound:
                return None
        return container

    def create_container(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a "create container" request and return the answer; raises what the SDK raises."""
        client: Any = self.slow  # the stubs leave the method bare
        answer: dict[str, Any] = client.create_container_from_config(body, name=name)
        return answer

    def close(self) -> None:
        """Close idle connections; the engine can be used again afterwards."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def _client(self, kind: str) -> docker.APIClient:
        with self._lock:
            if kind not in self._clients:
                # "auto" asks the engine which API it speaks; also that question is bounded.
                seconds: Any = min(self._timeouts[kind], self._timeouts["quick"])  # the stubs say int
                client = _BoundedClient(base_url=self.base_url, version="auto", timeout=seconds)
                # Else requests looks for proxies at each call, and none is used for a socket.
                client.trust_env = not self.base_url.startswith("unix://")
                limit: Any = self._timeouts[kind]
                client.timeout = limit
                self._clients[kind] = client
            return self._clients[kind]


@contextmanager
def engine_errors(action: str) -> Iterator[None]:
    """Turn what the SDK raises into `RuntimeUnavailableError`; `action` says what topod was doing."""
    try:
        yield
    except docker.errors.APIError as error:
        raise unavailable(action, explain(error)) from error
    except (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,  # an answer that is no JSON, cut off when the engine died
    ) as error:
        raise unavailable(action, plain(error)) from error


def plain(error: BaseException) -> str:
    """Return in plain words why an engine cannot be talked to; what the SDK says is Python's."""
    causes = list(_causes(error))
    number = next((one.errno for one in causes if isinstance(one, OSError) and one.errno), None)
    if any(isinstance(one, _LATE) for one in causes):
        return NO_ANSWER
    if number in _PLAIN:
        return _PLAIN[number]
    if any(isinstance(one, _CUT) for one in causes):
        return "the engine broke the connection off"
    if any(isinstance(one, ValueError) for one in causes):
        return f"its answer cannot be read: {short(str(error))}"
    return short(str(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that it comes from, also what the SDK's libraries only keep as an argument."""
    seen, queue = set[int](), [error]
    while queue:
        one = queue.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        nested = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        queue += [other for other in nested if isinstance(other, BaseException)]


def unavailable(action: str, why: str) -> RuntimeUnavailableError:
    """Return the error for an engine that cannot do its work now."""
    return RuntimeUnavailableError(
        f"the container engine failed while {action}: {why}",
        hint="see `systemctl status docker`; topod tries again by itself",
    )


def rejected(action: str, error: docker.errors.APIError) -> JobRejectedError | RuntimeUnavailableError:
    """Return the right error for an engine's refusal: the job's fault, or a passing trouble."""
    sentence = explain(error)
    if is_transient(sentence) or error.status_code in (408, 429, 502, 503, 504):
        return unavailable(action, sentence)
    return JobRejectedError(f"the container engine refused {action}: {sentence}")


def pull_image(engine: Engine, image: str, seconds: float) -> None:
    """Pull an image within `seconds`. Raises `JobRejectedError` where that can never be."""
    action = f"pulling image {image}"
    deadline = time.monotonic() + seconds
    log.info("%s", action)
    with engine_errors(action):
        try:
            for message in engine.pull.pull(image, stream=True, decode=True):
                if problem := message.get("error"):
                    raise pull_error(image, short(str(problem)))
                if time.monotonic() > deadline:
                    raise _pull_failed(image, f"not done after {seconds:g} seconds")
        except docker.errors.APIError as error:
            raise pull_error(image, explain(error)) from error


def pull_error(image: str, sentence: str) -> JobRejectedError | RuntimeUnavailableError:
    """Return the right error for an image that could not be pulled.

    The job's fault (`JobRejectedError`), a registry's or the network's (`PullFailedError`), or the engine's.
    """
    if any(marker in sentence.lower() for marker in _ENGINES_OWN):
        return unavailable(f"pulling image {image}", sentence)
    if is_transient(sentence):
        return _pull_failed(image, sentence)
    return JobRejectedError(f"image {image} cannot be pulled: {sentence}", hint="check its name and tag")


def _pull_failed(image: str, why: str) -> PullFailedError:
    return PullFailedError(f"image {image} cannot be pulled now: {why}", hint="topod tries again by itself")


def is_transient(sentence: str) -> bool:
    """Return whether an engine's sentence tells of the network or the engine rather than of the job."""
    lowered = sentence.lower()
    return any(marker in lowered for marker in _TRANSIENT)


def explain(error: docker.errors.APIError) -> str:
    """Return the engine's own sentence."""
    explanation: Any = error.explanation  # bytes where the answer was no JSON
    text = explanation.decode(errors="replace") if isinstance(explanation, bytes) else explanation
    return short(text or str(error))


def short(text: str, limit: int = 300) -> str:
    """Return the text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def find_engine() -> str | None:
    """Return the URL of the first engine that answers within two seconds in all, or None."""
    candidates = [os.environ.get("DOCKER_HOST"), DEFAULT_URL, "unix:///run/podman/podman.sock"]
    if runtime_dir := os.environ.get("XDG_RUNTIME_DIR"):
        candidates += [f"unix://{runtime_dir}/docker.sock", f"unix://{runtime_dir}/podman/podman.sock"]
    answers: dict[str, bool] = {}

    def ask(url: str) -> None:
        try:
            client = _BoundedClient(base_url=url, timeout=FIND_TIMEOUT_SECONDS)
            try:
                answers[url] = bool(client.ping())
            finally:
                client.close()
        except (docker.errors.DockerException, requests.RequestException, OSError, ValueError):
            answers[url] = False

    urls = [
        url for url in candidates if url and not (url.startswith("unix://") and not Path(url[7:]).exists())
    ]
    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in dict.fromkeys(urls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FIND_TIMEOUT_SECONDS / len(threads))
    return next((url for url in urls if answers.get(url)), None)


def _cdi_devices(info: dict[str, Any]) -> frozenset[str]:
    """Return the CDI device names that the engine can inject: as it lists them, else from its spec files."""
    listed = info.get("DiscoveredDevices") or ()
    names = {device.get("ID", "") for device in listed if device.get("Source") == "cdi"}
    if not names:
        for directory in info.get("CDISpecDirs") or ():
            for path in sorted(Path(directory).glob("*")):
                if path.suffix in (".json", ".yaml"):
                    names |= _devices_of_spec(path)
    return frozenset(name for name in names if name.startswith("nvidia.com/gpu="))


def _devices_of_spec(path: Path) -> set[str]:
    try:
        text = path.read_text()
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        return {f"{document['kind']}={device['name']}" for device in document["devices"]}
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        log.warning("CDI spec %s is ignored: %s", path, short(str(error)))
        return set()
