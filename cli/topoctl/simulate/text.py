"""The figures of a simulation as a table."""

from collections.abc import Mapping

from topoctl.render.style import Style
from topoctl.render.table import Column, table
from topoctl.simulate.figures import FIGURES, Figure, Mean
from topod.protocol.units import format_duration


def comparison(found: Mapping[str, Mapping[str, Mean | None]], style: Style) -> str:
    """Return one column for each policy, one row for each figure."""
    columns = [Column(head=""), *(Column(head=policy, right=True) for policy in found)]
    rows = [
        [figure.text, *(told(figure, values[figure.key]) for values in found.values())]
        for figure in FIGURES
        if any(values[figure.key] is not None for values in found.values())
    ]
    return table(columns, rows, style, whole=True)


def told(figure: Figure, mean: Mean | None) -> str:
    """Return a figure as people read it, with its confidence where there are several runs."""
    if mean is None:
        return "-"
    if mean.within is None:
        return number(figure, mean.value)
    return f"{number(figure, mean.value)} ±{number(figure, mean.within)}"


def number(figure: Figure, value: float) -> str:
    """Return a value in its unit."""
    if figure.unit == "%":
        return f"{value * 100:.1f}%"
    if figure.unit == "s":
        return format_duration(value)
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}"
