"""A host of the fleet that is what a host is: the life cycle itself, told and telling as its daemon would."""

import random

from tests.fakes.fleet_host import Local, PretendHost
from tests.fakes.world import World
from topod.daemon.fleet_report import fleet_jobs, host_snapshot
from topod.fleet.hosts import HostSnapshot
from topod.flextopo.tables import TopologyTables
from topod.lifecycle import events as ev
from topod.lifecycle.states import ENDED, JobState
from topod.model.assignment import Assign, FleetJobReport, Revoke, Settled
from topod.model.container import ContainerStatus
from topod.model.cpuset import NO_CPUS
from topod.model.job import JobSpec
from topod.model.rules import NO_RULES, Rules


class RealHost(PretendHost):
    """Its database and its containers outlive its topod, and it loses neither."""

    def __init__(
        self,
        name: str,
        tables: TopologyTables,
        rng: random.Random,
        rules: Rules = NO_RULES,
        faults: float = 0.0,
    ) -> None:
        self.world = World(tables.topology, rng.randrange(1 << 30), faults, rules)
        super().__init__(name, tables, rng)

    @property
    def disk(self) -> dict[int, Local]:
        """The jobs that are not settled, as the referee looks at them."""
        return {
            job.id: Local(
                id=job.id,
                tag=job.tag,
                spec=job.spec,
                gpus=job.allocation.gpu_indices if job.allocation else (),
                cpus=job.allocation.cpus if job.allocation else NO_CPUS,
                state=job.state.value,
                starts=job.starts,
            )
            for job in self.world.state.jobs.values()
            if job.tag is not None or job.state not in ENDED
        }

    @disk.setter
    def disk(self, _: object) -> None:
        pass

    def begin(self, *, keep_lease: bool) -> None:
        if self.world.now > 1000.0:
            self.world.crash()
        super().begin(keep_lease=keep_lease)

    def power_off(self) -> None:
        self.crash()

    def wipe(self) -> None:
        self.crash()

    def snapshot(self, now: float) -> HostSnapshot:
        return host_snapshot(self.tables, self.world.state, now, self.world.rules)

    def reports(self) -> tuple[FleetJobReport, ...]:
        reports = fleet_jobs(self.world.state)
        for report in reports:
            tag = self.world.job(report.local).tag
            if report.ready and tag is not None:
                self.made.add((tag.job, tag.fence, tag.rank))
        return reports

    def _assign(self, assign: Assign, now: float) -> None:
        if self.holds_lease(now):
            refusal = "it is in no mood" if self.rng.random() < self.moody else ""
            self.world.apply(
                ev.Assigned(tag=assign.tag, spec=assign.spec, place=assign.place, refusal=refusal)
            )

    def _revoke(self, revoke: Revoke, now: float) -> None:
        self.world.apply(
            ev.Revoked(job=revoke.job, fence=revoke.fence, requeue=revoke.requeue, reason=revoke.reason)
        )

    def _forget(self, settled: Settled) -> None:
        self.world.apply(ev.Settled(job=settled.job, fence=settled.fence))

    def _prioritise(self, job: int, priority: int) -> None:
        for local in list(self.world.state.jobs.values()):
            if local.tag is not None and local.tag.job == job:
                self.world.apply(ev.PriorityChanged(job=local.id, priority=priority))

    def running(self) -> list[Local]:
        found = []
        for container in self.world.containers.values():
            if container.status is ContainerStatus.RUNNING:
                job = self.world.job(container.job)
                found.append(
                    Local(
                        id=job.id,
                        tag=job.tag,
                        spec=job.spec,
                        gpus=container.allocation.gpu_indices,
                        cpus=container.allocation.cpus,
                    )
                )
        return found

    def act(self, now: float) -> None:
        if not self.up:
            return
        if not self.holds_lease(now):
            self.world.apply(ev.LeaseEnded())
        for job in list(self.world.state.jobs.values()):
            since = job.started_at if job.state is JobState.RUNNING else None
            if since is not None and self.world.now - since > float(job.spec.labels["seconds"]):
                self.world.exit(job.id, int(job.spec.labels["code"]))
        self.world.advance(max(0.0, now - self.world.now))

    def local_user(self, spec: JobSpec, now: float) -> None:
        if self.up:
            self.world.submit(spec)
