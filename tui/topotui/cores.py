"""The cores of a host and who holds them: as a strip in its picture, and as a map with a letter per job."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from string import ascii_uppercase
from typing import Final

from topoctl.render.jobs import ident, priority_name
from topoctl.render.style import printable
from topod.model.cpuset import NO_CPUS, CpuSet
from topod.model.topology import Topology
from topod.protocol.views import JobLine
from topotui.blocks import Block, Line, Part, above, block, fit, flow, folded, indent
from topotui.islands import islands, sections
from topotui.palette import BAD, FREE, TAKEN, color_of

EIGHT: Final = 8
"""So many cores stand together."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds CPUs: the letter and the colour of a job; foreign use has `!`."""

    letter: str
    style: str
    cpus: CpuSet


def owners(
    topology: Topology, jobs: Iterable[JobLine], foreign: Mapping[str, str]
) -> list[tuple[Owner, JobLine | str]]:
    """Return everybody who holds CPUs by themselves: jobs in the order of their numbers, then foreign use.

    No job has the letter of an NVLink island: both stand on one screen.
    """
    taken = {one.letter for one in islands(topology)}
    letters = cycle([letter for letter in ascii_uppercase if letter not in taken] or ascii_uppercase)
    found: list[tuple[Owner, JobLine | str]] = []
    for job in jobs:
        if job.cpu_list and job.state != "pending":
            owner = Owner(next(letters), color_of(job.priority), CpuSet.parse(job.cpu_list))
            found.append((owner, job))
    found += [(Owner("!", BAD, CpuSet.parse(cpus)), who) for cpus, who in foreign.items()]
    return found


def taken_cpus(held: Sequence[tuple[Owner, object]]) -> CpuSet:
    """Return all CPUs that somebody holds."""
    every = NO_CPUS
    for owner, _ in held:
        every |= owner.cpus
    return every


def cores_of(topology: Topology, area: CpuSet) -> list[list[CpuSet]]:
    """Return the cores among some CPUs by core group; without data a CPU is a core, the area one group."""
    cores = [core.cpus & area for core in topology.cores if core.cpus & area]
    if not cores:
        cores = [CpuSet.of([cpu]) for cpu in area]
    left = sorted(cores, key=lambda core: core.mask & -core.mask)
    groups = []
    for group in topology.core_groups:
        own = [core for core in left if core <= group.cpus]
        left = [core for core in left if not core <= group.cpus]
        groups += [own] if own else []
    return [*groups, left] if left else groups


def strip(
    groups: Sequence[Sequence[CpuSet]], held: CpuSet, foreign: CpuSet, planned: CpuSet, width: int
) -> list[Line]:
    """Return a sign for each core in as many lines as it takes: `▯` free, `▮` held, `▥` in part, `★` planned.

    Groups of cores are apart. Where not even a line of signs fits a group, it goes on in the next line.
    """
    lines: list[list[Part]] = [[]]
    used = 0
    for group in groups:
        for start in range(0, len(group), width):
            some = group[start : start + width]
            if used and used + 1 + len(some) > width:
                lines.append([])
                used = 0
            elif used:
                lines[-1].append((" ", ""))
                used += 1
            lines[-1] += _merged(_sign(core, held, foreign, planned) for core in some)
            used += len(some)
    return list(lines)


def core_map(topology: Topology, jobs: Iterable[JobLine], foreign: Mapping[str, str], width: int) -> Block:
    """Return which job holds which cores, by NUMA node and core group, and who is who below."""
    held = owners(topology, jobs, foreign)
    blocks: list[Block] = []
    if not topology.cpus:
        return block([[("the CPUs of this host are not known", FREE)]])
    placed = NO_CPUS
    for title, nodes in sections(topology):
        blocks += [block([[(title, "bold")]])] if title else []
        own = [node for node in nodes if node.cpus]
        placed |= _union(node.cpus for node in own)
        blocks.append(
            indent(
                flow(
                    [_area(topology, f"NUMA {one.id}", one.cpus, held, width - 1) for one in own],
                    width - 1,
                    3,
                )
            )
        )
    loose = topology.cpus - placed
    if loose:
        blocks.append(indent(_area(topology, "CPUs of no NUMA node", loose, held, width - 1)))
    key = "letter: a job's core, small: a part of it, ·: free, +: shared, !: foreign"
    return above([*blocks, folded([(key, FREE)], width)])


