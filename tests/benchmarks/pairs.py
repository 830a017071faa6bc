"""Two ways of doing the same work, timed in turn, so that a busy machine slows both.

ratio, interval = median_ratio(timed_in_turn([ours, theirs], rounds=30))
"""

import time
from collections.abc import Callable, Sequence

import numpy as np


def seconds_of(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def timed_in_turn(ways: Sequence[Callable[[], object]], *, rounds: int, warm: bool = False) -> np.ndarray:
    """Seconds, float64 [rounds, ways]. Who goes first changes from round to round. warm: each way is called once more,
    uncounted, right before: the others have taken its place in the processor's caches."""
    seconds = np.empty((rounds, len(ways)))
    for number in range(rounds):
        for place in range(len(ways)):
            way = (number + place) % len(ways)
            if warm:
                ways[way]()
            seconds[number, way] = seconds_of(ways[way])
    return seconds


def median_ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Median of one / other over the pairs, and the interval that holds 95 % of 2,000 bootstrapped medians."""
    ratios = one / other
    draws = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), (float(low), float(high))
