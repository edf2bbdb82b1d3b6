"""`topoctl uninstall`: undo what `topoctl install` did."""

from pathlib import Path
from typing import Annotated

import typer

from topoctl.commands.install import ApplyOption, RootOption
from topoctl.session import note, show

HINT = "topoctl drain --stop --reason ... ends them first, --leave-jobs leaves them alone"
EXAMPLES = """
topoctl uninstall
topoctl uninstall --apply
topoctl uninstall --apply --leave-jobs
topoctl uninstall --apply --purge
"""


def uninstall(
    *,
    apply: ApplyOption = False,
    leave_jobs: Annotated[
        bool, typer.Option("--leave-jobs", help="Also while jobs run; they go on, and nobody watches them.")
    ] = False,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Also remove the configuration, the keys, and all that topod knows."),
    ] = False,
    root: RootOption = Path("/"),
) -> None:
    """Undo what topoctl install did on this machine.

    Stops topod and the coordinator, and removes what was written and nobody changed. Prints each step,
    and changes nothing without --apply. The configuration, the keys and the state stay, and count again
    after another `topoctl install`. Refused while jobs run here.
    """
    from topoctl.install import uninstalling
    from topoctl.install.installing import need_root, need_systemd
    from topoctl.install.parts import program_folder
    from topoctl.install.running import jobs_left
    from topoctl.install.steps import System, carry_out
    from topod.errors import ConflictError

    system = System(root=root.absolute())
    if apply:
        need_root("uninstall")
        need_systemd(system)
    left = jobs_left(system)
    if left and apply and not leave_jobs:
        raise ConflictError(left, hint=HINT)
    todo = uninstalling.steps(system, program_folder(), purge=purge)
    if left:
        note(f"{left}; {'without topod nobody watches that' if leave_jobs else HINT}")
    for line in carry_out(todo, apply=apply):
        show(line)
    if not apply:
        show("\nNothing was changed; --apply does it.\n")
        return
    show("Done.")
    if rest := uninstalling.remains(system):
        show(" What remains:\n" + "".join(f"  {line}\n" for line in rest))
    else:
        show("\n")
    show("The groups topod and topod-admin and the user topod-coordinator stay: files may be theirs.\n")
