"""The exit statuses of topoctl (docs/reference/exit-codes.md lists them)."""

from typing import Final

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 4
CONFLICT: Final = 5
WOULD_PREEMPT: Final = 10
"""`plan`: the job would run, and others would be stopped for it."""
WOULD_WAIT: Final = 11
"""`plan`: the job would not start now."""
BAD_DATA: Final = 65
UNAVAILABLE: Final = 69
STORE: Final = 74
PREEMPTED: Final = 75
"""`wait`: the job was stopped for another one and does not run again."""
PROTOCOL: Final = 76
NOT_ALLOWED: Final = 77
"""The user lacks the role, or the policy of the host forbids what the job asks for."""
NOT_STARTED: Final = 125
"""`run`: the job could not be started, or nobody saw how it ended."""
CANNOT_RUN: Final = 126
COMMAND_NOT_FOUND: Final = 127
HUNG_UP: Final = 129
"""Whoever a hang-up ends: 128 and the number of SIGHUP."""
INTERRUPTED: Final = 130
"""Ctrl-C."""
PIPE: Final = 141
"""The reader of stdout went away, as in `topoctl events -f | head`."""

MEANINGS: Final = {
    OK: "done; with `wait`: the job succeeded; with `plan`: the job fits without stopping anyone; "
    "with `rebalance`: there is nothing to move, or it was moved",
    ERROR: "an error without a number of its own; with `wait`: the job was lost, or cancelled by a user; "
    "with `plan`, `submit --dry-run`: the job can never run on this host, or this fleet as it is; "
    "with `plan --batch`: a line was bad; with `doctor`: something is bad; "
    "with `install`, `uninstall`: a program of the system refused its part",
    USAGE: "the command line is wrong",
    NOT_FOUND: "the job, GPU, host or file does not exist; "
    "of several jobs: one at least, and it was done with the others, as far as possible",
    CONFLICT: "not possible in the present state, for example: the job has ended; "
    "of several jobs: of one at least, and it was done with the others; "
    "`install`: no systemd, a package of the system, programs that others can change; `uninstall`: jobs run",
    WOULD_PREEMPT: "`plan`: the job fits if others are stopped; `rebalance`: jobs would be moved",
    WOULD_WAIT: "`plan`: the job would wait; `rebalance`: no moves bring so many GPUs together",
    BAD_DATA: "a file is damaged: a matrix, a host document, a job file; the configuration has mistakes",
    UNAVAILABLE: "topod, the container engine or the driver does not answer",
    STORE: "topod cannot read or write its state; or the output, or a file of `install`, cannot be written "
    "(a full disk, one that is read only)",
    PREEMPTED: "`wait`, `run`: the job was stopped for another one and does not run again",
    PROTOCOL: "topod sent something that this topoctl cannot read",
    NOT_ALLOWED: "not allowed: the user lacks the role, or the host's policy forbids what the job asks for",
    NOT_STARTED: "`run`: topod or the container engine could not start the job, or lost it",
    CANNOT_RUN: "`run`: the command was found and cannot be run",
    COMMAND_NOT_FOUND: "`run`: there is no such command in the job's container, or on the host",
    HUNG_UP: "the terminal of `topoctl top` went away",
    INTERRUPTED: "interrupted with Ctrl-C",
    PIPE: "the reader of the output went away, as with `head`",
}
