"""The images of a container engine: pulled where they are missing, and else remembered for a while."""

import threading
import time
from typing import Final

import docker.errors

from topod.adapters.docker_engine import Engine, engine_errors, pull_image, rejected
from topod.adapters.docker_spec import checked_image
from topod.model.job import JobSpec

SEEN_SECONDS: Final = 600.0
"""So long an image that was local is taken to be so still; the making of a container finds out."""


class Images:
    """Makes images local. Thread-safe."""

    def __init__(self, engine: Engine, pull_timeout: float) -> None:
        self._engine = engine
        self._pull_timeout = pull_timeout
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def ensure(self, spec: JobSpec) -> None:
        """Make the image local, pulling it if needed."""
        image = checked_image(spec)
        if not self._is_local(image):
            pull_image(self._engine, image, self._pull_timeout)
        with self._lock:
            self._seen[image] = time.monotonic()

    def seen(self, spec: JobSpec) -> bool:
        """Say whether the image was local not long ago."""
        with self._lock:
            at = self._seen.get(spec.image or "")
        return at is not None and time.monotonic() - at < SEEN_SECONDS

    def _is_local(self, image: str) -> bool:
        action = f"looking for image {image}"
        with engine_errors(action):
            try:
                self._engine.inspect_image(image)
            except docker.errors.ImageNotFound:
                return False
            except docker.errors.APIError as error:
                raise rejected(action, error) from error
            return True
