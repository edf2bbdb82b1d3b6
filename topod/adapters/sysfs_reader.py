"""Reads the few files of `/sys` and `/proc` that describe a machine; the only I/O of sysfs discovery.

Rule: bounded in files and bytes, regular files only, and nothing outside of the root is opened.
A driver can still block a read for long: callers run this in a worker with a timeout.
"""

import os
import stat
from pathlib import Path

from topod.discovery.machine import MachineFacts
from topod.discovery.parse_cpuset_cgroup import CGROUP_SOURCES, cpuset_files
from topod.discovery.parse_pci import PCI_DEVICES
from topod.discovery.parse_sysfs import (
    CORE_FILES,
    CPU_FOLDERS,
    L3_FILES,
    NODE_CPU_FILES,
    NODE_FOLDERS,
    SOCKET_FILES,
    entry_numbers,
    interpret_sysfs,
)
from topod.discovery.rawhost import RawSysfs
from topod.errors import ProbeError

MAX_FILE_BYTES = 1 << 20
MAX_FILES = 200_000
MAX_BYTES = 64 << 20
MAX_NAMES = 65_536

_PCI_FILES = ("class", "vendor", "device", "numa_node", "local_cpulist", "local_cpus")


def this_machine(root: Path = Path("/")) -> MachineFacts:
    """Return what the kernel says about the machine whose `/sys` and `/proc` lie under `root`.

    Blocking: run it in a worker with a timeout. Works in containers, where sysfs shows the whole host and
    `allowed` what the container may use. Raises `ProbeError`, and nothing else, where no CPU can be found.
    """
    try:
        return interpret_sysfs(read_sysfs(root))
    except OSError as error:
        raise ProbeError(f"cannot read sysfs under {root}: {error.strerror or error}") from error


def read_sysfs(root: Path) -> RawSysfs:
    """Return the files that `interpret_sysfs` needs from the tree at `root` (`/`, or an unpacked dump).

    Missing and unreadable files are left out. Symbolic links are followed inside `root` only.
    Blocking. Raises `ProbeError` where `root` is no folder or the tree is beyond all bounds.
    """
    if not root.is_dir():
        raise ProbeError(f"not a folder: {root}")
    reader = _Reader(root)
    for folder in CPU_FOLDERS:
        if _read_cpus(reader, folder):
            break
    for folder in NODE_FOLDERS:
        if _read_nodes(reader, folder):
            break
    _read_pci(reader)
    reader.read("proc/meminfo")
    for path in CGROUP_SOURCES:
        reader.read(path)
    files = reader.files
    for path in cpuset_files(
        mounts=files.get("proc/self/mounts") or files.get("proc/mounts", ""),
        cgroup=files.get("proc/self/cgroup", ""),
        cpuset=files.get("proc/self/cpuset", ""),
    ):
        if reader.read(path):
            break
    return RawSysfs(files=files, folders=reader.folders, links=reader.links, skipped=tuple(reader.skipped))


def _read_cpus(reader: "_Reader", folder: str) -> bool:
    numbers = entry_numbers(reader.names(folder), "cpu")
    for name in ("online", "isolated"):
        reader.read(f"{folder}/{name}")
    for number in numbers:
        cpu = f"{folder}/cpu{number}"
        reader.read(f"{cpu}/online")
        reader.read(f"{cpu}/topology/physical_package_id")
        reader.read_first(f"{cpu}/topology", CORE_FILES)
        reader.read_first(f"{cpu}/topology", SOCKET_FILES)
        for index in range(16):
            cache = f"{cpu}/cache/index{index}"
            level = reader.read(f"{cache}/level")
            if level is None:
                break
            if level == "3":
                reader.read_first(cache, L3_FILES)
    return bool(numbers)


def _read_nodes(reader: "_Reader", folder: str) -> bool:
    numbers = entry_numbers(reader.names(folder), "node")
    for number in numbers:
        node = f"{folder}/node{number}"
        reader.read(f"{node}/distance")
        reader.read(f"{node}/meminfo")
        reader.read_first(node, NODE_CPU_FILES)
    return bool(numbers)


