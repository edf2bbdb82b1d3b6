"""How long to wait after failures, and when they are forgotten.

The wait doubles with each failure in a row, from `BACK_OFF_SECONDS` to `BACK_OFF_LIMIT_SECONDS`. A run that
lasted longer than the longest wait was a healthy one: what fails after it, fails for the first time. So a
service that fails once a week is restarted for years, and a job that cannot work is given up soon.
"""

from typing import Final

from topod.lifecycle.exits import seconds_run
from topod.lifecycle.states import Job

BACK_OFF_SECONDS: Final = 5.0
BACK_OFF_LIMIT_SECONDS: Final = 300.0


def back_off(failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row."""
    # The exponent is bounded too: a power of two of thousands does not fit a float.
    return min(BACK_OFF_LIMIT_SECONDS, BACK_OFF_SECONDS * (1 << min(max(0, failures - 1), 10)))


def failures_before(job: Job, now: float) -> int:
    """Return how many failures in a row there were when the run of a job ends at `now`."""
    return 0 if seconds_run(job, now) > BACK_OFF_LIMIT_SECONDS else job.failures
