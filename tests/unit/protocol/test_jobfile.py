"""A job from flags, YAML and TOML: the same names, the same checks, the same meaning."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from topod.errors import DataError, NotFoundError, TopodError, UsageError
from topod.model.job import (
    CheckpointHook,
    Device,
    JobSpec,
    Mount,
    Network,
    OnHostLost,
    OnPreempt,
    RestartPolicy,
)
from topod.model.request import Affinity, CpuAffinity, Policy, ResourceRequest
from topod.protocol.jobfile import Origin, build_spec, default_name, parse_job_text, read_job_file

YAML = """\
name: train
image: pytorch/pytorch
command: [python, train.py, --lr, 0.1]
gpus: 4
affinity: nvlink
policy: best-effort
cpus: 32
cpu-affinity: socket
memory: 64G
priority: high
preemptible: true
grace: 2m
min_runtime: 10m
wait_before_preempt: 30s
max-runtime: 1-12:00:00
on_preempt: requeue
on_host_lost: keep
restart: on-failure:5
env: {OMP_NUM_THREADS: 8, MODE: fast}
volumes: ["/data:/data:ro"]
workdir: /work
shm_size: 16G
ulimits: {memlock: unlimited}
cap_add: [IPC_LOCK]
devices: ["/dev/fuse:/dev/fuse:rw"]
network: host
user: 1000:1000
labels: {team: vision}
checkpoint_command: kill -USR1 $TOPOD_JOB_PID
checkpoint_timeout: 90
"""
TOML = """\
name = "train"
image = "pytorch/pytorch"
command = ["python", "train.py", "--lr", "0.1"]
gpus = 4
affinity = "nvlink"
policy = "best-effort"
cpus = 32
cpu-affinity = "socket"
memory = "64G"
priority = "high"
preemptible = true
grace = "2m"
min_runtime = "10m"
wait_before_preempt = "30s"
max-runtime = "1-12:00:00"
on_preempt = "requeue"
on_host_lost = "keep"
restart = "on-failure:5"
env = {OMP_NUM_THREADS = 8, MODE = "fast"}
volumes = ["/data:/data:ro"]
workdir = "/work"
shm_size = "16G"
ulimits = {memlock = -1}
cap_add = ["cap_ipc_lock"]
devices = ["/dev/fuse:/dev/fuse:rw"]
network_mode = "host"
user = "1000:1000"
labels = {team = "vision"}
checkpoint_command = "kill -USR1 $TOPOD_JOB_PID"
checkpoint_timeout = 90
"""
FLAGS: dict[str, object] = {
    "name": "train",
    "image": "pytorch/pytorch",
    "command": ["python", "train.py", "--lr", "0.1"],
    "gpus": "4",
    "affinity": "nvlink",
    "policy": "best-effort",
    "cpus": "32",
    "cpu_affinity": "socket",
    "memory": "64G",
    "priority": "high",
    "preemptible": True,
    "grace": "2m",
    "min_runtime": "10m",
    "wait_before_preempt": "30s",
    "max_runtime": "1-12:00:00",
    "on_preempt": "requeue",
    "on_host_lost": "keep",
    "restart": "on-failure:5",
    "env": ["OMP_NUM_THREADS=8", "MODE=fast"],
    "volume": ["/data:/data:ro"],
    "workdir": "/work",
    "shm_size": "16G",
    "ulimit": ["memlock=-1"],
    "cap_add": ["IPC_LOCK"],
    "device": ["/dev/fuse:rw"],
    "network": "host",
    "user": "1000:1000",
    "label": ["team=vision"],
    "checkpoint_command": "kill -USR1 $TOPOD_JOB_PID",
    "checkpoint_timeout": "90",
}
WHOLE = JobSpec(
    name="train",
    command=("python", "train.py", "--lr", "0.1"),
    image="pytorch/pytorch",
    user="alice",
    env={"OMP_NUM_THREADS": "8", "MODE": "fast"},
    mounts=(Mount(source="/data", target="/data", read_only=True),),
    workdir="/work",
    container_user="1000:1000",
    shm_bytes=16 << 30,
    ulimits={"memlock": -1},
    cap_add=("IPC_LOCK",),
    devices=(Device(source="/dev/fuse", target="/dev/fuse", permissions="rw"),),
    network=Network.HOST,
    labels={"team": "vision"},
    request=ResourceRequest(
        gpus=4,
        affinity=Affinity.NVLINK,
        policy=Policy.BEST_EFFORT,
        cpus=32,
        cpu_affinity=CpuAffinity.SOCKET,
        priority=1000,
    ),
    memory_bytes=64 << 30,
    preemptible=True,
    grace_seconds=120.0,
    min_runtime_seconds=600.0,
    wait_before_preempt_seconds=30.0,
    on_preempt=OnPreempt.REQUEUE,
    on_host_lost=OnHostLost.KEEP,
    max_runtime_seconds=129600.0,
    restart=RestartPolicy.ON_FAILURE,
    max_restarts=5,
    checkpoint=CheckpointHook(command=("sh", "-c", "kill -USR1 $TOPOD_JOB_PID"), timeout_seconds=90.0),
)
BASE = Path("/home/alice")


def _flags(**values: object) -> JobSpec:
    return build_spec(None, Origin(values={"command": ["x"], **values}, base=BASE), environ={}, user="alice")


def _yaml(text: str, environ: Mapping[str, str] | None = None, **flags: object) -> JobSpec:
    file = parse_job_text(text, kind="yaml", source="job.yaml", base=BASE)
    return build_spec(file, Origin(values=flags, base=BASE), environ=environ or {}, user="alice")


def test_flags_yaml_and_toml_describe_the_same_job() -> None:
    toml = parse_job_text(TOML, kind="toml", source="job.toml", base=BASE)
    assert _flags(**FLAGS) == WHOLE
    assert _yaml(YAML) == WHOLE
    assert build_spec(toml, Origin(base=BASE), environ={}, user="alice") == WHOLE


def test_the_whole_example_sets_every_field_of_a_job() -> None:
    plain = JobSpec(name="", command=())
    unset = {
        field.name for field in fields(JobSpec) if getattr(WHOLE, field.name) == getattr(plain, field.name)
    }
    assert unset == {"preemptible", "on_preempt", "after", "secrets"}


def test_without_anything_else_a_job_has_the_defaults_of_the_model() -> None:
    assert _flags() == JobSpec(name="x", command=("x",), user="alice")


@pytest.mark.parametrize(("gpus", "cpus"), [("0", 0), ("1", "auto"), ("8", "auto")])
def test_a_job_with_gpus_gets_their_share_of_cpus_unless_told_otherwise(gpus: str, cpus: object) -> None:
    assert _flags(gpus=gpus).request.cpus == cpus
    assert _flags(gpus=gpus, cpus="0").request.cpus == 0


def test_flags_win_over_the_file_field_by_field() -> None:
    spec = _yaml(YAML, gpus="2", priority="low", env=["MODE=slow"], volume=["/mine:/data"], label=["run=7"])
    assert spec.request.gpus == 2
    assert spec.request.priority == 100
    assert spec.env == {"OMP_NUM_THREADS": "8", "MODE": "slow"}
    assert spec.mounts == (Mount(source="/mine", target="/data"),)
    assert spec.labels == {"team": "vision", "run": "7"}
    assert spec.image == "pytorch/pytorch"


def test_a_variable_without_a_value_takes_it_from_the_environment_or_is_left_out() -> None:
    spec = _yaml("command: x\nenv: [TOKEN, NONE]", {"TOKEN": "s3"})
    assert spec.env == {"TOKEN": "s3"}
    assert _yaml("command: x\nenv: {TOKEN: }", {"TOKEN": "s3"}).env == {"TOKEN": "s3"}


def test_a_file_of_variables_is_read_beside_the_job_file_and_loses_against_env(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("# a comment\nA=1\n\nB=two words\nC\n")
    (tmp_path / "job.yaml").write_text("command: x\nenv_file: vars\nenv: {A: 9}\n")
    file = read_job_file(str(tmp_path / "job.yaml"))
    spec = build_spec(file, Origin(base=BASE), environ={"C": "3"})
    assert spec.env == {"A": "9", "B": "two words", "C": "3"}


def test_paths_are_relative_to_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("command: x\nvolumes: ['./data:/data']\n")
    file = read_job_file(str(tmp_path / "job.yaml"))
    spec = build_spec(file, Origin(values={"volume": ["./out:/out"]}, base=BASE), environ={})
    assert spec.mounts == (
        Mount(source=str(tmp_path.resolve() / "data"), target="/data"),
        Mount(source="/home/alice/out", target="/out"),
    )


def test_a_command_as_text_is_split_like_a_shell_does_and_nothing_is_expanded() -> None:
    assert _yaml("command: python -c 'print(1)' $HOME").command == ("python", "-c", "print(1)", "$HOME")


def test_stdin_is_yaml() -> None:
    assert read_job_file("-", "gpus: 2").values == {"gpus": 2}


@pytest.mark.parametrize(("word", "kept"), [("requeue", OnPreempt.REQUEUE), ("cancel", OnPreempt.CANCEL)])
def test_requeue_is_the_short_form_of_on_preempt(word: str, kept: OnPreempt) -> None:
    assert _flags(requeue=word == "requeue").on_preempt is kept
    assert _flags(on_preempt=word).on_preempt is kept
    assert _yaml("command: x\non-preempt: requeue", requeue=word == "requeue").on_preempt is kept


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"gpus": "x"}, "--gpus: must be a whole number: 'x'"),
        ({"gpus": "-1"}, "--gpus: must be 0 or more: -1"),
        ({"cpus": "some"}, "--cpus: must be a whole number: 'some'"),
        ({"affinity": "nvlnk"}, "(did you mean nvlink?)"),
        ({"policy": "strict"}, "--policy: must be one of guaranteed, best-effort: 'strict'"),
        (
            {"priority": "hihg"},
            "--priority: must be low, normal, high or a whole number: 'hihg' (did you mean high?)",
        ),
        ({"memory": "0"}, "--memory: must be more than 0"),
        ({"grace": "soon"}, "--grace: not a duration: 'soon'"),
        ({"max_runtime": "0"}, "--max-runtime: must be more than 0"),
        (
            {"min_runtime": "2h", "max_runtime": "1h"},
            "--min-runtime: longer than the max runtime: 2h00m > 1h00m",
        ),
        ({"name": "-rf"}, "--name: not a job name: '-rf'"),
        ({"name": "a/b"}, "--name: not a job name"),
        ({"image": " "}, "--image: is empty"),
        (
            {"image": "lab/../x"},
            "--image: not the name of an image: 'lab/../x' (write ubuntu:24.04, or HOST:5000/lab/x)",
        ),
        ({"env": ["=1"]}, "--env: not the name of a variable: ''"),
        ({"env": ["A\0=1"]}, "--env: holds a NUL character"),
        ({"volume": ["data:/data"]}, "--volume: not a path: 'data' (for a folder here write ./data)"),
        ({"volume": ["/a:b"]}, "--volume: the path in the container must start with /: 'b'"),
        ({"volume": ["/a:/b:rx"]}, "--volume: not a volume: '/a:/b:rx'"),
        ({"volume": ["/a:/b", "/c:/b"]}, "--volume: two volumes at /b"),
        ({"ulimit": ["memlock"]}, "--ulimit: not a ulimit: 'memlock'"),
        ({"ulimit": ["nofile=-2"]}, "--ulimit: ulimit nofile must be -1 (unlimited) or more: -2"),
        ({"restart": "always"}, "--restart: 'always' is refused, since exit code 0 says"),
        ({"restart": "never:3"}, "--restart: `never` takes no number"),
        ({"workdir": "sub"}, "--workdir: must start with /: 'sub'"),
        ({"checkpoint_timeout": "9"}, "--checkpoint-timeout: needs a checkpoint command"),
        ({"requeue": False, "on_preempt": "requeue"}, "--on-preempt: contradicts requeue: requeue"),
        ({"command": ["", "x"]}, "COMMAND: the program's name is empty"),
        ({"command": []}, "nothing to run"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_a_usage_error_that_names_it(
    values: dict[str, object], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _flags(**values)
    assert text in caught.value.message
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu: 4", "job.yaml: unknown field 'gpu' (did you mean gpus?)"),
        ("mem: 4", "job.yaml: unknown field 'mem'"),
        ("gpus: 4\ngpus: 2", "job.yaml:2:1: not YAML: 'gpus' is given twice"),
        (
            "cpu-affinity: numa\ncpu_affinity: any",
            "job.yaml: 'cpu-affinity' and 'cpu_affinity' are the same field",
        ),
        ("gpus: [4", "job.yaml:1:9: not YAML"),
        ("gpus: 4.5", "job.yaml: gpus: must be a whole number: 4.5"),
        ("gpus: true", "job.yaml: gpus: must be a whole number: True"),
        ("image: 3.11", "job.yaml: image: must be text: 3.11 (write it in quotes)"),
        ("preemptible: 'no'", "job.yaml: preemptible: must be true or false: 'no'"),
        ("env: {DEBUG: yes}", "job.yaml: env: DEBUG: write true or false in quotes"),
        ("env: 7", "job.yaml: env: must be a list of variables as NAME=VALUE: 7"),
        ("command: 7", "job.yaml: command: must be a list of words or one text: 7"),
        (
            "volumes: [{source: /a, target: /b, mode: ro}]",
            "a volume has source, target and read_only, not 'mode'",
        ),
        ("- gpus", "job.yaml: not a job file: expected fields such as `gpus: 4`"),
        ("", "job.yaml: not a job file"),
        ("? [a]\n: 1", "job.yaml:1:3: not YAML: a name must be plain text"),
        ("name: !!python/object:os.system x", "job.yaml:1:7: not YAML"),
        ("time: 2024-01-01", "job.yaml: max_runtime: not a duration: '2024-01-01'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_bad_data_that_names_the_place(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        _yaml(
            text + "\ncommand: x"
            if text.startswith(("gpus: 4.5", "image", "env", "vol", "time", "pre"))
            else text
        )
    assert message in caught.value.message
    assert caught.value.exit_status == 65


def test_times_of_day_in_yaml_stay_text_and_are_slurms_durations() -> None:
    assert _yaml("command: x\ntime: 1:30:00").max_runtime_seconds == 5400
    assert _yaml("command: x\ngrace: 30").grace_seconds == 30


def test_damaged_toml_and_absent_or_binary_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("gpus = = 4")
    (tmp_path / "job.yaml").write_bytes(b"gpus: \xff\xfe")
    expected: list[tuple[str, type[TopodError], str]] = [
        ("job.toml", DataError, "not TOML"),
        ("job.yaml", DataError, "not UTF-8 text at byte 6"),
        ("none.yaml", NotFoundError, "no such job file"),
        (".", DataError, "cannot be read"),
    ]
    for name, kind, text in expected:
        with pytest.raises(kind, match=text):
            read_job_file(str(tmp_path / name))


def test_deep_nesting_is_bad_data() -> None:
    with pytest.raises(DataError):
        _yaml("gpus: " + "[" * 5000)


@pytest.mark.parametrize(
    ("command", "image", "name"),
    [
        (("python", "train.py"), None, "train"),
        (("python3", "-u", "/srv/run_all.py"), None, "run_all"),
        (("/usr/bin/nvidia-smi", "-L"), None, "nvidia-smi"),
        (("bash", "-c", "echo"), None, "bash"),
        ((), "registry.example/team/model:1.2", "model"),
        ((), "model@sha256:00", "model"),
        (("./été",), None, "t"),
        (("...",), None, "job"),
    ],
)
def test_a_job_without_a_name_gets_that_of_its_program(command: Any, image: str | None, name: str) -> None:
    assert default_name(command, image) == name


@pytest.mark.parametrize("line", ["privileged: true", "ipc: host", "pid: host"])
def test_what_would_give_the_host_away_is_refused_with_what_to_do_instead(line: str) -> None:
    with pytest.raises(DataError, match="is not to be had: ") as refused:
        _yaml(f"command: x\n{line}")
    assert "\n" not in refused.value.message
