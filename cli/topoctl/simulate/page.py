"""The figures of a simulation as a page with charts, that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape

from topoctl.report.html import Cell, cards, page, paragraph, table
from topoctl.report.svg import Bar, bars
from topoctl.simulate.figures import FIGURES, Figure, Mean
from topoctl.simulate.text import number, told
from topod import __version__

CHARTS = (
    ("satisfied", "Preemptions whose job got the affinity it asked for", "green"),
    ("victims", "Victims a preemption", "orange"),
    ("idled", "GPUs that victims lost and nobody took, a preemption", "red"),
    ("lost", "Work lost, GPU-hours", "purple"),
    ("speed", "Speed that placement kept, by a model of links and NUMA distance", "yellow"),
    ("wait_high_p95", "Wait of high priority: 95 of 100 wait no longer", "blue"),
    ("wait_low_p95", "Wait of low priority: 95 of 100 wait no longer", "navy"),
    ("useful", "GPUs held for work that was kept", "green"),
    ("search_median", "Search for a place, ms (median)", "gray"),
)


def simulation_page(
    found: Mapping[str, Mapping[str, Mean | None]], about: Sequence[tuple[str, str, str]], command: str
) -> str:
    """Return the page; `about`: what was simulated, as large numbers."""
    by_key = {figure.key: figure for figure in FIGURES}
    body = "<header>\n<h1>Simulation</h1>\n</header>\n<main>\n" + cards(about)
    for key, title, paint in CHARTS:
        rows = [
            Bar(name=policy, parts=[(paint, mean.value)], text=_text(by_key[key], mean))
            for policy, values in found.items()
            if (mean := values[key]) is not None
        ]
        if rows:
            most = 1.0 if by_key[key].unit == "%" else None
            body += f"<section>\n<h2>{escape(title)}</h2>\n{bars(rows, title, most=most)}</section>\n"
    heads = ["", *found]
    cells: list[list[Cell]] = [
        [figure.text.strip(), *(told(figure, values[figure.key]) for values in found.values())]
        for figure in FIGURES
    ]
    whole = table(heads, cells, "Mean of the runs, 95 % confidence")
    body += f"<section>\n<h2>All figures</h2>\n{whole}</section>\n"
    foot = paragraph(f"Made by topoctl {__version__} with: {command}")
    return page("Simulation", f"{body}</main>\n<footer>{foot}</footer>")


def _text(figure: Figure, mean: Mean) -> str:
    return number(figure, mean.value)
