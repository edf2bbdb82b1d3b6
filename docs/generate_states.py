"""Write the state diagram into docs/architecture.md, from the table that the code uses.

Usage: python docs/generate_states.py [--check]
"""

import sys
from pathlib import Path

from topod.lifecycle.states import ENDED, JobState
from topod.lifecycle.transitions import TRANSITIONS

PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- states:begin -->", "<!-- states:end -->"


def diagram() -> str:
    """Return the mermaid diagram of `TRANSITIONS`."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {JobState.PENDING.value}"]
    for state in JobState:
        lines += [f"    {state.value} --> {other.value}" for other in JobState if other in TRANSITIONS[state]]
        if state in ENDED:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join([*lines, "```"])


def page(text: str) -> str:
    """Return the page with the diagram between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


def main() -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    text = PAGE.read_text()
    if "--check" in sys.argv:
        return int(page(text) != text)
    PAGE.write_text(page(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