def _read_pci(reader: "_Reader") -> None:
    for name in reader.names(PCI_DEVICES):
        device = f"{PCI_DEVICES}/{name}"
        reader.follow(device)
        for file in _PCI_FILES:
            reader.read(f"{device}/{file}")
        for kind in ("net", "infiniband"):
            reader.names(f"{device}/{kind}")
    for kind in ("net", "infiniband"):
        for name in reader.names(f"sys/class/{kind}"):
            reader.follow(f"sys/class/{kind}/{name}")


class _Reader:
    """Collects files, listings and links under one root, within its bounds."""

    def __init__(self, root: Path) -> None:
        self.files: dict[str, str] = {}
        self.folders: dict[str, tuple[str, ...]] = {}
        self.links: dict[str, str] = {}
        self.skipped: list[str] = []
        real = os.path.realpath(root)
        self._root = "" if real == "/" else real
        self._real_folders: dict[str, str | None] = {}
        self._bytes_left = MAX_BYTES
        self._files_left = MAX_FILES

    def read_first(self, folder: str, names: tuple[str, ...]) -> None:
        """Read the first of `names` in `folder` that is there."""
        for name in names:
            if self.read(f"{folder}/{name}") is not None:
                return

    def read(self, path: str) -> str | None:
        """Read one regular file and keep its text; None where there is none."""
        folder, _, name = path.rpartition("/")
        real = self._real_folder(folder)
        if real is None:
            return None
        try:
            data = self._bytes(path, f"{real}/{name}")
        except (OSError, ValueError):
            return None  # missing, unreadable for us, or a name that no file can have
        if data is None:
            return None
        # Dumps made with `cp` keep the NUL bytes that some kernels pad their files with.
        text = data.replace(b"\0", b"").decode("utf-8", "replace").strip()
        self.files[path] = text
        return text

    def names(self, path: str) -> tuple[str, ...]:
        """List one folder and keep the list; empty where it is missing."""
        real = self._real_folder(path)
        if real is None:
            return ()
        try:
            names = os.listdir(real)  # noqa: PTH208 - the names are wanted, not paths
        except OSError:
            return ()
        if len(names) > MAX_NAMES:
            raise ProbeError(f"{path} has {len(names)} entries, more than any machine has")
        self.folders[path] = tuple(sorted(names))
        return self.folders[path]

    def follow(self, path: str) -> None:
        """Keep where a symbolic link leads, if it is one and stays inside the root."""
        full = f"{self._root}/{path}"
        real = self._inside(full)
        if real is not None and os.path.islink(full):  # noqa: PTH114 - strings throughout: thousands of paths
            self.links[path] = real[len(self._root) + 1 :]

    def _bytes(self, path: str, full: str) -> bytes | None:
        mode = os.lstat(full).st_mode
        if stat.S_ISLNK(mode):
            target = self._inside(full)
            if target is None:
                self.skipped.append(f"{path} not read: it leads out of the tree")
                return None
            full, mode = target, os.lstat(target).st_mode
        if not stat.S_ISREG(mode):
            return None  # opening a pipe or a device could hang or do something
        self._files_left -= 1
        if self._files_left < 0 or self._bytes_left < 0:
            raise ProbeError(
                f"sysfs is larger than {MAX_FILES} files or {MAX_BYTES} bytes: stopped at {path}"
            )
        handle = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            data = _all(file.fileno())
        self._bytes_left -= len(data)
        if len(data) > MAX_FILE_BYTES:
            self.skipped.append(f"{path} not read: larger than {MAX_FILE_BYTES} bytes")
            return None
        return data

    def _real_folder(self, path: str) -> str | None:
        if path not in self._real_folders:
            self._real_folders[path] = self._inside(f"{self._root}/{path}")
        return self._real_folders[path]

    def _inside(self, full: str) -> str | None:
        """Return the real path, None where it is outside of the root."""
        real = os.path.realpath(full)
        return real if real.startswith(f"{self._root}/") else None


def _all(handle: int) -> bytes:
    """Read to the end, or to one byte more than a file may have."""
    parts: list[bytes] = []
    left = MAX_FILE_BYTES + 1
    while left > 0:
        part = os.read(handle, min(left, 65536))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
