"""The loader with two decoding processes on each side, against the stock pipeline in torch's DataLoader, and what the
main process pays for a large batch.

Both sides end with normalised float images in the main process: the stock pipeline normalises in its workers. The clock
is the wall's, since the work is spread over processes; the sides run by turns, a stretch of batches each.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import Index, load_index
from data.loading.loader import Loader
from data.loading.step_memory import new_arrays
from data.sampling.sampler import TrainSampler
from models.preprocessing import Normalise
from tests.benchmarks.figure import Figure
from tests.benchmarks.loader import MEAN, SIZE, STD, stock_pipeline
from tests.benchmarks.pairs import median_ratio
from tests.benchmarks.photos import photo_shards

_WORKERS, _BATCH, _LARGE_BATCH = 2, 32, 256
_WARM = 8


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    index = load_index(photo_shards(folder / "photos"))
    rounds, stretch = (1, 4) if quick else (8, 60)
    torch.set_num_threads(1)  # the cores are the workers'
    seconds = np.array(
        [
            [_seconds_a_batch(batches, stretch) for batches in (lambda: _ours(index), lambda: _stock(index))]
            for _ in range(rounds)
        ]
    )
    ratio, interval = median_ratio(seconds[:, 1], seconds[:, 0])
    speed, stock_speed = _BATCH / np.median(seconds, axis=0)
    return [
        Figure(
            "loader_vs_stock_2workers",
            ratio,
            target=2.5,
            at_least=True,
            interval=interval,
            note=f"{speed:,.0f} against {stock_speed:,.0f} photos/s, normalised in the main process and in the workers",
        ),
        Figure(
            "join_ms_256_224",
            1000 * _join_seconds(index, rounds=3 if quick else 30),
            target=5,
            note="the main process, a batch of 256 from two workers",
        ),
    ]


def _seconds_a_batch(batches: Callable[[], Iterator[object]], stretch: int) -> float:
    running = batches()
    for _ in islice(running, _WARM):
        pass
    begin = time.perf_counter()
    for _ in islice(running, stretch):
        pass
    return (time.perf_counter() - begin) / stretch


def _ours(index: Index) -> Iterator[object]:
    order = TrainSampler(index.counts, seed=0, batch_size=_BATCH)
    loader = Loader(index, order, ImageTransform(size=SIZE, operations=POLICIES["standard"]), workers=_WORKERS)
    normalise = Normalise(MEAN, STD)
    for batch in loader.batches(stop_epoch=1000):
        yield normalise(batch.image)


def _stock(index: Index) -> Iterator[object]:
    pipeline = stock_pipeline(index, _BATCH)
    return iter(DataLoader(pipeline, batch_size=None, num_workers=_WORKERS, multiprocessing_context="fork"))


def _join_seconds(index: Index, *, rounds: int) -> float:
    """Median over the steps of an epoch: parts in, batch out."""
    order = TrainSampler(index.counts, seed=0, batch_size=_LARGE_BATCH)
    plan = Loader(index, order, ImageTransform(size=SIZE, operations=POLICIES["standard"])).plan()
    makers = [plan.start(worker, _WORKERS) for worker in range(_WORKERS)]
    seconds = []
    for at in islice(plan.steps(), rounds):
        arrays = new_arrays(plan.layout)
        parts = [maker.make(at, arrays) for maker in makers]
        begin = time.perf_counter()
        batch = plan.join((at, arrays, parts))
        seconds.append(time.perf_counter() - begin)
        assert len(batch) == len(plan.places(at))
    return float(np.median(seconds))
