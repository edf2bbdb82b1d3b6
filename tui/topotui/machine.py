"""The picture of one machine as text: sockets, NUMA nodes with their cores, GPUs as tiles, what joins them.

Every colour has a letter or a sign beside it, so that nothing is said by colour alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from topod.model.links import LinkClass
from topod.model.topology import NumaNode, Topology
from topotui.blocks import (
    Block,
    Line,
    Part,
    above,
    beside,
    block,
    fit,
    flow,
    flowing,
    folded,
    indent,
    text_of,
)
from topotui.cores import cores_of, owners, strip, taken_cpus
from topotui.islands import Switch, island_lines, islands, other_nics, sections, switches
from topotui.palette import BAD, FRAME, FREE, LINK_COLORS, TAKEN
from topotui.picture import Picture
from topotui.tiles import BIG, GIB, SMALL, GpuNow, Marks, notes, tile

NOTHING: Final = Marks()
NARROW: Final = 44
"""A NUMA node in fewer columns says its CPUs in a line of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much is drawn: big tiles; lines below them for NVLink islands, for PCIe bridges in a row (PXB)."""

    big: bool
    islands: bool
    bridges: bool


DETAILS: Final = (
    Detail(big=True, islands=True, bridges=True),
    Detail(big=False, islands=True, bridges=True),
    Detail(big=False, islands=False, bridges=True),
    Detail(big=False, islands=False, bridges=False),
)
"""The first that fits the screen is drawn; else the last."""


def machine(picture: Picture, width: int, height: int = 0, marks: Marks = NOTHING) -> Text:
    """Return the machine in at most `width` columns, as large as `height` lines allow.

    `marks`: what a plan would do.
    """
    return text_of(machine_block(picture, width, height, marks))


def machine_block(picture: Picture, width: int, height: int = 0, marks: Marks = NOTHING) -> Block:
    """Return the machine as a block, see `machine`."""
    topology = picture.topology
    if topology is None:
        return block([[("waiting for topod ...", "dim")]])
    for detail in DETAILS[:-1]:
        drawn = _Drawing(picture, topology, marks, detail, width).whole()
        if drawn.height <= height and drawn.width <= width:
            return drawn
    return _Drawing(picture, topology, marks, DETAILS[-1], width).whole()


class _Drawing:
    """One picture being drawn at one level of detail."""

    def __init__(
        self, picture: Picture, topology: Topology, marks: Marks, detail: Detail, width: int
    ) -> None:
        held = owners(topology, picture.running(), picture.about.foreign_cpus)
        self.picture = picture
        self.topology = topology
        self.marks = marks
        self.detail = detail
        self.width = width
        self.held = taken_cpus(held)
        self.foreign = taken_cpus([(owner, who) for owner, who in held if owner.letter == "!"])
        self.island_of = {gpu: one.letter for one in islands(topology) for gpu in one.gpus}
        self.names = {job.id: job.name for job in picture.jobs.values()}

    def whole(self) -> Block:
        parts = [self._section(title, nodes) for title, nodes in sections(self.topology)]
        known = {node.id for node in self.topology.numa_nodes}
        loose = [gpu.index for gpu in self.topology.gpus if gpu.numa_node not in known]
        if loose or not parts:
            title = "GPUs whose NUMA node is unknown" if self.topology.numa_nodes else ""
            parts.append(self._loose(title, loose))
        sides = flow(parts, self.width, 2) if len(parts) == 2 else above(parts)
        return above([sides, *self._below()])

    def _section(self, title: str, nodes: Sequence[NumaNode]) -> Block:
        inside = self.width - 1
        blocks = self._alike(nodes, inside)
        body = indent(above(flow(row, inside, 1) for row in blocks if row))
        if not title:
            return body
        rule = [(f"━━ {title} ", "bold"), ("━" * max(2, body.width - len(title) - 4), FRAME)]
        return above([block([rule]), body])

    def _alike(self, nodes: Sequence[NumaNode], inside: int) -> tuple[list[Block], list[Block]]:
        """Return the nodes of a socket with GPUs and those without.

        Each is as wide as a row of tiles, so that they stand in columns.
        """
        gpus = {
            node.id: [gpu.index for gpu in self.topology.gpus if gpu.numa_node == node.id] for node in nodes
        }
        most = max((len(own) for own in gpus.values()), default=0)
        tile_width = BIG if self.detail.big else SMALL
        across = self._across(most, inside)
        width = max(tile_width, across * (tile_width + 1) - 1)
        if most == 0 or (len(nodes) == 1 and width < NARROW):
            width = min(inside, 76) if len(nodes) < 3 else NARROW - 8
        drawn = {node.id: self._node(node, gpus[node.id], width, across) for node in nodes}
        return [drawn[one] for one in drawn if gpus[one]], [drawn[one] for one in drawn if not gpus[one]]

    def _across(self, count: int, inside: int) -> int:
        tile_width = BIG if self.detail.big else SMALL
        across = max(1, min(count, (inside + 1) // (tile_width + 1)))
        return next(number for number in (8, 4, 2, 1) if number <= across) if across < count else across

    def _node(self, node: NumaNode, gpus: Sequence[int], width: int, across: int) -> Block:
        free = len(node.cpus - self.held)
        count = f"{free} of {len(node.cpus)} free" if node.cpus else ""
        memory = f"{node.memory_bytes / GIB:.0f} GiB" if node.memory_bytes else ""
        lines: list[Line] = []
        if width >= NARROW:
            words = [f"CPUs {node.cpus}" if node.cpus else "memory only", count, memory]
            told = "  " + "  ".join(filter(None, words))
            if len(told) > width - len(f"NUMA {node.id}"):
                told = told.removesuffix(memory).rstrip()
            lines.append([(f"NUMA {node.id}", "bold"), (told, "")])
        else:
            lines.append([(f"NUMA {node.id}  ", "bold"), (count.replace(" of ", "/") or memory, "")])
            lines += [[(f"CPUs {node.cpus}", "")]] if node.cpus else []
        signs = cores_of(self.topology, node.cpus) if node.cpus else []
        lines += strip(signs, self.held, self.foreign, self.marks.cpus & node.cpus, width) if signs else []
        if nics := [nic.name for nic in other_nics(self.topology, node.id)]:
            lines += flowing([[(word, "")] for word in ("NICs", *nics)], width, 1)
        return above([block(lines, width), *self._rows(gpus, across)])

    def _loose(self, title: str, gpus: Sequence[int]) -> Block:
        lines: list[Line] = [[(title, "bold")]] if title else []
        cpus = self.topology.cpus
        if not self.topology.numa_nodes and cpus:
            words = f"CPUs {cpus}  {len(cpus - self.held)} of {len(cpus)} free"
            lines.append([(words, "")])
            groups = cores_of(self.topology, cpus)
            lines += strip(groups, self.held, self.foreign, self.marks.cpus, min(76, self.width - 1))
        return indent(above([block(lines), *self._rows(gpus, self._across(len(gpus), self.width - 1))]))

    def _rows(self, gpus: Sequence[int], across: int) -> list[Block]:
        rows = []
        for start in range(0, len(gpus), max(1, across)):
            row = gpus[start : start + across]
            rows.append(beside([self._tile(index) for index in row]))
            rows += [block([line]) for line in self._brackets(row)]
        return rows

    def _tile(self, index: int) -> Block:
        picture = self.picture
        now = GpuNow(
            index=index,
            view=picture.gpus.get(index),
            reading=picture.readings.get(index),
            memory_bytes=self.topology.gpus[index].memory_bytes,
            island=self.island_of.get(index, ""),
            names=self.names,
        )
        return tile(now, self.marks, big=self.detail.big)

    def _brackets(self, row: Sequence[int]) -> list[Line]:
        """Return the lines below a row of tiles: what PCIe bridges join, NICs too, and what NVLink does."""
        lines = []
        near, far = (switches(self.topology, closest) for closest in (LinkClass.PIX, LinkClass.PXB))
        levels = [("PIX", near)] if near else []
        levels += [("PXB", far)] if far != near and (self.detail.bridges or not near) else []
        for name, groups in levels:
            line = self._bracket(row, [one.gpus for one in groups], _switch_words(name, groups), name)
            lines += [line] if line else []
        joined = islands(self.topology)
        if self.detail.islands and joined:

            def words(at: int) -> str:
                return f"NVLink {joined[at].letter} {joined[at].token}"

            line = self._bracket(row, [one.gpus for one in joined], words, "NV", "╘═╛")
            lines += [line] if line else []
        return lines

    def _bracket(
        self,
        row: Sequence[int],
        groups: Sequence[Sequence[int]],
        words: Callable[[int], str],
        kind: str,
        signs: str = "└─┘",
    ) -> Line:
        """Return one line: each run of neighbours that belong together underlined, with what joins them."""
        column = (BIG if self.detail.big else SMALL) + 1
        group_of = {gpu: at for at, group in enumerate(groups) for gpu in group}
        line: list[Part] = []
        start = 0
        while start < len(row):
            at = group_of.get(row[start])
            end = start + 1
            while end < len(row) and at is not None and group_of.get(row[end]) == at:
                end += 1
            span = (end - start) * column - 1
            if at is None:
                line.append((" " * span, ""))
            else:
                line.append((_underline(words(at), span, signs), LINK_COLORS[kind]))
            start = end
            if start < len(row):
                line.append((" ", ""))
        return line if group_of.keys() & set(row) else []

    def _below(self) -> list[Block]:
        lines: list[Line] = [[(words, LINK_COLORS["NV"])] for words in island_lines(self.topology)]
        if nics := [nic.name for nic in other_nics(self.topology, None)]:
            lines += flowing([[(word, "")] for word in ("NICs of no known NUMA node:", *nics)], self.width, 1)
        if not self.topology.gpus:
            lines.append([("no GPUs", FREE)])
        about = self.picture
        lines += [[(words, BAD)] for words in notes(about.gpus, about.readings)]
        if self.marks.taken or self.marks.stopped:
            legend: Line = [("★ what the job takes", TAKEN), ("   ", ""), ("✗ stopped for it", BAD)]
            lines.append(legend)
        return [above([folded(line, self.width) for line in lines])]


def _switch_words(kind: str, groups: Sequence[Switch]) -> Callable[[int], str]:
    def words(at: int) -> str:
        switch = groups[at]
        what = "PCIe switch" if kind == "PIX" else "PCIe bridges"
        return " ".join(["" if len(switch.gpus) == 1 else what, *switch.nics, kind]).strip()

    return words


def _underline(words: str, span: int, signs: str) -> str:
    left, line, right = tuple(signs)
    told = f" {fit(words, min(cell_len(words), span - 4))} " if span > 6 else ""
    rest = span - 2 - cell_len(told)
    return left + line * (rest // 2) + told + line * (rest - rest // 2) + right


def free_groups(picture: Picture) -> str:
    """Return how many GPUs are free."""
    free = [gpu.index for gpu in picture.gpus.values() if gpu.state == "free"]
    return f"{len(free)} of {len(picture.gpus)} GPUs free" if picture.gpus else ""
