"""Time of one image on one thread, for several models in turn, so that a busy machine slows all of them.

milliseconds = measure_latency({"fp32": run_float, "int8": run_small})
"""

import time
from collections.abc import Callable, Mapping
from statistics import median

WARM_UP = 5
_ROUNDS, _SECONDS = 60, 20.0


def measure_latency(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int = _ROUNDS,
    seconds: float = _SECONDS,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, float]:
    """Median milliseconds of each way over at most `rounds` rounds; none is begun after `seconds`. progress: called
    with 1 after each round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(WARM_UP):
            way()
    begin = time.perf_counter()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
        progress(1)
        if time.perf_counter() - begin > seconds:
            break
    return {name: 1000 * median(values) for name, values in taken.items()}
