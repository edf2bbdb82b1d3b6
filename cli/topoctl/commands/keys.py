"""`topoctl keys`: the keys of hosts, users and coordinators, and the file of those who may connect."""

import time
from pathlib import Path
from typing import Annotated

import typer

from topoctl.render.style import printable
from topoctl.render.table import Column, table
from topoctl.session import Output, OutputOption, note, show, show_json, style
from topod.errors import UsageError

EXAMPLES = """
topoctl keys new node-a --host --out /etc/topod/host.key
topoctl keys authorize node-a.pub --as host:node-a --in authorized_keys
topoctl keys list --in /etc/topod/authorized_keys
"""
NEW_EXAMPLES = """
topoctl keys new alice --out ~/.config/topod/alice.key > alice.pub
topoctl keys new node-a --host --out /etc/topod/host.key
topoctl keys new fleet --coordinator --out /etc/topod/coordinator.key
"""
SHOW_EXAMPLES = """
topoctl keys show /etc/topod/coordinator.key > coordinator.pub
"""
AUTHORIZE_EXAMPLES = """
topoctl keys authorize node-a.pub --as host:node-a --in authorized_keys
topoctl keys authorize alice.pub --as user:alice --roles submit \\
    --max-priority normal --in authorized_keys
"""
REVOKE_EXAMPLES = """
topoctl keys revoke user:alice --in authorized_keys
topoctl keys revoke 'topod-public:...' --in authorized_keys
"""
LIST_EXAMPLES = """
topoctl keys list --in /etc/topod/authorized_keys
topoctl keys list --in authorized_keys -o json | jq -r '.[] | .who'
"""
AuthorizedOption = Annotated[
    Path,
    typer.Option("--in", metavar="AUTHORIZED", help="The coordinator's file of keys.", show_default=False),
]


def keys() -> None:
    """Make keys, and say who may connect to a coordinator."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the host or the user.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where it is kept.", show_default=False)],
    host: Annotated[bool, typer.Option("--host", help="A host's key.")] = False,
    user: Annotated[bool, typer.Option("--user", help="A user's key (the default).")] = False,
    coordinator: Annotated[bool, typer.Option("--coordinator", help="A coordinator's own key.")] = False,
) -> None:
    """Make a private key in a file that only you can read.

    Its public line goes to stdout: give that to who keeps the coordinator's file. The private key leaves the
    machine never; a file that exists is never overwritten.
    """
    from topod.adapters.curve_keys import create_key_file, public_line
    from topod.protocol.curve import KeyLine, Kind, check_name

    if host + user + coordinator > 1:
        raise UsageError("a key is for one of --host, --user and --coordinator")
    kind = Kind.HOST if host else Kind.COORDINATOR if coordinator else Kind.USER
    try:
        pair = create_key_file(out, kind, check_name(name))
    except ValueError as error:
        raise UsageError(str(error)) from None
    show(public_line(KeyLine(public=pair.public, kind=kind, name=name)) + "\n")


def show_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of a key.", show_default=False)],
) -> None:
    """Print the public line of a key file, private or public."""
    from topod.adapters.curve_keys import public_line, read_key_file

    show(public_line(read_key_file(file)) + "\n")


def authorize(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="With the public line; - reads stdin.", show_default=False),
    ],
    *,
    who: Annotated[
        str,
        typer.Option("--as", metavar="WHO", help="host:NAME or user:NAME.", show_default=False),
    ],
    authorized: AuthorizedOption,
    roles: Annotated[
        str | None,
        typer.Option(
            "--roles", metavar="ROLES", help="Of a user: view,submit,administer.", show_default=False
        ),
    ] = None,
    max_priority: Annotated[
        str | None,
        typer.Option(
            "--max-priority", metavar="LEVEL", help="The most a user may ask for.", show_default=False
        ),
    ] = None,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Why.", show_default=False)] = "",
) -> None:
    """Let the owner of a key connect.

    A coordinator that runs reads its file again within a second or two.
    """
    from topod.adapters import authorized as known
    from topod.adapters.curve_keys import read_key_file
    from topod.protocol import jobfields
    from topod.protocol.curve import Kind

    line = read_key_file(file)
    try:
        kind, name = known.parse_who(who)
        if kind is Kind.USER and roles is None:
            raise UsageError("--roles: a user needs some", hint="--roles view,submit")
        if kind is not Kind.USER and (roles is not None or max_priority is not None):
            raise UsageError("--roles and --max-priority are for users; a host has none")
        if line.kind is not None and (line.kind, line.name) != (kind, name):
            raise UsageError(
                f"{file} says that it is the key of {line.kind} {line.name}, not of {who}",
                hint="a mistaken file, or remove these words from its line",
            )
        entry = known.Entry(
            public=line.public,
            kind=kind,
            name=name,
            roles=frozenset() if roles is None else known.parse_roles(roles),
            max_priority=None if max_priority is None else jobfields.priority(max_priority),
            comment=" ".join([f"added {time.strftime('%Y-%m-%d')}", *comment.split()]),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    known.authorize(authorized, entry)
    note(f"{entry.who} may connect")


def revoke(
    who: Annotated[
        list[str],
        typer.Argument(metavar="WHO...", help="host:NAME, user:NAME, or a public key.", show_default=False),
    ],
    *,
    authorized: AuthorizedOption,
) -> None:
    """Let somebody connect no more.

    All keys of that name, or the one that is named. A coordinator that runs cuts the connection within a
    second or two. Jobs go on: cancel them by themselves.
    """
    from topod.adapters import authorized as known

    for entry in known.revoke(authorized, who):
        note(f"{entry.who} ({entry.public[:8]}...) may connect no more")


def list_keys(
    ctx: typer.Context, *, authorized: AuthorizedOption, output: OutputOption = Output.TABLE
) -> None:
    """Show who may connect."""
    from topod.adapters.authorized import read_authorized
    from topod.protocol.curve import PUBLIC

    entries = list(read_authorized(authorized).values())
    match output:
        case Output.JSON:
            show_json(
                [
                    {
                        "who": one.who,
                        "key": PUBLIC + one.public,
                        "roles": sorted(one.roles),
                        "max_priority": one.max_priority,
                        "comment": one.comment,
                    }
                    for one in entries
                ]
            )
        case Output.NAME:
            show("".join(f"{one.who}\n" for one in entries))
        case _:
            columns = [Column(head=head) for head in ("WHO", "ROLES", "UP TO", "KEY", "COMMENT")]
            rows = [
                [
                    one.who,
                    ",".join(role for role in ("view", "submit", "administer") if role in one.roles) or "-",
                    "-" if one.max_priority is None else str(one.max_priority),
                    PUBLIC + one.public if output is Output.WIDE else one.public[:8] + "...",
                    printable(one.comment),
                ]
                for one in entries
            ]
            show(table(columns, rows, style(ctx), whole=output is Output.WIDE))
