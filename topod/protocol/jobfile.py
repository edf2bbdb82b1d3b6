"""A job from flags and from a YAML or TOML file, with the same names in all three.

Rule: what cannot be meant is refused with the name of the flag or of the file and field, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from topod.errors import DataError, NotFoundError, UsageError
from topod.model.arrays import ArrayPlan
from topod.model.job import CheckpointHook, JobSpec, Network, OnHostLost, OnPreempt, RestartPolicy, Secret
from topod.model.request import AUTO, Affinity, CpuAffinity, Policy, ResourceRequest
from topod.protocol import jobextras as extras
from topod.protocol import jobfields as parse
from topod.protocol.units import format_duration

MAX_FILE_BYTES: Final = 1 << 20
_RESTARTS: Final = JobSpec(name="defaults", command=()).max_restarts

_PARSERS: Final[Mapping[str, parse.Parser]] = {
    "name": parse.name,
    "image": parse.image,
    "command": parse.command,
    "gpus": parse.count,
    "affinity": parse.choice(Affinity),
    "policy": parse.choice(Policy),
    "cpus": parse.cpus,
    "cpu_affinity": parse.choice(CpuAffinity),
    "memory": parse.positive_size,
    "priority": parse.priority,
    "preemptible": parse.flag,
    "grace": parse.duration,
    "min_runtime": parse.duration,
    "max_runtime": parse.positive_duration,
    "wait_before_preempt": parse.duration,
    "on_preempt": parse.choice(OnPreempt),
    "on_host_lost": parse.choice(OnHostLost),
    "requeue": parse.flag,
    "restart": parse.restart,
    "max_restarts": parse.count,
    "workdir": parse.nonempty,
    "shm_size": parse.positive_size,
    "user": parse.nonempty,
    "ulimit": parse.ulimits,
    "cap_add": parse.capabilities,
    "device": parse.devices,
    "network": parse.choice(Network),
    "checkpoint_command": parse.script,
    "checkpoint_timeout": parse.positive_duration,
    "checkpoint_signal": extras.checkpoint_signal,
    "after": extras.after,
}
"""Fields that need nothing but their value; env, env_file, label and volume are merged below."""

_MERGED: Final = ("env", "env_file", "label", "volume", "secret")
FIELDS: Final = (*_PARSERS, *_MERGED, "array")
"""Every name that a job file knows, in the form that `Origin.values` uses."""

_ALIASES: Final = {
    "time": "max_runtime",
    "volumes": "volume",
    "mounts": "volume",
    "ulimits": "ulimit",
    "devices": "device",
    "network_mode": "network",
    "labels": "label",
    "env_files": "env_file",
    "environment": "env",
    "secrets": "secret",
    "dependency": "after",
    "working_dir": "workdir",
    "shm": "shm_size",
}
_NEVER: Final = {
    "privileged": "it is root on the host; name what is needed with cap_add and devices",
    "ipc": "shm_size makes /dev/shm as large as needed",
    "pid": "a job does not see the host's processes",
    "security_opt": "the site's policy has it",
}
"""What users of Docker write, and what to write instead."""
_RUNNERS: Final = {"python", "python3", "bash", "sh", "torchrun", "accelerate", "deepspeed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Fields as one source gave them, by the names of `FIELDS`. `file` None: the command line.

    Relative paths in it are relative to `base`.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    file: str | None = None
    base: Path = field(default_factory=Path.cwd)

    def refuse(self, name: str, text: str) -> UsageError | DataError:
        """Return the error that says what is wrong with one field of this source."""
        if self.file is None:
            return UsageError(f"{'COMMAND' if name == 'command' else '--' + name.replace('_', '-')}: {text}")
        return DataError(f"{name}: {text}", source=self.file)


def read_job_file(path: str, stdin: str = "") -> Origin:
    """Read a job file: TOML where the name ends in `.toml`, else YAML; `-` takes `stdin` as YAML.

    Raises `NotFoundError` where there is none, `DataError` where it is damaged or has an unknown field.
    """
    if path == "-":
        return parse_job_text(stdin, kind="yaml", source="stdin", base=Path.cwd())
    try:
        data = Path(path).read_bytes()[: MAX_FILE_BYTES + 1]
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise NotFoundError(f"no such job file: {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", source=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", source=path) from None
    kind: Literal["yaml", "toml"] = "toml" if path.endswith(".toml") else "yaml"
    return parse_job_text(text, kind=kind, source=path, base=Path(path).resolve().parent)


def parse_job_text(text: str, *, kind: Literal["yaml", "toml"], source: str, base: Path) -> Origin:
    """Return the fields of a job file under their canonical names; raises `DataError`."""
    if len(text) > MAX_FILE_BYTES:
        raise DataError("larger than 1 MiB, which no job file is", source=source)
    if kind == "toml":
        import tomllib  # noqa: PLC0415 - only where a TOML file is read

        try:
            document: object = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
            raise DataError(f"not TOML: {error}", source=source) from None
    else:
        from topod.protocol.jobyaml import load_yaml  # noqa: PLC0415 - PyYAML only where a YAML file is read

        document = load_yaml(text, source)
    if not isinstance(document, dict):
        raise DataError(
            "not a job file: expected fields such as `gpus: 4`",
            source=source,
            hint="docs/reference/job-file.md",
        )
    return Origin(values=_canonical(document, source), file=source, base=base)


def build_spec(
    file: Origin | None,
    flags: Origin,
    *,
    environ: Mapping[str, str],
    user: str = "",
) -> JobSpec:
    """Return the job that `file` and `flags` describe together; flags win, field by field.

    env, labels and ulimits are merged by name, volumes by their path in the container. A variable without
    a value takes that of `environ`. Raises `UsageError` for flags, `DataError` for the file.
    """
    origins = [origin for origin in (file, flags) if origin is not None]
    got: dict[str, Any] = {"ulimit": {}}
    for origin in origins:
        for name, parser in _PARSERS.items():
            if name not in origin.values:
                continue
            try:
                value = parser(origin.values[name])
            except ValueError as error:
                raise origin.refuse(name, str(error)) from None
            got[name] = {**got["ulimit"], **cast("dict[str, int]", value)} if name == "ulimit" else value
        _reconcile_requeue(origin, got)
        _reconcile_restarts(origin, got)
    spec = _spec(got, origins, environ, user)
    _check(spec, flags if file is None else file)
    return spec


def array_plan(file: Origin | None, flags: Origin) -> ArrayPlan | None:
    """Return the array that `file` and `flags` ask for; flags win. None: one job."""
    for origin in (flags, file):
        if origin is not None and "array" in origin.values:
            try:
                return extras.array(origin.values["array"])
            except ValueError as error:
                raise origin.refuse("array", str(error)) from None
    return None


def _canonical(document: Mapping[object, object], source: str) -> dict[str, object]:
    values: dict[str, object] = {}
    written: dict[str, str] = {}
    for key, value in document.items():
        name = str(key).replace("-", "_")
        name = _ALIASES.get(name, name)
        if name not in FIELDS:
            if reason := _NEVER.get(name):
                raise DataError(f"{str(key)!r} is not to be had: {reason}", source=source)
            known = [*FIELDS, *_ALIASES]
            raise DataError(f"unknown field {str(key)!r}{parse.near(name, known)}", source=source)
        if name in values:
            raise DataError(f"{written[name]!r} and {str(key)!r} are the same field", source=source)
        written[name] = str(key)
        if value is not None:  # `image:` with nothing behind it is as good as no line
            values[name] = value
    return values


def _reconcile_requeue(origin: Origin, got: dict[str, Any]) -> None:
    """Turn `requeue` into `on_preempt`, of which it is the short form."""
    if "requeue" not in origin.values:
        return
    wanted = OnPreempt.REQUEUE if got.pop("requeue") else OnPreempt.CANCEL
    if "on_preempt" in origin.values and got["on_preempt"] is not wanted:
        raise origin.refuse("on_preempt", f"contradicts requeue: {got['on_preempt']}")
    got["on_preempt"] = wanted


def _reconcile_restarts(origin: Origin, got: dict[str, Any]) -> None:
    """Refuse two numbers of restarts in one source; over two sources the later one wins."""
    if "restart" not in origin.values or got["restart"][1] is None:
        return
    number = got["restart"][1]
    if "max_restarts" in origin.values and got["max_restarts"] != number:
        raise origin.refuse("max_restarts", f"contradicts restart on-failure:{number}: {got['max_restarts']}")
    got["max_restarts"] = number


def _spec(got: dict[str, Any], origins: list[Origin], environ: Mapping[str, str], user: str) -> JobSpec:
    gpus = got.get("gpus", 0)
    request = ResourceRequest(
        gpus=gpus,
        cpus=got.get("cpus", AUTO if gpus else 0),
        **{name: got[name] for name in ("affinity", "policy", "cpu_affinity", "priority") if name in got},
    )
    restart, restarts = got.get("restart", (RestartPolicy.NEVER, None))
    renamed = {
        "shm_bytes": "shm_size",
        "grace_seconds": "grace",
        "min_runtime_seconds": "min_runtime",
        "wait_before_preempt_seconds": "wait_before_preempt",
        "on_preempt": "on_preempt",
        "on_host_lost": "on_host_lost",
        "preemptible": "preemptible",
    }
    command = got.get("command", ())
    return JobSpec(
        name=got.get("name") or default_name(command, got.get("image")),
        command=command,
        image=got.get("image"),
        user=user,
        env=_environment(origins, environ),
        mounts=_mounts(origins),
        workdir=got.get("workdir"),
        container_user=got.get("user"),
        ulimits=got["ulimit"],
        cap_add=got.get("cap_add", ()),
        devices=got.get("device", ()),
        network=got.get("network"),
        labels={key: value or "" for key, value in _pairs(origins, "label", "label").items()},
        request=request,
        memory_bytes=got.get("memory"),
        max_runtime_seconds=got.get("max_runtime"),
        restart=restart,
        max_restarts=got.get("max_restarts", _RESTARTS if restarts is None else restarts),
        checkpoint=_checkpoint(got, origins[-1]),
        after=got.get("after", ()),
        secrets=_secrets(origins),
        **{target: got[name] for target, name in renamed.items() if name in got},
    )


def default_name(command: tuple[str, ...], image: str | None) -> str:
    """Return a name for a job without one: of its script, its program or its image."""
    words = [word for word in command if not word.startswith("-")]
    if len(words) > 1 and Path(words[0]).name in _RUNNERS and Path(words[1]).suffix in {".py", ".sh"}:
        word = Path(words[1]).stem
    elif words:
        word = Path(words[0]).name
    else:
        word = (image or "job").split("@")[0].rsplit("/", 1)[-1].split(":")[0]
    cleaned = "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in word)
    return cleaned.strip("_.-")[:63] or "job"


def _checkpoint(got: Mapping[str, Any], last: Origin) -> CheckpointHook | None:
    command = got.get("checkpoint_command") or ()
    signal, bound = got.get("checkpoint_signal", (None, None))
    timeout = got.get("checkpoint_timeout")
    if command and signal is not None:
        raise last.refuse("checkpoint_signal", "give either a checkpoint command or a checkpoint signal")
    if not command and signal is None:
        if timeout is not None:
            raise last.refuse("checkpoint_timeout", "needs a checkpoint command or a checkpoint signal")
        return None
    if bound is not None and timeout not in (None, bound):
        raise last.refuse("checkpoint_timeout", f"contradicts checkpoint_signal: {timeout:g} s, {bound:g} s")
    hook = CheckpointHook(command=command, signal=signal)
    seconds = timeout if bound is None else bound
    return hook if seconds is None else replace(hook, timeout_seconds=seconds)


def _secrets(origins: list[Origin]) -> tuple[Secret, ...]:
    by_name: dict[str, Secret] = {}
    for origin in origins:
        try:
            found = extras.secrets(origin.values.get("secret", {}), origin.base)
        except ValueError as error:
            raise origin.refuse("secret", str(error)) from None
        by_name.update({secret.name: secret for secret in found})
    return tuple(by_name.values())


def _environment(origins: list[Origin], environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str | None] = {}
    for origin in origins:
        paths = origin.values.get("env_file", ())
        for path in [paths] if isinstance(paths, str) else cast("list[str]", paths):
            found.update(_env_file(str(path), origin))
    found.update(_pairs(origins, "env", "variable"))
    # As in Docker, a bare name that this environment does not have is left out.
    taken = {key: environ.get(key) if value is None else value for key, value in found.items()}
    return {key: value for key, value in taken.items() if value is not None}


def _pairs(origins: list[Origin], name: str, what: str) -> dict[str, str | None]:
    merged: dict[str, str | None] = {}
    for origin in origins:
        try:
            merged.update(parse.pairs(origin.values.get(name, {}), what=what))
        except ValueError as error:
            raise origin.refuse(name, str(error)) from None
    return merged


def _mounts(origins: list[Origin]) -> tuple[Any, ...]:
    by_target: dict[str, Any] = {}
    for origin in origins:
        try:
            found = parse.mounts(origin.values.get("volume", ()), origin.base)
        except ValueError as error:
            raise origin.refuse("volume", str(error)) from None
        for mount in found:
            if any(mount.target == other.target for other in found if other is not mount):
                raise origin.refuse("volume", f"two volumes at {mount.target}")
            by_target[mount.target] = mount
    return tuple(by_target.values())


def _env_file(path: str, origin: Origin) -> dict[str, str | None]:
    """Read `NAME=VALUE` lines as Docker does: no quotes, `#` starts a comment line."""
    try:
        lines = (origin.base / Path(path).expanduser()).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise NotFoundError(f"no such file of variables: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", source=path) from None
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    try:
        return parse.pairs([line.lstrip() for line in kept], what="variable")
    except ValueError as error:
        raise DataError(str(error), source=path) from None


def _check(spec: JobSpec, origin: Origin) -> None:
    """Refuse what each field allows but no job can mean."""
    if not spec.command and spec.image is None:
        hint = "topoctl submit --gpus 1 -- python train.py"
        raise UsageError("nothing to run: give a command, an image, or both", hint=hint)
    if spec.command and not spec.command[0]:
        raise origin.refuse("command", "the program's name is empty")
    if spec.max_runtime_seconds is not None and spec.min_runtime_seconds > spec.max_runtime_seconds:
        low, high = format_duration(spec.min_runtime_seconds), format_duration(spec.max_runtime_seconds)
        raise origin.refuse("min_runtime", f"longer than the max runtime: {low} > {high}")
    if spec.workdir is not None and not spec.workdir.startswith("/"):
        raise origin.refuse("workdir", f"must start with /: {spec.workdir!r}")
