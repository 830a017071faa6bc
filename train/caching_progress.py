"""How far a caching is: a bar on a terminal, a line a minute elsewhere.

with caching_progress(stages, index.counts, shown=comm.rank == 0) as advance: advance(256)
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from train.photo_progress import photo_progress
from train.teacher_blocks import Stage
from train.tracking import readable_seconds

_LINE_SECONDS = 60.0


@contextmanager
def caching_progress(stages: Sequence[Stage], counts: np.ndarray, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Gives the function that counts photos. stages: of this rank; counts: samples per shard."""
    total = sum((stage.stop - stage.first) * int(counts[list(stage.shards)].sum()) for stage in stages)
    if not shown or sys.stderr.isatty():
        with photo_progress("Caching", total=total, shown=shown) as advance:
            yield advance
        return
    done, started, told = 0, time.monotonic(), time.monotonic()

    def count(num_photos: int) -> None:
        nonlocal done, told
        done += num_photos
        now = time.monotonic()
        if now - told > _LINE_SECONDS:
            told = now
            left = readable_seconds((now - started) / done * (total - done))
            print(f"{done:,} of this rank's {total:,} photos, {left} to go", flush=True)

    yield count
