"""Jobs, hosts and outcomes to be remembered, and a memory in etcd to remember them."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from topod.fleet.outcome import FleetOutcome
from topod.fleet.states import (
    Closed,
    Ending,
    FleetJob,
    FleetJobId,
    FleetJobState,
    FleetRequest,
    FleetState,
    Guard,
    HostRecord,
    Member,
    Target,
)
from topod.fleet.view import FleetView
from topod.model.assignment import FleetJobReport, Place
from topod.model.cpuset import CpuSet
from topod.model.job import CheckpointHook, JobSpec, Mount, OnHostLost
from topod.model.request import AUTO, Affinity, ResourceRequest

if TYPE_CHECKING:
    from topod.adapters.etcd_fleet import EtcdFleet


SPEC = JobSpec(
    name="träin ✓",
    command=("sh", "-c", "echo 'a\nb'"),
    user="alice",
    env={"A": "1"},
    mounts=(Mount(source="/a", target="/b"),),
    checkpoint=CheckpointHook(command=("save",)),
    request=ResourceRequest(gpus=2, affinity=Affinity.NVLINK, cpus=AUTO),
    on_host_lost=OnHostLost.KEEP,
)


RECORD = HostRecord(
    name="a",
    known_since=1.0,
    labels={"rack": "7"},
    own_labels={"rack": "8", "zone": "x"},
    closed=Closed(reason="new disk", since=2.0, drained=True),
    hardware="dgx1",
    session="s1",
    version="0.1",
)


def full_job(ident: int = 7, **more: Any) -> FleetJob:
    report = FleetJobReport(job=ident, fence=5, local=3, state="running", gpus=(0, 1), started_at=4.0)
    member = Member(
        host="a",
        rank=1,
        place=Place(gpus=(0, 1), victims=("2", "5")),
        cpus=CpuSet.parse("0-3,8"),
        since=3.0,
        report=report,
    )
    fields: dict[str, Any] = {
        "request": FleetRequest(spec=SPEC, hosts=2, select=("rack=7",), gpu_model="*v100*"),
        "state": FleetJobState.STOPPING,
        "reason": "for job 9",
        "submitted_at": 1.5,
        "fence": 5,
        "members": (member, replace(member, host="b", rank=0, report=None, lost=True)),
        "go": True,
        "ending": Ending(state=FleetJobState.PENDING, reason="lost", exit_code=3, failed=True),
        "preemptions": 2,
        "target": (Target(host="c", gpus=6, cpus=CpuSet.parse("1")),),
        "guard": Guard(priority=900, seconds=60.0),
    }
    return FleetJob(id=FleetJobId(ident), **{**fields, **more})


def plain_job(ident: int, **more: Any) -> FleetJob:
    fields: dict[str, Any] = {"request": FleetRequest(spec=SPEC), "submitted_at": 1.0}
    return FleetJob(id=FleetJobId(ident), **{**fields, **more})


def outcome(base: FleetState, *jobs: FleetJob, **more: Any) -> FleetOutcome:
    """Return an outcome that changes these jobs; ended ones are no longer in the state."""
    left = {**base.jobs, **{job.id: job for job in jobs}}
    state = replace(
        base,
        generation=base.generation + 1,
        next_job=FleetJobId(max([base.next_job, *(job.id + 1 for job in jobs)])),
        next_fence=max([base.next_fence, *(job.fence + 1 for job in jobs)]),
        jobs={ident: job for ident, job in left.items() if job.ended_at is None},
        **more.pop("state", {}),
    )
    return FleetOutcome(state=state, view=FleetView(), changed=jobs, **more)


def in_etcd(stack: contextlib.ExitStack, endpoints: Sequence[str], prefix: str, **more: int) -> "EtcdFleet":
    """Open a fleet in etcd as its leader; the one that led before leads no more."""
    from topod.adapters.etcd_client import EtcdClient  # noqa: PLC0415 - of the extra `etcd`
    from topod.adapters.etcd_fleet import EtcdFleet  # noqa: PLC0415
    from topod.adapters.etcd_lead import EtcdLead  # noqa: PLC0415

    stack.close()
    client = stack.enter_context(contextlib.closing(EtcdClient(endpoints)))
    lead = EtcdLead(client, prefix, name="me", seconds=60.0)
    assert lead.stand()
    stack.callback(lead.resign)
    return EtcdFleet(client, lead, prefix, **more)
