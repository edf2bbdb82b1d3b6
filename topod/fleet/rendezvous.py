"""Where the members of a job over several hosts meet: an address of its first host, and a port there."""

from topod.fleet.draft import Draft

FIRST_PORT = 29500
PORTS = 500
"""So many from the first on, torchrun's default; below those that Linux gives to outgoing connections."""


def address_of(draft: Draft, host: str) -> str:
    """Return how the other hosts reach a host: as it says itself, else by its name."""
    record = draft.records.get(host)
    return host if record is None or not record.address else record.address


def free_port(draft: Draft, host: str, fence: int) -> int:
    """Return a port for a job whose first member is on `host`, that no other such job has now.

    It follows from the number of the assignment, so a start anew mostly gets another one: the old one may
    still be in use for a moment.
    """
    taken = {job.port for job in draft.jobs.on(host) if job.members and job.members[0].host == host}
    ports = (FIRST_PORT + (fence + more) % PORTS for more in range(PORTS))
    return next((port for port in ports if port not in taken), FIRST_PORT + fence % PORTS)
