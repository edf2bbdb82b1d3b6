"""Makes the evidence again and writes its tables into docs/evidence.md: `python -m bench.evidence`."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from bench.evidence.paper import MIXES, Mix, Row, check, run
from bench.evidence.traces import plot
from topoctl.simulate.figures import FIGURES, Figure, Mean
from topoctl.simulate.files import read_worth
from topoctl.simulate.runs import live_all
from topoctl.simulate.text import told
from topod.simulate.policies.exact import Exact
from topod.simulate.policies.paper import Reprieve

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "evidence.md"
SHARED: Final = ROOT.parent / "shared"
LOADS: Final = (0.7, 1.0, 1.3)
QUICK: Final = 100
"""From fewer preemptions than these the tables are a look only."""
POLICIES: Final = ("topod", "topod-best-effort", "imp", "reprieve", "slurm", "slurm-plain", "kube", "nomad")
TOLD: Final = (
    *("preemptions", "satisfied", "victims", "idled", "lost", "speed", "wait_high_p95", "missed"),
    *("wait_low_median", "useful", "fragmentation"),
)


def _paper(task: tuple[Mix, str, int, int, bool]) -> tuple[Row, int, int]:
    mix, driver, hosts, preemptions, published = task
    made = Exact() if driver == "topod" else Reprieve()
    row = run(mix, made, hosts=hosts, preemptions=preemptions, published=published)
    return row, *check(row)


def paper_tables(many: int) -> Iterator[tuple[str, str]]:
    """Yield the tables of the paper's scenario, with their names, from so many preemptions of each mix."""
    few = max(20, min(many // 10, 100))
    states = [(mix, driver, 41, many, False) for mix in MIXES for driver in ("reprieve", "topod")]
    larger = [(mix, "reprieve", 100, many, False) for mix in MIXES[1:2]]
    searches = [(mix, "reprieve", hosts, few, True) for hosts in (41, 100) for mix in MIXES]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(_paper, [*states, *larger]))
        timed = list(pool.map(_paper, searches))
    yield "paper-hits", _hits([*zip([*states, *larger], done, strict=True)])
    yield "paper-same-states", _same([*zip([*states, *larger], done, strict=True)])
    yield "paper-search", _search([*zip(searches, timed, strict=True)])


Done = Sequence[tuple[tuple[Mix, str, int, int, bool], tuple[Row, int, int]]]


def _hits(rows: Done) -> str:
    heads = ["mix", "hosts, driven by", "preemptions", "blind, devices by number", "blind, best devices"]
    heads += ["the same, the paper's hit", "IMP", "topod"]
    cells = []
    for (_, driver, hosts, _, _), (row, _, _) in rows:
        feasible = [case for case in row.cases if case["topod"].found]
        shares = [
            f"{sum(case[name].satisfied for case in feasible) / len(feasible):.1%}"
            for name in ("kube", "reprieve", "imp", "topod")
        ]
        hit = f"{sum(case['reprieve'].paper_hit for case in feasible) / len(feasible):.1%}"
        cells.append([row.mix, f"{hosts}, {driver}", f"{len(row.cases):,}", *shares[:2], hit, *shares[2:]])
    return _table(heads, cells)


def _same(rows: Done) -> str:
    heads = ["mix", "hosts, driven by", "victims: blind, IMP, exhaustive, topod", "GPUs idled: the same"]
    heads += ["topod cheaper", "dearer", "more idled for fewer or lesser victims"]
    names = ("reprieve", "imp", "exhaustive", "topod")
    cells = []
    for (_, driver, hosts, _, _), (row, cheaper, idled) in rows:
        victims = ", ".join(f"{row.mean(name, lambda one: one.victims):.2f}" for name in names)
        wasted = ", ".join(f"{row.mean(name, lambda one: one.idled):.2f}" for name in names)
        cells.append([row.mix, f"{hosts}, {driver}", victims, wasted, f"{cheaper:,}", "0", f"{idled:,}"])
    return _table(heads, cells)


def _search(rows: Done) -> str:
    heads = [
        "mix",
        "hosts",
        "exhaustive, IMP as published",
        "IMP saves",
        "IMP on bit masks",
        "topod",
        "topod is faster",
    ]
    cells = []
    for (_, _, hosts, _, _), (row, _, _) in rows:
        exhaustive, imp = (row.milliseconds(f"{name}, as published") for name in ("exhaustive", "imp"))
        masks, exact = row.milliseconds("imp"), row.milliseconds("topod")
        times = (
            f"{exhaustive:.1f}, {imp:.1f} ms",
            f"{1 - imp / exhaustive:.0%}",
            f"{masks:.2f} ms",
            f"{exact:.2f} ms",
        )
        cells.append([row.mix, str(hosts), *times, f"{imp / exact:.1f} times"])
    return _table(heads, cells)


def trace_tables(many: int) -> Iterator[tuple[str, str]]:
    """Yield the tables of the measured traces; nothing where these are not there."""
    if not (SHARED / "traces").is_dir():
        print("the traces (../shared/traces) are not beside this checkout: their tables stay as they are")
        return
    worth = read_worth(ROOT / "cli" / "topoctl" / "simulate" / "worth.toml")
    figures = [figure for figure in FIGURES if figure.key in TOLD]
    cells = []
    for load in LOADS[:1] if many < QUICK else LOADS:
        made = plot(SHARED, load, worth)
        results = {one.policy: one for one in live_all(made, POLICIES, [1], os.cpu_count() or 1)}
        for policy in POLICIES:
            found = results[policy].figures
            values = [
                told(figure, Mean(value=value)) if (value := found[figure.key]) is not None else "-"
                for figure in figures
            ]
            cells.append([f"{load:.0%}", policy, *values])
    yield "traces", _table(["batch load", "policy", *map(_heading, figures)], cells)


def _heading(figure: Figure) -> str:
    """Return what a figure is called where it does not stand below the one that it belongs to."""
    if not figure.text.startswith(" "):
        return figure.text
    above = next(one for one in FIGURES[FIGURES.index(figure) :: -1] if not one.text.startswith(" "))
    return f"{above.text.partition(',')[0]}, {figure.text.strip()}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write(tables: Iterator[tuple[str, str]]) -> None:
    """Put tables into the page, each between its marks."""
    for name, text in tables:
        page = PAGE.read_text(encoding="utf-8")
        place = re.search(rf"(?<=<!-- table: {name} -->\n).*?(?=\n<!-- end -->)", page, re.DOTALL)
        if place is None:
            raise SystemExit(f"{PAGE}: has no place for the table {name}")
        PAGE.write_text(page[: place.start()] + text + page[place.end() :], encoding="utf-8")
        print(f"\n{name}\n{text}", flush=True)


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preemptions", type=int, default=5000, metavar="N", help="of each mix")
    parser.add_argument("--quick", action="store_true", help="60 of each, and only show the tables")
    given = parser.parse_args()
    quick, many = given.quick, 60 if given.quick else given.preemptions
    began = time.monotonic()
    parts: tuple[Callable[[int], Iterator[tuple[str, str]]], ...] = (paper_tables, trace_tables)
    for part in parts:
        if quick:
            for name, text in part(many):
                print(f"\n{name}\n{text}", flush=True)
        else:
            write(part(many))
    print(
        f"\n{time.monotonic() - began:.0f} s; load of this machine {os.getloadavg()[0]:.1f}", file=sys.stderr
    )


if __name__ == "__main__":
    main()
