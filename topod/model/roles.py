"""What somebody may do, on a host or in a fleet."""

from enum import StrEnum


class Role(StrEnum):
    """What a caller may do; whoever may do more may do what stands before it."""

    VIEW = "view"
    """See jobs, the host and its story."""
    SUBMIT = "submit"
    """Queue jobs; cancel, reprioritise and read one's own."""
    ADMINISTER = "administer"
    """Everything, others' jobs included."""
