"""Where the kernel keeps the cpuset of a process, from the text of `/proc/self/mounts` and friends."""

from pathlib import PurePosixPath

CGROUP_SOURCES = ("proc/self/mounts", "proc/mounts", "proc/self/cgroup", "proc/self/cpuset")

MAX_DEPTH = 32


def cpuset_files(*, mounts: str, cgroup: str, cpuset: str) -> tuple[str, ...]:
    """Return the files that may hold the CPUs this process may use, relative to the root, best first.

    Version 1 (a `cpuset` mount or a `cgroup` mount with that controller) comes before version 2, since on a
    host with both the controller lives in version 1. Inside a group come its parents: in version 2 a group
    has no cpuset file where the controller is not enabled for it, and in a container the path of the process
    may not exist below the mount point.
    """
    paths = _paths(cgroup)
    by_cpuset = cpuset or paths.get("cpuset", "/")
    old: list[str] = []
    new: list[str] = []
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        point, kind, options = fields[1].replace("\\040", " "), fields[2], fields[3].split(",")
        if kind == "cpuset" or (kind == "cgroup" and "cpuset" in options):
            names = ("cpuset.effective_cpus", "cpuset.cpus", "cpus")
            old += _upwards(point, by_cpuset, names)
        elif kind == "cgroup2":
            new += _upwards(point, paths.get("", by_cpuset), ("cpuset.cpus.effective",))
    return tuple(dict.fromkeys(old + new))


def _paths(cgroup: str) -> dict[str, str]:
    """Return controller to path from `/proc/self/cgroup`; version 2 has the empty controller."""
    paths: dict[str, str] = {}
    for line in cgroup.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def _upwards(point: str, path: str, names: tuple[str, ...]) -> list[str]:
    # A process outside of its cgroup namespace shows `/../..`; the parents of the mount point are not ours.
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")][:MAX_DEPTH]
    base = [part for part in PurePosixPath(point).parts if part not in ("/", "..")]
    return ["/".join([*base, *parts[:depth], name]) for depth in range(len(parts), -1, -1) for name in names]
