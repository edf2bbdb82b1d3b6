"""From a job and its allocation to the body of the engine's "create container" request; pure.

Field names are those of the Docker Engine API v1.41, https://docs.docker.com/engine/api/v1.41/#operation/ContainerCreate.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from topod.adapters.job_environment import SECRETS, job_environment, secret_variable
from topod.errors import JobRejectedError
from topod.model.cpuset import CpuSet
from topod.model.image import is_reference
from topod.model.job import Allocation, JobId, JobSpec, Mount

STATE_LABEL = "topod.state"
JOB_LABEL = "topod.job"
ATTEMPT_LABEL = "topod.attempt"
DIGEST_LABEL = "topod.digest"
DEFAULT_ULIMITS_LABEL = "topod.default-ulimits"
OWN_ULIMITS_LABEL = "topod.own-ulimits"

JOBS_SLICE = "topod-jobs.slice"
"""Under systemd all containers are in it; a site sets limits on it, and stops it to stop the jobs."""
UNLIMITED = -1
STACK_BYTES = 64 << 20
DEFAULT_ULIMITS: Mapping[str, int] = {"memlock": UNLIMITED, "stack": STACK_BYTES}
"""RDMA pins memory: with the engine's 8 MB NCCL falls back to TCP without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """What every container is denied."""

    no_new_privileges: bool = False
    """No set-uid program (sudo, su) gains rights."""
    drop_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHost:
    """What the engine and the machine under it can do."""

    state_id: str
    """Names the topod that owns the containers."""
    emulated: bool = False
    """The GPUs and most CPUs of the host exist on paper only."""
    machine_cpus: CpuSet
    machine_nodes: tuple[int, ...] = (0,)
    """NUMA nodes that the machine really has."""
    podman: bool = False
    cdi_devices: frozenset[str] = frozenset()
    """Qualified names, `nvidia.com/gpu=GPU-...`; empty where the engine has no CDI."""
    gpu_nodes: Mapping[str, str] = field(default_factory=dict)
    """The device file of each GPU by UUID; see `topod.adapters.gpu_nodes`."""
    control_nodes: tuple[str, ...] = ()
    default_ulimits: bool = True
    """False once the engine turned out not to be allowed to raise them."""
    cgroup_parent: str | None = None
    """None leaves it to the engine."""
    network_mode: str | None = None
    """Of jobs that name none; None leaves it to the engine."""
    hardening: Hardening = Hardening()


def container_name(state_id: str, job: JobId, attempt: int) -> str:
    """Return the name of an attempt's container; topod uses it as the handle."""
    return f"topod-{state_id}-{job}-{attempt}"


def checked_image(spec: JobSpec) -> str:
    """Return the job's image. Raises `JobRejectedError` where there is none, or its name cannot be one."""
    if not spec.image:
        raise JobRejectedError(
            f"job {spec.name} names no image, and this host runs jobs in containers",
            hint="add `image:` to the job file",
        )
    if not is_reference(spec.image):
        raise JobRejectedError(f"not the name of an image: {spec.image[:200]!r}")
    return spec.image


def container_body(
    job: JobId, attempt: int, spec: JobSpec, allocation: Allocation, host: EngineHost
) -> dict[str, Any]:
    """Return the request that creates the container of one attempt.

    Raises `JobRejectedError` as `checked_image` does, and when the job wants GPUs from an engine that ignores
    them.
    """
    image = checked_image(spec)
    environment = job_environment(job, attempt, spec, allocation)
    environment |= {secret_variable(secret.name): f"{SECRETS}/{secret.name}" for secret in spec.secrets}
    if not host.emulated:
        # CUDA images, or the job itself, ask for all GPUs, and get them where the NVIDIA runtime is the
        # engine's default. CDI gives devices by itself.
        by_cdi = host.cdi_devices.issuperset(_cdi_names(allocation))
        environment["NVIDIA_VISIBLE_DEVICES"] = "void" if by_cdi else ",".join(allocation.gpus)
    defaults = {k: v for k, v in DEFAULT_ULIMITS.items() if k not in spec.ulimits and host.default_ulimits}
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": list(spec.command) or None,
        "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
        "StopTimeout": math.ceil(spec.grace_seconds),
        "HostConfig": _host_config(job, spec, allocation, host, {**defaults, **spec.ulimits}),
    }
    if spec.workdir is not None:
        body["WorkingDir"] = spec.workdir
    if spec.container_user is not None:
        body["User"] = spec.container_user
    labels = {
        **spec.labels,
        STATE_LABEL: host.state_id,
        JOB_LABEL: str(job),
        ATTEMPT_LABEL: str(attempt),
        "topod.cpus": str(allocation.cpus),
        "topod.gpus": ",".join(allocation.gpus),
        DEFAULT_ULIMITS_LABEL: ",".join(sorted(defaults)),
        OWN_ULIMITS_LABEL: ",".join(f"{name}={value}" for name, value in sorted(spec.ulimits.items())),
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    body["Labels"] = {**labels, DIGEST_LABEL: digest}
    return body


def _host_config(
    job: JobId, spec: JobSpec, allocation: Allocation, host: EngineHost, ulimits: Mapping[str, int]
) -> dict[str, Any]:
    host_config: dict[str, Any] = {
        "Init": True,
        "ShmSize": spec.shm_bytes,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "3"}},
        "RestartPolicy": {"Name": "no"},
        "Ulimits": [_ulimit(name, value) for name, value in sorted(ulimits.items())],
        "Mounts": [
            {"Type": "bind", "Source": m.source, "Target": m.target, "ReadOnly": m.read_only}
            for m in (*spec.mounts, *_secret_mounts(spec))
        ],
        "DeviceRequests": _device_requests(job, allocation, host),
    }
    devices = [(device.source, device.target, device.permissions) for device in spec.devices]
    by_runtime = [one for one in host_config["DeviceRequests"] if one["Driver"] == "nvidia"]
    if by_runtime:
        devices += [(node, node, "rw") for node in _device_files(allocation, host)]
    if devices or by_runtime:
        host_config["Devices"] = [
            {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}
            for source, target, permissions in devices
        ]
    host_config |= _rights(spec, host)
    if host.cgroup_parent is not None:
        host_config["CgroupParent"] = host.cgroup_parent
    if spec.memory_bytes is not None:
        # Without the second the container may swap as much again.
        host_config |= {"Memory": spec.memory_bytes, "MemorySwap": spec.memory_bytes}
    cpus, nodes = pinned(allocation, host)
    if cpus:
        host_config["CpusetCpus"] = str(cpus)
    if nodes:
        host_config["CpusetMems"] = str(CpuSet.of(nodes))
    return host_config


