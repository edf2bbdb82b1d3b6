"""The environment variables that every runtime gives to a job."""

import re

from topod.model.job import Allocation, JobId, JobSpec

GROUP_SIGNALS = "TINI_KILL_PROCESS_GROUP"
"""Read by docker-init (tini): any value, even an empty one, sends signals to the whole process group."""
JOB_PID = "TOPOD_JOB_PID"
"""For hooks only: the job's main process, as the hook sees it."""


SECRETS = "/run/secrets"
"""The folder of a job's secrets in its container."""


def secret_variable(name: str) -> str:
    """Return the variable that tells a job where it finds the secret of that name."""
    return "TOPOD_SECRET_" + re.sub(r"[^A-Z0-9_]", "_", name.upper())


def job_environment(job: JobId, attempt: int, spec: JobSpec, allocation: Allocation) -> dict[str, str]:
    """Return the job's own variables and topod's.

    Two are defaults that the job may override: CUDA counts GPUs in PCI order, as every tool on the host does,
    and the init of a container passes signals on to the whole process group, because the shell of
    `sh -c '...'` never passes them on itself. The job switches the second off with an empty value or `0`.
    """
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", GROUP_SIGNALS: "1", **spec.env}
    if environment[GROUP_SIGNALS] in ("", "0"):
        del environment[GROUP_SIGNALS]
    environment |= {
        "TOPOD_JOB_ID": str(job),
        "TOPOD_JOB_NAME": spec.name,
        "TOPOD_ATTEMPT": str(attempt),
        "TOPOD_GPUS": ",".join(allocation.gpus),
        "TOPOD_GPU_INDICES": ",".join(map(str, allocation.gpu_indices)),
        "TOPOD_CPUS": str(allocation.cpus),
        "TOPOD_NUMA_NODES": ",".join(map(str, allocation.memory_nodes)),
    }
    return environment
