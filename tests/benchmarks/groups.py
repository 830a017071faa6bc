"""The groups of figures, each of which runs in a process of its own.

figures = measure_group("loader", quick=False)
"""

import importlib
import tempfile
from pathlib import Path

from tests.benchmarks.figure import Figure
from tests.benchmarks.fresh_process import in_fresh_process

# Name of the module -> what it measures.
GROUPS = {
    "loader": "photos/s against the stock webdataset pipeline and a bare loop",
    "loader_workers": "the same with two decoding processes on each side, and the price of a large batch",
    "step": "one process against a bare PyTorch loop",
    "two_ranks": "two Horovod ranks against torch DDP",
    "distillation": "a step with a cached and a computed teacher, and the caching",
    "tables": "reading a table of a million rows, and dividing it into train and val",
    "planning": "an epoch of 10^9 samples, up to the first byte ranges",
    "near_duplicates": "pairs among 350,000 photos, and what looking for them adds to a build",
    "memory": "loader memory and shard cache over a ten times larger set",
    "remote": "bytes fetched per rank against its share",
    "export": "int8 against fp32 ONNX, and the time of a report",
    "prune": "pruning to a ratio and to a latency, a sparse step, and what narrower layers gain",
    "scaling": "what the start of 2, 4 and 8 ranks costs",
    "cli": "how soon a command gives help or names a typo",
    "survive": "a dead rank, a stuck one, and the way back after a kill",
}


def measure_group(group: str, *, quick: bool) -> list[Figure]:
    """The group's figures, measured in a fresh process with a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return in_fresh_process(_measure, group, Path(folder), quick)


def _measure(group: str, folder: Path, quick: bool) -> list[Figure]:
    # Imported here alone: two groups need torch and Horovod, and the others' memory should not hold them.
    measured: list[Figure] = importlib.import_module(f"tests.benchmarks.{group}").measure(folder, quick=quick)
    return measured
