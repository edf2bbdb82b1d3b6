"""Valid input to start from."""

import json
from pathlib import Path
from typing import Any, Final

from topod.fleet.hosts import HeldBy, HostSnapshot
from topod.model.assignment import (
    Assign,
    FleetJobReport,
    FleetTag,
    Place,
    Revoke,
    Settled,
)
from topod.model.cpuset import CpuSet
from topod.model.job import CheckpointHook, Device, JobSpec, Mount, Network, OnHostLost, Secret, Signal
from topod.model.request import Affinity, ResourceRequest
from topod.protocol import replies as rp
from topod.protocol import requests as rq
from topod.protocol.codec import ReplyEnvelope, RequestEnvelope, encode
from topod.protocol.link import (
    AnyFromHost,
    AnyToHost,
    HostAnswer,
    HostAsk,
    HostHello,
    HostReport,
    Orders,
    TurnedAway,
    Who,
)
from topod.protocol.views import EventView

ROOT: Final = Path(__file__).resolve().parents[2]

JOB_YAML: Final = b"""\
name: train
image: pytorch/pytorch:2.5
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
max-runtime: 1-12:00:00
on_preempt: requeue
restart: on-failure:5
env: {OMP_NUM_THREADS: 8, MODE: fast}
volumes: ["/data:/data:ro", {source: ./x, target: /x, read_only: true}]
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
JOB_TOML: Final = b"""\
name = "train"
image = "pytorch/pytorch"
command = "python train.py 'a b'"
gpus = 4
affinity = "nvlink"
memory = "64G"
priority = 1000
grace = "2m"
max-runtime = "1-12:00:00"
env = {OMP_NUM_THREADS = 8}
volumes = ["/data:/data:ro"]
ulimits = {memlock = "unlimited"}
labels = ["team=vision"]
"""
SECRET_KEY: Final = "o>Bx[Q[@6)im&Ys.ytO}*^6F4N4Q/LUBLRo4HP-V"
AUTHORIZED: Final = f"""\
# the fleet
topod-public:)pP[Yhn-/:b1yefvJeEhW!ICta^P($t3OJMxmc!0  host node-a
topod-public:O(g@5qon(![UX7T=uh*05A379CY5TeT]gxt098x:  user alice  roles=view,submit  max-priority=500
topod-public:($Ol=K?1YYqX%.oTV<Jl0ChWR^WyeHZNnJ%vzZbh  user root  roles=administer  # added 2026-01-01

# topod-secret:{SECRET_KEY} user bob
""".encode()
CONFIG: Final = b"""\
[fairness]
preemption_cap = 5
hold_after = "30m"

[[quota]]
user = "*"
gpus = 4

[[budget]]
label = "service=chat-7b"
min_running = 2

[health]
interval = 5

[logs]
max_bytes = "100M"

[security]
socket_group = "topod"
socket_mode = "0660"
view = ["*"]
administer = ["topod-admin"]

[security.max_priority]
"*" = 500
serving = 1000

[security.jobs]
images = ["registry:5000/ml/*", "*@sha256:abc"]
require_digest = true
mounts = ["/data/{user}"]
users = ["caller"]
networks = ["none", "host"]
capabilities = ["IPC_LOCK"]
ulimits = { memlock = -1 }
max_gpus = 4
"""
_DRIVER: Final = (
    b"\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    b"GPU0\t X \tNV18\tPIX\t0-23,48-71\t0\t\tN/A\n"
    b"GPU1\tNV18\t X \tSYS\t24-47\t1\t\tN/A\n"
    b"NIC0\tPIX\tSYS\t X \n\nLegend:\n\n  X    = Self\n"
)
_BLANKS: Final = (
    b"        GPU0    GPU1    GPU2    CPU Affinity\nGPU0     X      PHB     SOC     0-7\n"
    b"GPU1    PHB      X      SOC     0-7\nGPU2    SOC     SOC      X      8-15\n"
)
MATRICES: Final = (_DRIVER, _BLANKS, b"\x1b[4m\tGPU0\tCPU Affinity\x1b[0m\nGPU0\t X \t0-3\n")
SPEC: Final = JobSpec(
    name="train",
    command=("python", "train.py"),
    image="a/b:1",
    user="alice",
    env={"A": "1"},
    mounts=(Mount(source="/data", target="/data"),),
    secrets=(Secret(name="key", source="/keys/k"),),
    devices=(Device(source="/dev/fuse", target="/dev/fuse"),),
    cap_add=("IPC_LOCK",),
    network=Network.HOST,
    container_user="1000:1000",
    ulimits={"nofile": 1024},
    labels={"a": "b"},
    request=ResourceRequest(gpus=2, affinity=Affinity.NVLINK, cpus=4, priority=7),
    checkpoint=CheckpointHook(signal=Signal.USR1),
)
REQUESTS: Final[tuple[rq.AnyRequest, ...]] = (
    rq.Hello(),
    rq.Submit(spec=SPEC, token="t"),
    rq.DryRun(spec=SPEC),
    rq.ListJobs(ended=True, limit=5, user="x"),
    rq.GetJob(job=1),
    rq.WaitJob(job=999, states=["running"], timeout=1.0),
    rq.Cancel(jobs=[999, 2], by="x"),
    rq.Requeue(jobs=[1, 999], by="x"),
    rq.SetPriority(job=999, priority=5),
    rq.Drain(gpu="0", reason="r"),
    rq.Resume(gpu="GPU-x"),
    rq.GetHost(),
    rq.ReadLog(job=1, attempt=1, offset=-5, limit=10),
    rq.ReadEvents(since=-5, limit=10, job=1),
)
HOSTS: Final = tuple(
    json.loads((ROOT / "fixtures" / "hosts" / f"{name}.json").read_text())
    for name in ("one-gpu", "rtx3090x2", "a100-pcie-x4")
)
HELD_HOST: Final[dict[str, Any]] = {
    **HOSTS[1],
    "occupancy": {"holders": [{"id": 1, "gpus": [0], "cpus": "0-3", "priority": 100}]},
}
BATCH: Final[tuple[dict[str, Any], ...]] = (
    {
        "id": 1,
        "host": "rtx3090x2.json",
        "request": {"gpus": 2, "affinity": "pcie", "priority": "high", "cpus": 4},
        "jobs": [{"id": "a", "gpus": [0], "cpus": "0-3", "priority": 100, "gpu_seconds": 5}],
    },
    {"id": "x", "host": "one-gpu.json", "request": {"gpus": 1}},
)


def plain(message: object) -> Any:
    """Return a message as JSON values."""
    return json.loads(encode(message))


def requests() -> list[Any]:
    """Return one envelope of each request as JSON values."""
    return [plain(RequestEnvelope(v=1, id="1", body=body)) for body in REQUESTS]


def replies() -> list[Any]:
    """Return some envelopes of replies as JSON values."""
    bodies: list[rp.AnyReply] = [
        rp.Done(text="x"),
        rp.Failure(code="c", text="t", hint="h"),
        rp.LogChunk(attempt=1, data=b"abc", next_offset=3, ended=False),
        rp.Planned(feasible=False, reason="r", details=["a"]),
        rp.Events(events=[EventView(seq=1, at=1.0, name="n", job=1, text="t", data={"a": [1]})]),
    ]
    return [plain(ReplyEnvelope(v=1, id="1", body=body)) for body in bodies]


_TAG: Final = FleetTag(job=7, fence=12, rank=1, size=2, env={"RANK": "1"}, on_host_lost=OnHostLost.KEEP)
_SNAPSHOT: Final = HostSnapshot(
    host="node-a",
    generation=3,
    holders=(
        HeldBy(job="4", priority=100, gpus=3, cpus=CpuSet.parse("0-3"), work_since=5.0, budgets=("b",)),
    ),
    labels={"rack": "1"},
)
FROM_HOST: Final[tuple[AnyFromHost, ...]] = (
    HostHello(
        host="node-a", session="s", version="1", document={"gpus": [{"index": 0}]}, labels={"rack": "1"}
    ),
    HostReport(
        session="s",
        seq=2,
        sent=12.5,
        epoch=1,
        snapshot=_SNAPSHOT,
        jobs=[FleetJobReport(job=7, fence=12, local=4, state="running", gpus=(0, 1), started_at=1.0)],
        troubles=["store: full"],
    ),
    HostReport(session="s", seq=3, sent=13.5, since=2),
    HostAnswer(id="1", reply=rp.Done(text="x")),
)
TO_HOST: Final[tuple[AnyToHost, ...]] = (
    Who(),
    Orders(
        session="s",
        epoch=1,
        seq=4,
        echo=12.5,
        lease_seconds=30.0,
        seen=2,
        assign=[
            Assign(tag=_TAG, spec=JobSpec(name="t", command=("x",)), place=Place(gpus=(0, 1), victims=("3",)))
        ],
        revoke=[Revoke(job=8, fence=3, requeue=True, reason="lost")],
        settled=[Settled(job=6, fence=2)],
        priorities={7: 500},
    ),
    HostAsk(id="1", user="alice", request=rq.GetJob(job=1)),
    TurnedAway(reason="too old"),
)


def link() -> list[Any]:
    """Return what hosts and coordinators say, as plain trees."""
    return [json.loads(encode(message)) for message in (*FROM_HOST, *TO_HOST)]
