"""What `topoctl doctor` makes of the troubles that a topod or a coordinator tells of itself."""

from typing import Literal

from topod.protocol.replies import Welcome


def judged(welcome: Welcome) -> tuple[Literal["ok", "warn", "bad"], str]:
    """Return how bad its troubles are, and what to do about the worst."""
    if not welcome.troubles:
        return "ok", ""
    if any(trouble.startswith("port:") for trouble in welcome.troubles):
        return "bad", "mend the file that is named: until then nobody new is let in, and nobody is put out"
    store = next((trouble for trouble in welcome.troubles if trouble.startswith("store:")), "")
    if store.startswith("store: etcd"):
        return "bad", "etcdctl endpoint health: most of its members must be up, and in reach from here"
    if store:
        # A file that somebody took away is no matter of room.
        look = "ls -li" if "while topod has it open" in store else "df -h"
        return "warn", f"{look} {welcome.state_dir}"
    if all(trouble.startswith("clock:") for trouble in welcome.troubles):
        return "warn", "sudo timedatectl set-ntp true"
    return "warn", f"journalctl -u topod{'-coordinator' if welcome.fleet else ''}"
