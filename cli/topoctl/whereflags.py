"""The flags that say on which hosts of a fleet a job runs, shared by `submit`, `run` and `plan`."""

from typing import Annotated, Any

import typer

HostsOption = Annotated[
    int, typer.Option("--hosts", metavar="N", help="In a fleet: on so many hosts at a time.")
]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="K=V",
        help="In a fleet: hosts with this label. Repeatable.",
        show_default=False,
    ),
]
GpuModelOption = Annotated[
    str,
    typer.Option(
        "--gpu-model",
        metavar="GLOB",
        help="In a fleet: hosts with such GPUs: '*h100*'.",
        show_default=False,
    ),
]


def where(hosts: int, select: list[str] | None, gpu_model: str) -> dict[str, Any]:
    """Return the fields of a request that say where a job runs."""
    return {"hosts": hosts, "select": select or [], "gpu_model": gpu_model}
