"""The mildest pruning that meets a budget, by bisection on what a candidate really costs.

rank = mildest_rank(cost_at, budget=60e6, ranks=range(1000), unit="MACs")
"""

from collections.abc import Callable, Sequence

from models.errors import ModelError


def mildest_rank(cost_at: Callable[[int], float], *, budget: float, ranks: Sequence[int], unit: str) -> int:
    """The first of the ascending `ranks` whose cost is within the budget; costs fall as ranks rise.

    Raises ModelError with the smallest reachable cost where even the last is above.
    """
    smallest = cost_at(ranks[-1])
    if smallest > budget:
        raise ModelError(
            f"a budget of {budget:,.6g} {unit} cannot be reached: with these floors and limits the smallest is "
            f"{smallest:,.6g} {unit}; lower --floor or --multiple, raise --max-layer-ratio, or prune more --kinds"
        )
    low, high = 0, len(ranks) - 1  # the last is known to be good
    while low < high:
        middle = (low + high) // 2
        if cost_at(ranks[middle]) <= budget:
            high = middle
        else:
            low = middle + 1
    return ranks[high]
