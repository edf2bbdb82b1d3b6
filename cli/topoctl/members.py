"""Which member of a job over several hosts is meant: `--rank` and `--on` of `logs` and `exec`."""

from typing import Annotated

import typer

from topoctl.session import note
from topod.errors import UsageError
from topod.protocol.views import JobView

RankOption = Annotated[
    int | None,
    typer.Option(
        "--rank", min=0, metavar="N", help="Of a job over several hosts: this member.", show_default=False
    ),
]
OnOption = Annotated[
    str,
    typer.Option("--on", metavar="HOST", help="The same: the member on this host.", show_default=False),
]


def member_rank(job: JobView, rank: int | None, host: str) -> int | None:
    """Return the rank that is meant; None: the job has one member, or nobody said. Raises `UsageError`."""
    if host and rank is not None:
        raise UsageError("--rank and --on say the same: give one of them")
    if host:
        found = next((member.rank for member in job.members if member.host == host), None)
        if found is None:
            where = ", ".join(job.hosts) or "no host now"
            raise UsageError(f"job {job.id} is not on {host}: it is on {where}")
        return found
    if rank is None and len(job.members) > 1:
        others = ", ".join(f"--rank {member.rank} is {member.host}" for member in job.members[1:])
        note(
            f"job {job.id} runs on {len(job.members)} hosts; this is rank 0, {job.members[0].host} ({others})"
        )
        return 0
    return rank
