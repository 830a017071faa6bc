"""The mildest pruning that meets a budget, by bisection on what a candidate really costs.

rank = mildest_rank(cost_at, budget=60e6, ranks=range(1000), unit="MACs", way_out="lower --floor")
"""

import math
from collections.abc import Callable, Sequence

from models.errors import ModelError


def mildest_rank(
    cost_at: Callable[[int], float], *, budget: float, ranks: Sequence[int], unit: str, way_out: str
) -> int:
    """The first of the ascending `ranks` whose cost is within the budget; costs fall as ranks rise.

    way_out: what makes smaller costs reachable. Raises ModelError with it and the smallest reachable cost where even
    the last is above.
    """
    smallest = cost_at(ranks[-1])
    if smallest > budget:
        raise ModelError(
            f"a budget of {exact(budget)} {unit} cannot be reached: with these limits the smallest is "
            f"{attainable(smallest, unit)}; {way_out}"
        )
    low, high = 0, len(ranks) - 1  # the last is known to be good
    while low < high:
        middle = (low + high) // 2
        if cost_at(ranks[middle]) <= budget:
            high = middle
        else:
            low = middle + 1
    return ranks[high]


def attainable(cost: float, unit: str) -> str:
    """A cost with its unit, in a number that can be asked for: counts in full, milliseconds rounded up."""
    return f"{math.ceil(1000 * cost) / 1000:,.3f} ms" if unit == "ms" else f"{math.ceil(cost):,} {unit}"


def exact(budget: float) -> str:
    """All digits, as they were asked for."""
    return f"{budget:,.15g}"
