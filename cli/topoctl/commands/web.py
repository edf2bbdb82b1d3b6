"""`topoctl web`: the screens of `topoctl top` in a browser."""

from socket import SOCK_STREAM, getaddrinfo
from typing import Annotated

import typer

from topoctl import exit_codes
from topoctl.commands.top import watched
from topoctl.session import note, show
from topod.errors import UsageError

EXAMPLES = """
topoctl web
topoctl web --port 0
topoctl --host gpu-7 web
ssh -L 8000:127.0.0.1:8000 gpu-7 topoctl web
"""
OPTIONS = ("socket", "coordinator", "key", "coordinator_key", "host")


def web(
    ctx: typer.Context,
    *,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="Where browsers reach it.")
    ] = "127.0.0.1",
    allow_network: Annotated[
        bool, typer.Option("--allow-network", help="--listen may be an address that others reach.")
    ] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Whoever has the page may do what you may.")
    ] = False,
    sessions: Annotated[
        int, typer.Option("--sessions", min=1, max=100, help="So many browsers at a time.")
    ] = 8,
) -> int:
    """Show what `topoctl top` shows in a browser, to look only.

    Prints the address to open. The key in it lets in, and nobody else. Ctrl-C ends it; nothing that runs is
    touched.
    """
    try:
        from topotui.web.access import is_loopback
        from topotui.web.server import Settings, serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("aiohttp", "textual", "textual_serve", "rich"):
            raise
        raise UsageError(
            "the page needs textual-serve, which is not installed", hint="pip install 'topod[web]'"
        ) from None
    _check_address(listen)
    if not is_loopback(listen) and not allow_network:
        hint = f"--allow-network serves it all the same; safer: ssh -L {port}:127.0.0.1:{port} HOST"
        raise UsageError(f"--listen {listen}: others reach this address, and HTTP hides nothing", hint=hint)
    watched(ctx)
    settings = Settings(
        words=words(ctx, allow_changes=allow_changes), listen=listen, port=port, sessions=sessions
    )
    interrupted = serve(settings, lambda address: _told(address, listen, allow_changes=allow_changes))
    return exit_codes.INTERRUPTED if interrupted else exit_codes.OK


def _check_address(listen: str) -> None:
    try:
        getaddrinfo(listen, None, type=SOCK_STREAM)
    except (OSError, UnicodeError):  # a name may be one that IDNA refuses
        raise UsageError(
            f"--listen {listen}: neither an address nor a name that is known here", hint="127.0.0.1 or ::1"
        ) from None


def words(ctx: typer.Context, *, allow_changes: bool) -> list[str]:
    """Return the words of the `topoctl top` that asks whom this one was told to ask."""
    options = ctx.obj or {}
    said = [f"--{name.replace('_', '-')}={options[name]}" for name in OPTIONS if options.get(name)]
    return [*said, "top", *([] if allow_changes else ["--read-only"])]


def _told(address: str, listen: str, *, allow_changes: bool) -> None:
    from topotui.web.access import is_loopback

    show(f"{address}\n")
    if not is_loopback(listen):
        note(
            "warning: no encryption, and no login but the key in the address: who can read the network's"
            " traffic sees it, and is let in"
        )
    if allow_changes:
        note("warning: whoever has this address may cancel jobs, change priorities and drain, as you may")
    note("Ctrl-C ends it.")