def holders(
    topology: Topology, jobs: Sequence[JobLine], foreign: Mapping[str, str], *, letters: bool
) -> Block:
    """Return who holds which GPUs and cores, a line each; `letters`: those of the map beside it."""
    letter_of = {
        who.id: one.letter
        for one, who in owners(topology, jobs, foreign)
        if letters and not isinstance(who, str)
    }
    lines: list[Line] = []
    for job in jobs:
        color = color_of(job.priority)
        line: list[Part] = [(f"{letter_of.get(job.id, ''):<2}", color)] if letters else []
        line.append((f"job {ident(job):<5} ", "bold"))
        line += [(f"{fit(printable(job.name), 16)} ", ""), (f"{priority_name(job.priority):<7}", color)]
        many = "" if len(job.gpu_indices) == 1 else "s"
        gpus = f"GPU{many} {CpuSet.of(job.gpu_indices)}" if job.gpu_indices else "no GPUs"
        line.append((f" {gpus:<13} CPUs {job.cpu_list or 'shared'}", ""))
        lines.append(line)
    lines += [[("! ", BAD), (f"foreign: {printable(who)}  CPUs {cpus}", "")] for cpus, who in foreign.items()]
    return block(lines or [[("no job holds anything", FREE)]])


def _area(
    topology: Topology, title: str, area: CpuSet, held: Sequence[tuple[Owner, object]], width: int
) -> Block:
    groups = cores_of(topology, area)
    free = len(area - taken_cpus(held))
    lines: list[Line] = [[(title, "bold"), (f"  CPUs {area}  {free} of {len(area)} free", "")]]
    named = [str(_union(group)) for group in groups]
    indentation = max(len(name) for name in named) + 3
    if len(groups) == 1 or indentation > width // 3:
        named, indentation = [""] * len(groups), 2
    # As many core groups beside one another as fit, with their CPUs before them.
    cells = max(_cells(len(group)) for group in groups)
    room = max(1, (width - indentation) * EIGHT // (EIGHT + 1) // EIGHT * EIGHT)
    row: list[Part] = []
    used = 0
    for name, group in zip(named, groups, strict=True):
        for start in range(0, len(group), room):
            some = group[start : start + room]
            if used and used + indentation + cells > width:
                lines.append(row)
                row, used = [], 0
            row.append((f"  {name if not start else '':<{indentation - 2}}", FREE))
            signs = _letters(some, held)
            row += signs
            row.append((" " * (cells - _cells(len(some))), ""))
            used += indentation + cells
    lines.append(row)
    return block(lines)


def _cells(count: int) -> int:
    return count + (count - 1) // EIGHT


def _letters(cores: Sequence[CpuSet], held: Sequence[tuple[Owner, object]]) -> list[Part]:
    parts: list[Part] = []
    for at, core in enumerate(cores):
        if at and not at % EIGHT:
            parts.append((" ", ""))
        parts.append(_letter(core, held))
    return _merged(parts)


def _letter(core: CpuSet, held: Sequence[tuple[Owner, object]]) -> Part:
    on_it = [owner for owner, _ in held if owner.cpus & core]
    if not on_it:
        return "·", FREE
    if len(on_it) > 1:
        return "+", BAD if any(owner.letter == "!" for owner in on_it) else "bold"
    one = on_it[0]
    return (one.letter if core <= one.cpus else one.letter.lower()), one.style


def _sign(core: CpuSet, held: CpuSet, foreign: CpuSet, planned: CpuSet) -> Part:
    if core & planned:
        return "★", TAKEN
    if core & foreign:
        return "!", BAD
    if not core & held:
        return "▯", FREE
    return ("▮" if core <= held else "▥"), "#56b4e9"


def _merged(parts: Iterable[Part]) -> list[Part]:
    """Return parts with neighbours of one style as one: less to draw."""
    merged: list[Part] = []
    for text, style in parts:
        if merged and merged[-1][1] == style:
            merged[-1] = merged[-1][0] + text, style
        else:
            merged.append((text, style))
    return merged


def _union(cores: Iterable[CpuSet]) -> CpuSet:
    every = NO_CPUS
    for core in cores:
        every |= core
    return every
