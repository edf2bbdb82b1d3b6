"""A small image for the demo's jobs, with or without a registry in reach."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound

IMAGE = "topod-demo:latest"
PULLED = "busybox:latest"
PULL_SECONDS = 8


def find_image(engine: str) -> tuple[str | None, str]:
    """Return an image with a shell and how it was had; (None, why not) when there is none.

    In this order: a busybox image on the engine; one made from a static busybox of this machine; one pulled.
    """
    try:
        client = docker.DockerClient(base_url=engine, timeout=PULL_SECONDS)
        try:
            client.images.get(PULLED)
        except ImageNotFound:
            return _make(client)
        else:
            return PULLED, f"image {PULLED}"
    except (DockerException, OSError) as error:
        return None, f"no image with a shell could be had: {str(error).splitlines()[0]}"


def remove_image(engine: str) -> None:
    """Remove the image that `find_image` made."""
    try:
        docker.DockerClient(base_url=engine, timeout=PULL_SECONDS).images.remove(IMAGE, force=True)
    except (DockerException, OSError):
        return


def remove_containers(engine: str, handles: list[str]) -> None:
    """Remove what topod had no time to remove before it was stopped."""
    try:
        client = docker.DockerClient(base_url=engine, timeout=PULL_SECONDS)
        for container in client.containers.list(all=True):
            if container.name in handles:
                container.remove(force=True)
    except (DockerException, OSError):
        return


def _make(client: docker.DockerClient) -> tuple[str, str]:
    busybox = shutil.which("busybox")
    if busybox is None or not _is_static(busybox):
        client.images.pull(PULLED)
        return PULLED, f"image {PULLED}, pulled just now"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add(tar, "bin/busybox", Path(busybox).read_bytes())
        for name in ("sh", "sleep", "echo", "kill"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)
    repository, _, tag = IMAGE.partition(":")
    client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)
    return IMAGE, "an image made from this machine's busybox"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755
    tar.addfile(entry, io.BytesIO(data))


def _is_static(program: str) -> bool:
    answer = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return "not a dynamic executable" in answer.stderr + answer.stdout
