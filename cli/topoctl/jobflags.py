"""The flags that describe a job, shared by `submit` and `plan`; the names are those of a job file."""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from topod.model.arrays import ArrayPlan
from topod.model.job import JobSpec
from topod.model.request import PRIORITIES, Affinity, CpuAffinity, Policy
from topod.protocol.jobfile import Origin, array_plan, build_spec, read_job_file


def _option(*names: str, metavar: str, help: str) -> Any:  # noqa: A002 - typer's own name for it
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


def _switch(names: str, help: str) -> Any:  # noqa: A002 - typer's own name for it
    return typer.Option(names, help=help, show_default=False)


Text = str | None
Texts = list[str] | None
Switch = bool | None

FLAGS: dict[str, tuple[Any, Any]] = {
    "name": (Text, _option("--name", metavar="NAME", help="Name of the job (default: of its command).")),
    "image": (Text, _option("--image", metavar="IMAGE", help="Container image.")),
    "gpus": (Text, _option("--gpus", metavar="N", help="Whole GPUs (default 0).")),
    "affinity": (
        Text,
        _option(
            "--affinity",
            metavar="LEVEL",
            help=f"How close the GPUs must be: {', '.join(Affinity)} (default).",
        ),
    ),
    "policy": (
        Text,
        _option(
            "--policy",
            metavar="POLICY",
            help=f"{Policy.GUARANTEED} (default): wait for the affinity; or {Policy.BEST_EFFORT}.",
        ),
    ),
    "cpus": (
        Text,
        _option(
            "--cpus", metavar="N|auto", help="CPUs pinned for it; auto (default with GPUs): its GPUs' share."
        ),
    ),
    "cpu_affinity": (
        Text,
        _option(
            "--cpu-affinity",
            metavar="LEVEL",
            help=f"Where those CPUs lie beside the GPUs: {CpuAffinity.NUMA} (default), socket, any.",
        ),
    ),
    "memory": (Text, _option("--memory", metavar="SIZE", help="Memory limit, such as 64G.")),
    "priority": (
        Text,
        _option(
            "--priority",
            metavar="PRIO",
            help=", ".join(f"{name} ({number})" for name, number in PRIORITIES.items()) + ", or a number.",
        ),
    ),
    "preemptible": (
        Switch,
        _switch(
            "--preemptible/--no-preemptible",
            help="May it be stopped for a job of higher priority (default yes).",
        ),
    ),
    "grace": (Text, _option("--grace", metavar="TIME", help="From SIGTERM to SIGKILL (default 30s).")),
    "min_runtime": (
        Text,
        _option("--min-runtime", metavar="TIME", help="Not stopped for others for so long after its start."),
    ),
    "wait_before_preempt": (
        Text,
        _option(
            "--wait-before-preempt",
            metavar="TIME",
            help="Waits so long for free GPUs before anyone is stopped for it (default 0).",
        ),
    ),
    "max_runtime": (Text, _option("--max-runtime", "--time", metavar="TIME", help="Stopped after so long.")),
    "on_preempt": (
        Text,
        _option(
            "--on-preempt", metavar="WHAT", help="When stopped: requeue (default), cancel, or checkpoint."
        ),
    ),
    "on_host_lost": (
        Text,
        _option(
            "--on-host-lost",
            metavar="WHAT",
            help="In a fleet, its host cut off for long: requeue (default), or keep it there.",
        ),
    ),
    "requeue": (Switch, _switch("--requeue/--no-requeue", help="Short for --on-preempt requeue or cancel.")),
    "restart": (
        Text,
        _option("--restart", metavar="WHEN", help="never (default), on-failure or on-failure:N."),
    ),
    "max_restarts": (
        Text,
        _option("--max-restarts", metavar="N", help="Restarts after failures in a row (default 3)."),
    ),
    "env": (
        Texts,
        _option(
            "-e", "--env", metavar="K[=V]", help="Variable; K alone takes its value from here. Repeatable."
        ),
    ),
    "env_file": (
        Texts,
        _option("--env-file", metavar="FILE", help="Variables, one K=V per line. Repeatable."),
    ),
    "volume": (
        Texts,
        _option("-v", "--volume", metavar="SRC:DST[:ro]", help="Folder or file of the host. Repeatable."),
    ),
    "workdir": (
        Text,
        _option("-w", "--workdir", metavar="DIR", help="Working directory inside the container."),
    ),
    "shm_size": (Text, _option("--shm-size", metavar="SIZE", help="Size of /dev/shm (default 8G).")),
    "ulimit": (Texts, _option("--ulimit", metavar="NAME=N", help="Limit, such as nofile=65536. Repeatable.")),
    "cap_add": (
        Texts,
        _option("--cap-add", metavar="NAME", help="Capability, such as IPC_LOCK for RDMA. Repeatable."),
    ),
    "device": (
        Texts,
        _option("--device", metavar="SRC[:DST[:rwm]]", help="Device of the host that is no GPU. Repeatable."),
    ),
    "network": (
        Text,
        _option("--network", metavar="NET", help="bridge (the engine's default), host or none."),
    ),
    "user": (Text, _option("--user", metavar="USER", help="User inside the container: uid[:gid] or a name.")),
    "secret": (
        Texts,
        _option("--secret", metavar="NAME=FILE", help="File that it reads at /run/secrets/NAME. Repeatable."),
    ),
    "after": (
        Text,
        _option(
            "--after",
            metavar="[WHEN:]ID,...",
            help="Starts after the success of these jobs; any:12 after their end, failed:12 after failure.",
        ),
    ),
    "array": (
        Text,
        _option("--array", metavar="0-9[%N]", help="One job for each index; at most N run at a time."),
    ),
    "label": (Texts, _option("-l", "--label", metavar="K=V", help="Label of the job. Repeatable.")),
    "checkpoint_command": (
        Text,
        _option(
            "--checkpoint-command",
            metavar="COMMAND",
            help="Run inside the job before it is stopped for another.",
        ),
    ),
    "checkpoint_signal": (
        Text,
        _option(
            "--checkpoint-signal",
            metavar="SIG[:TIME]",
            help="Sent instead, such as USR1:60: the job saves its work and ends by itself.",
        ),
    ),
    "checkpoint_timeout": (
        Text,
        _option("--checkpoint-timeout", metavar="TIME", help="How long that may take (default 30s)."),
    ),
}
"""Name in a job file, type, typer's option. Texts are checked by `topod.protocol.jobfile`."""

