"""The command palette names what the keys do: on a host, and of a fleet."""

import pytest
from textual.binding import Binding
from textual.screen import Screen

from topotui.app import HostScreen
from topotui.commands import FleetCommands, HostCommands
from topotui.fleet import FleetScreen

HIDDEN = {"app.quit", "back", "view"}
"""Not in the palette: Textual's own command quits, Escape goes back, and views of the machine are on its tab."""


@pytest.mark.parametrize(("screen", "provider"), [(HostScreen, HostCommands), (FleetScreen, FleetCommands)])
def test_each_key_has_its_command_and_each_command_its_action(
    screen: type[Screen[None]], provider: type[HostCommands | FleetCommands]
) -> None:
    assert {provider} == screen.COMMANDS
    named = {action.partition("(")[0] for _, action, _ in provider.commands}
    assert not {name for name in named if not hasattr(screen, f"action_{name}")}
    keys = {key.action.partition("(")[0] for key in screen.BINDINGS if isinstance(key, Binding)}
    assert keys - HIDDEN == named
