"""The first tab of a host: its picture, its links, who holds which cores; all at once where there is room."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from textual import events
from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.message import Message

from topod.model.topology import Topology
from topod.protocol.views import JobLine
from topotui.blocks import Block, Part, block
from topotui.cores import core_map, holders
from topotui.drawn import Drawn
from topotui.links import matrix
from topotui.machine import machine_block
from topotui.picture import Picture
from topotui.tiles import gpu_at

VIEWS: Final = {
    "machine": ("m machine", ("machine", "holders")),
    "links": ("x links", ("matrix",)),
    "cores": ("c cores", ("cores", "holders")),
}
"""How a view is called on the screen, and what it shows."""
ALL: Final = ("machine", "cores", "holders", "matrix")
WIDE: Final = 150
"""From so many columns on everything stands side by side."""
LEFT: Final = 97
"""Columns of the picture then; as in top.tcss."""


class Machine(Drawn):
    """The picture of the machine; a tile is clicked to see whose it is."""

    def on_click(self, event: events.Click) -> None:
        gpu = gpu_at(self.block, event.x, event.y)
        if gpu is not None:
            self.post_message(HostPane.Clicked(gpu))


class HostPane(VerticalScroll, can_focus=True):
    """The machine, its links and its cores."""

    @dataclass
    class Clicked(Message):
        """Somebody clicked on a GPU."""

        gpu: int
        """Its index."""

    def __init__(self) -> None:
        super().__init__()
        self.view = "machine"
        self._picture: Picture | None = None
        self._made: dict[str, tuple[object, Block]] = {}

    def compose(self) -> ComposeResult:
        yield Drawn(id="views")
        with Container(id="both"):
            yield Machine(id="machine")
            with Vertical(id="right"):
                yield Drawn(id="cores")
                yield Drawn(id="holders")
                yield Drawn(id="matrix")

    def turn(self, view: str = "") -> None:
        """Show one of the views; without a name the next."""
        names = [*VIEWS]
        self.view = view or names[(names.index(self.view) + 1) % len(names)]
        self.scroll_home(animate=False)

    def on_resize(self) -> None:
        """Draw it as wide as it is now: while another tab was seen, the terminal may have changed."""
        if self._picture is not None:
            self.show(self._picture)

    def show(self, picture: Picture) -> None:
        """Draw what changed, of what is on the screen."""
        self._picture = picture
        wide = self.size.width >= WIDE
        self.set_class(wide, "wide")
        parts = ALL if wide else VIEWS[self.view][1]
        self.query_one("#views").display = not wide
        for name in ALL:
            self.query_one(f"#{name}").display = name in parts
        if not wide:
            self.query_one("#views", Drawn).draw(_titles(self.view))
        for name in parts:
            self.query_one(f"#{name}", Drawn).draw(self._part(name, picture, wide=wide))

    def _part(self, name: str, picture: Picture, *, wide: bool) -> Block:
        width = max(40, self.size.width - 1)
        left, right = (LEFT, width - LEFT - 3) if wide else (width, width)
        topology, jobs, foreign = picture.topology, picture.running(), picture.about.foreign_cpus
        if name == "machine":
            return machine_block(picture, left, self.size.height - (0 if wide else 1))
        if topology is None:
            return block([])
        # What these follow from; readings, which change most often, are no part of it.
        letters = wide or self.view == "cores"
        basis = (id(topology), right, letters, *(() if name == "matrix" else (jobs, dict(foreign))))
        made = self._made.get(name)
        if made is None or made[0] != basis:
            made = self._made[name] = (
                basis,
                self._drawn(name, topology, jobs, foreign, right, letters=letters),
            )
        return made[1]

    @staticmethod
    def _drawn(
        name: str,
        topology: Topology,
        jobs: list[JobLine],
        foreign: Mapping[str, str],
        right: int,
        *,
        letters: bool,
    ) -> Block:
        match name:
            case "cores":
                return core_map(topology, jobs, foreign, right)
            case "holders":
                return holders(topology, jobs, foreign, letters=letters)
            case _:
                return matrix(topology, right)


def _titles(active: str) -> Block:
    line: list[Part] = [(" ", "")]
    for name, (title, _) in VIEWS.items():
        chosen = name == active
        line.append((f"[{title}]" if chosen else f" {title} ", "bold reverse" if chosen else "dim"))
        line.append(("  ", ""))
    return block([[*line, ("v: the next", "dim")]])