_FILE = _option(
    "-f", "--file", metavar="FILE", help="Job file, YAML or .toml; - is YAML on stdin. Flags win over it."
)
_COMMAND = typer.Argument(metavar="[--] COMMAND...", help="What the job runs.", show_default=False)


def takes_job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all flags of a job; it gets them as one `Origin | None` pair in `job`.

    The function's own options come first in its help.
    """
    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "job"]
    shared = [_parameter("file", Text, _FILE)]
    shared += [_parameter(name, kind, option) for name, (kind, option) in FLAGS.items()]
    shared += [_parameter("command", Texts, _COMMAND)]

    def called(**values: Any) -> Any:
        job = {parameter.name: values.pop(parameter.name) for parameter in shared}
        return function(**values, job=job)

    called.__name__, called.__doc__ = function.__name__, function.__doc__
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    # What `inspect.signature`, and so typer, looks at first.
    vars(called)["__signature__"] = inspect.Signature([*own, *shared])
    return called


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def job_spec(job: dict[str, Any], user: str = "", *, runs: bool = True) -> JobSpec:
    """Return the job of the flags, merged over its file if one is named.

    With `runs` False a job without anything to run is good enough, as for `plan`.
    """
    return job_and_array(job, user, runs=runs)[0]


def job_and_array(job: dict[str, Any], user: str, *, runs: bool = True) -> tuple[JobSpec, ArrayPlan | None]:
    """Return the job as `job_spec` does, and the array of such jobs that is asked for, if one is."""
    given = {name: value for name, value in job.items() if value not in (None, []) and name != "file"}
    file = None
    if job["file"] is not None:
        file = read_job_file(job["file"], sys.stdin.read() if job["file"] == "-" else "")
    if not runs and "command" not in given and (file is None or not {"command", "image"} & set(file.values)):
        given.setdefault("image", "none")
    flags = Origin(values=given, base=Path.cwd())
    return build_spec(file, flags, environ=os.environ, user=user), array_plan(file, flags)


def user_name() -> str:
    """Return the name of who calls, or the number where there is no name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
