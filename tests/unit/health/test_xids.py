"""The table of Xids: what the page for operators says of it, and what is not in it."""

import re
from pathlib import Path

import pytest

from topod.health.xids import CATALOGUE, CRITICAL, Clears, advised, clears

PAGE = Path(__file__).parents[3] / "docs" / "gpu-health.md"


@pytest.mark.parametrize(
    ("when", "begins"),
    [(Clears.IDLE, "| by itself"), (Clears.RESET, "| after a reboot"), (Clears.NEVER, "| only with")],
)
def test_the_page_for_operators_lists_the_table(when: Clears, begins: str) -> None:
    [row] = [line for line in PAGE.read_text().splitlines() if line.startswith(begins)]
    told = {int(number) for number in re.findall(r"\b\d+\b", row.split("|")[2])}
    assert told == {number for number, xid in CATALOGUE.items() if xid.clears is when}


def test_what_programs_cause_is_not_critical() -> None:
    assert not CRITICAL & {13, 31, 43, 45, 68, 69, 109, 137}


def test_an_xid_that_only_the_site_knows_waits_for_an_administrator() -> None:
    assert clears(999) is Clears.RESET
    assert advised(999) == "Xid 999: see NVIDIA's Xid catalogue; resume it when fit"
    assert advised(31).endswith("the site counts it as critical; resume it when fit")


def test_every_critical_xid_says_what_to_do() -> None:
    assert all(CATALOGUE[number].advice for number in CRITICAL)
