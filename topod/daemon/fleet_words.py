"""How a host's sentences name jobs to the fleet: by the fleet's numbers, which are not the host's. Pure."""

import re
from typing import Final

from topod.lifecycle.states import HostState
from topod.model.job import JobId

NAMED: Final = re.compile(r"\bjob (\d+)(?:\[\d+\])?(?: \(([^()]*)\))?")
"""As `Job.label` and `Job.ident` name one."""


def to_the_fleet(state: HostState, text: str) -> str:
    """Return a reason as users of the fleet read it; the host's own jobs are told from theirs."""

    def named(found: re.Match[str]) -> str:
        job = state.jobs.get(JobId(int(found[1])))
        if job is None or found[2] not in (None, job.spec.name):
            return found[0]
        name = f" ({found[2]})" if found[2] is not None else ""
        if job.assignment is None:
            return f"{found[0]} of the host's own"
        return f"job {job.assignment.tag.job}{name}"

    return NAMED.sub(named, text) if "job " in text else text
