"""`topoctl install`: make topod a service of this machine."""

from pathlib import Path
from typing import Annotated

import typer

from topoctl.session import show

EXAMPLES = """
topoctl install
topoctl install --apply
topoctl install --coordinator --apply
"""
ApplyOption = Annotated[bool, typer.Option("--apply", help="Do it; else it is only told.")]
RootOption = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="The files of another machine, such as an image.")
]


def install(
    *,
    apply: ApplyOption = False,
    coordinator: Annotated[
        bool, typer.Option("--coordinator", help="A fleet's coordinator, not a host's topod.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Of the key; else the host's, or `fleet`.", show_default=False
        ),
    ] = None,
    root: RootOption = Path("/"),
) -> None:
    """Make topod a service of this machine.

    That is: its units, groups and folders, a configuration with every setting explained, and its key.
    Prints each step, and changes nothing without --apply. It may be done again at any time, and after
    an upgrade: what is as it should be stays, as do the configuration, keys, and units that somebody
    changed.
    """
    from topoctl.install import installing
    from topoctl.install.parts import check_programs, program_folder
    from topoctl.install.running import is_active
    from topoctl.install.steps import System, carry_out
    from topod import __version__
    from topod.protocol.curve import Kind

    system, kind = System(root=root.absolute()), Kind.COORDINATOR if coordinator else Kind.HOST
    if apply:
        installing.need_root("install")
        installing.need_systemd(system)
    programs = program_folder()
    check_programs(programs, coordinator=coordinator)
    todo = installing.steps(system, programs, kind, name)
    show(f"topod {__version__} of {programs}\n")
    for line in carry_out(todo, apply=apply):
        show(line)
    if not apply:
        show("\nNothing was changed; --apply does it.\n")
        return
    show("\nDone. Next:\n")
    unit = "topod-coordinator" if coordinator else "topod"
    for what, why in installing.next_words(system, kind, programs, active=is_active(system, unit)):
        show(f"  {what:<34} {why}\n")
