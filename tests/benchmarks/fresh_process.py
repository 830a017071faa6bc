"""A function's result from a new interpreter, which has nothing of this one's memory, threads or modules.

peak = in_fresh_process(measure_peak, folder)
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """`function` must be importable; its arguments and result travel by value."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def peak_megabytes() -> float:
    """The most memory this process ever held (resident set; 1 MB = 10^6 bytes)."""
    # Not getrusage: its peak outlives exec, so a child would start at its parent's size.
    return _status("VmHWM") / 1e6


def resident_megabytes() -> float:
    """What it holds now."""
    return _status("VmRSS") / 1e6


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the kernel reports no {field}")
