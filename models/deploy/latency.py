"""Time of one image, for several models in turn, so that a busy machine slows all of them.

milliseconds = measure_milliseconds({"fp32": run_float, "int8": run_small})
"""

import time
from collections.abc import Callable, Mapping
from statistics import median

_WARM_UP, _ROUNDS, _BURST = 5, 15, 20


def measure_milliseconds(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int = _ROUNDS,
    seconds: float = 20.0,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, float]:
    """Milliseconds of each way: the smallest of the medians of its bursts, since what else a machine does can only
    lengthen one. Bursts and not single calls: the first calls after another way's find its weights in no cache.

    Each of at most `rounds` rounds has one burst of every way; no round is begun after `seconds`. progress: called with
    1 after each round.
    """
    bursts: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(_WARM_UP):
            way()
    begin = time.perf_counter()
    for _ in range(rounds):
        for name, way in ways.items():
            bursts[name].append(median(_seconds(way) for _ in range(_BURST)))
        progress(1)
        if time.perf_counter() - begin > seconds:
            break
    return {name: 1000 * min(medians) for name, medians in bursts.items()}


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin
