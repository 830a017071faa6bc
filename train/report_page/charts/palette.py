"""Colours and dashes by place: the palette of Okabe and Ito (2008), which colour-blind people can tell apart.

A line also has its own dash and a point its own shape, so that nothing hangs on colour alone.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DARK_COLOURS = ("#56B4E9", "#F0884A", "#2DC79A", "#E3A0C6", "#F0B73E", "#9AD0F0")  # lighter, for a dark page
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2")


def colour(place: int) -> str:
    """A CSS colour that follows the page's light or dark dress."""
    return f"var(--series-{place % len(COLOURS)})"


def dash(place: int) -> str | None:
    """The dash pattern; every further round of the colours shifts it."""
    return _DASHES[(place + place // len(COLOURS)) % len(_DASHES)] or None
