"""A Typer group that imports a command's module only when that command runs.

Rule: `topoctl ps` must not pay for what `topoctl doctor` needs.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from topod.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a command lives: `module` of `topoctl.commands`, with a function and `EXAMPLES`."""

    module: str
    function: str
    examples: str = "EXAMPLES"
    negative: bool = False
    """An argument may be a negative number, which looks like an option."""
    rest_is_command: bool = False
    """What follows the first positional argument belongs to the job's command, options included."""
    group: str = ""
    """It has commands of its own: the name of their `Entry`s in `GROUPS`; `function` holds its help."""
    offline: bool = False
    """It asks no topod, so it has no options that name one."""


COMMANDS: dict[str, Entry] = {
    "submit": Entry(module="submit", function="submit", rest_is_command=True),
    "run": Entry(module="run", function="run", rest_is_command=True),
    "plan": Entry(module="plan", function="plan", rest_is_command=True),
    "ps": Entry(module="ps", function="ps"),
    "show": Entry(module="show", function="show"),
    "logs": Entry(module="logs", function="logs"),
    "exec": Entry(module="exec", function="execute", rest_is_command=True),
    "wait": Entry(module="wait", function="wait"),
    "cancel": Entry(module="cancel", function="cancel"),
    "requeue": Entry(module="requeue", function="requeue"),
    "priority": Entry(module="priority", function="priority", negative=True),
    "history": Entry(module="history", function="history"),
    "report": Entry(module="report", function="report"),
    "simulate": Entry(module="simulate", function="simulate", offline=True),
    "quota": Entry(module="quota", function="quota"),
    "topo": Entry(module="topo", function="topo"),
    "events": Entry(module="events", function="events"),
    "top": Entry(module="top", function="top"),
    "web": Entry(module="web", function="web"),
    "drain": Entry(module="drain", function="drain", examples="DRAIN_EXAMPLES"),
    "resume": Entry(module="drain", function="resume", examples="RESUME_EXAMPLES"),
    "rebalance": Entry(module="rebalance", function="rebalance"),
    "doctor": Entry(module="doctor", function="doctor"),
    "support-bundle": Entry(module="support_bundle", function="support_bundle"),
    "hosts": Entry(module="hosts", function="hosts"),
    "host": Entry(module="host", function="host", group="host"),
    "keys": Entry(module="keys", function="keys", group="keys"),
    "install": Entry(module="install", function="install", offline=True),
    "uninstall": Entry(module="uninstall", function="uninstall", offline=True),
    "config": Entry(module="config", function="config", group="config"),
    "completion": Entry(module="completion", function="completion"),
}
GROUPS: dict[str, dict[str, Entry]] = {
    "config": {
        "show": Entry(module="config", function="show_config", examples="SHOW_EXAMPLES"),
        "check": Entry(module="config", function="check", examples="CHECK_EXAMPLES", offline=True),
    },
    "host": {
        "drain": Entry(module="host", function="drain", examples="DRAIN_EXAMPLES"),
        "resume": Entry(module="host", function="resume", examples="RESUME_EXAMPLES"),
        "label": Entry(module="host", function="label", examples="LABEL_EXAMPLES"),
        "remove": Entry(module="host", function="remove", examples="REMOVE_EXAMPLES"),
    },
    "keys": {
        "new": Entry(module="keys", function="new", examples="NEW_EXAMPLES", offline=True),
        "show": Entry(module="keys", function="show_key", examples="SHOW_EXAMPLES", offline=True),
        "authorize": Entry(module="keys", function="authorize", examples="AUTHORIZE_EXAMPLES", offline=True),
        "revoke": Entry(module="keys", function="revoke", examples="REVOKE_EXAMPLES", offline=True),
        "list": Entry(module="keys", function="list_keys", examples="LIST_EXAMPLES", offline=True),
    },
}


class Command(TyperCommand):
    """A command whose help ends with examples, printed as they are written."""

    examples = ""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples under a heading, without wrapping them."""
        del ctx
        _write_examples(self.examples, formatter)


def _write_examples(examples: str, formatter: Any) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"  {line}\n" if line else "\n")


class LazyGroup(TyperGroup):
    """The commands of `entries`, built when asked for."""

    entries = COMMANDS
    words = "topoctl"
    """What stands before a command's name."""
    examples = ""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every command, in the order of the help page."""
        del ctx
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the named command, or None."""
        del ctx
        entry = self.entries.get(cmd_name)
        return None if entry is None else build(cmd_name, entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names; an unknown one is refused with the nearest."""
        if args[0] not in self.entries and not ctx.resilient_parsing and not args[0].startswith("-"):
            nearest = get_close_matches(args[0], self.entries, n=1, cutoff=0.5)
            hint = f"did you mean `{self.words} {nearest[0]}`?" if nearest else f"{self.words} --help"
            raise UsageError(f"no such command: {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, as a command does."""
        del ctx
        _write_examples(self.examples, formatter)


def build(name: str, entry: Entry) -> Command | LazyGroup:
    """Import one command's module and make the command, or the group of commands, of it."""
    module = importlib.import_module(f"topoctl.commands.{entry.module}")
    function: Callable[..., Any] = getattr(module, entry.function)
    return _group(name, entry, function, module) if entry.group else _command(name, entry, function, module)


def _group(name: str, entry: Entry, function: Callable[..., Any], module: ModuleType) -> LazyGroup:
    class Group(LazyGroup):
        entries = GROUPS[entry.group]
        words = f"topoctl {name}"
        examples = getattr(module, entry.examples, "")

    app = typer.Typer(
        cls=Group,
        name=name,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(function)
    made = typer.main.get_command(app)
    assert isinstance(made, Group)
    return made


def _command(name: str, entry: Entry, function: Callable[..., Any], module: ModuleType) -> Command:
    one = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    settings = {"allow_interspersed_args": not entry.rest_is_command, "help_option_names": ["-h", "--help"]}
    settings["ignore_unknown_options"] = entry.negative
    one.command(name, cls=Command, context_settings=settings)(function)
    command = typer.main.get_command(one)
    assert isinstance(command, Command)
    command.examples = getattr(module, entry.examples, "")
    command.params.extend([] if entry.offline else _global_options())
    return command


def _global_options() -> list[TyperOption]:
    """Return the global options, so that they may also stand behind the command's name."""
    return [
        TyperOption(
            param_decls=["--socket"],
            help="Where topod listens.",
            metavar="PATH",
            expose_value=False,
            callback=_remember("socket"),
        ),
        TyperOption(
            param_decls=["--coordinator"],
            help="Where a fleet's coordinator listens.",
            metavar="TCP",
            expose_value=False,
            callback=_remember("coordinator"),
        ),
        TyperOption(
            param_decls=["--key"],
            help="Your key for it.",
            metavar="FILE",
            hidden=True,  # `topoctl --help` has it
            expose_value=False,
            callback=_remember("key"),
        ),
        TyperOption(
            param_decls=["--coordinator-key"],
            help="Its public key.",
            metavar="KEY|FILE",
            hidden=True,
            expose_value=False,
            callback=_remember("coordinator_key"),
        ),
        TyperOption(
            param_decls=["--no-color"],
            is_flag=True,
            default=False,
            help="Plain text (also: NO_COLOR=1).",
            expose_value=False,
            callback=_remember("no_color"),
        ),
    ]


def _remember(key: str) -> Callable[[Any, Any, Any], None]:
    def keep(ctx: Any, _param: Any, value: Any) -> None:
        if value:
            ctx.ensure_object(dict)[key] = value

    return keep
