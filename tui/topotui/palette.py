"""The colours of the screens: Okabe and Ito's, that all can tell apart. Nothing is said by colour alone.

Vermilion and purple are shifted a little, so that a terminal of 16 colours shows red and magenta for them.
"""

from typing import Final

PRIORITY_COLORS: Final = ((1000, "#e69f00"), (500, "#56b4e9"), (0, "#009e73"))
"""From which priority on a tile has which colour."""
FREE: Final = "grey62"
BAD_COLOR: Final = "#e04a1f"
BAD: Final = f"bold {BAD_COLOR}"
TAKEN: Final = "bold #f0e442"
"""What a plan takes."""
FRAME: Final = "grey50"
LINK_COLORS: Final = {
    "NV": "#009e73",
    "PIX": "#56b4e9",
    "PXB": "#56b4e9",
    "PHB": "#e69f00",
    "NODE": "#e69f00",
    "SYS": "#c565c7",
}


def color_of(priority: int) -> str:
    """Return the colour of a priority."""
    return next(color for least, color in PRIORITY_COLORS if priority >= least) if priority >= 0 else FREE


def link_color(token: str) -> str:
    """Return the colour of a link class; dim for what is none."""
    return next((color for head, color in LINK_COLORS.items() if token.startswith(head)), "dim")