def _rights(spec: JobSpec, host: EngineHost) -> dict[str, Any]:
    """Return what the container may do beyond, or less than, the engine's default."""
    rights: dict[str, Any] = {}
    network = host.network_mode if spec.network is None else spec.network.value
    if network is not None:
        rights["NetworkMode"] = network
    if spec.cap_add:
        rights["CapAdd"] = list(spec.cap_add)
    if host.hardening.drop_capabilities:
        rights["CapDrop"] = list(host.hardening.drop_capabilities)
    if host.hardening.no_new_privileges:
        rights["SecurityOpt"] = ["no-new-privileges"]
    return rights


def _secret_mounts(spec: JobSpec) -> list[Mount]:
    """Return the read-only mounts of a job's secrets; their content passes neither topod nor the engine."""
    return [
        Mount(source=secret.source, target=f"{SECRETS}/{secret.name}", read_only=True)
        for secret in spec.secrets
    ]


def without_default_ulimits(inspected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that creates an inspected container again, without topod's default ulimits."""
    config = dict(inspected["Config"])
    labels = dict(config["Labels"])
    labels[DEFAULT_ULIMITS_LABEL] = ""
    host_config = dict(inspected["HostConfig"])
    # From the label, not from the inspection: Podman lists its own defaults there, under other names.
    own = (word.split("=") for word in labels.get(OWN_ULIMITS_LABEL, "").split(",") if word)
    host_config["Ulimits"] = [_ulimit(name, int(value)) for name, value in own]
    for automatic in ("Hostname", "Domainname"):
        config.pop(automatic, None)
    return {**config, "Labels": labels, "HostConfig": host_config}


def pinned(allocation: Allocation, host: EngineHost) -> tuple[CpuSet, tuple[int, ...]]:
    """Return the CPUs and the NUMA nodes to bind the container to; empty = no binding.

    On a real host they are the allocation's: the engine refuses what is missing. On an emulated host they
    are what the machine under it has of them.
    """
    if not host.emulated:
        return allocation.cpus, allocation.memory_nodes
    nodes = tuple(node for node in allocation.memory_nodes if node in host.machine_nodes)
    return allocation.cpus & host.machine_cpus, nodes


def emulation_notes(allocation: Allocation, host: EngineHost) -> tuple[str, ...]:
    """Return what of the allocation this host only records, one sentence each."""
    if not host.emulated:
        return ()
    notes = []
    if allocation.gpus:
        notes.append(f"the host is emulated: {len(allocation.gpus)} GPUs are booked, no device is passed")
    missing = allocation.cpus - host.machine_cpus
    if missing:
        real = allocation.cpus & host.machine_cpus
        where = f"pinned to {real}" if real else "not pinned"
        notes.append(f"CPUs {missing} are emulated: they are only recorded, the job is {where}")
    nodes = [node for node in allocation.memory_nodes if node not in host.machine_nodes]
    if nodes:
        notes.append(f"NUMA nodes {CpuSet.of(nodes)} are emulated: memory is not bound to them")
    return tuple(notes)


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def _device_files(allocation: Allocation, host: EngineHost) -> tuple[str, ...]:
    """Return the files to name beside a request that the NVIDIA runtime answers; none if one is unknown."""
    if any(uuid not in host.gpu_nodes for uuid in allocation.gpus):
        return ()
    return (*(host.gpu_nodes[uuid] for uuid in allocation.gpus), *host.control_nodes)


def _cdi_names(allocation: Allocation) -> list[str]:
    return [f"nvidia.com/gpu={uuid}" for uuid in allocation.gpus]


def _device_requests(job: JobId, allocation: Allocation, host: EngineHost) -> list[dict[str, Any]]:
    """Name GPUs by UUID: a count always means the first ones, and an index changes over a reboot."""
    if not allocation.gpus or host.emulated:
        return []
    if host.podman:
        raise JobRejectedError(
            f"job {job} wants {len(allocation.gpus)} GPUs, but Podman's Docker socket ignores such requests",
            hint="install Docker on this host, or submit the job without GPUs",
        )
    names = _cdi_names(allocation)
    if host.cdi_devices.issuperset(names):
        return [{"Driver": "cdi", "DeviceIDs": names}]
    return [{"Driver": "nvidia", "DeviceIDs": list(allocation.gpus), "Capabilities": [["gpu"]]}]
