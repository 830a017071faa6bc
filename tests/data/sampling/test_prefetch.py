"""What is announced to be read soon: everything that will be, once, and nothing past the end of the run."""

from collections import Counter

import numpy as np
import pytest

from data.sampling.prefetch import Prefetcher
from data.sampling.sampler import Run, TrainSampler, WorkerInfo


class Announcements:
    """Counts how often each (shard, sample) was announced."""

    def __init__(self) -> None:
        self.samples: Counter[tuple[int, int]] = Counter()

    def announce(self, epoch: int, runs: list[Run]) -> None:
        self.samples.update((run.shard, sample) for run in runs for sample in range(run.first, run.last))


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_every_sample_is_announced_once_an_epoch_and_none_past_the_last(num_epochs: int) -> None:
    counts = np.array([13, 40, 7, 25])
    sampler = TrainSampler(counts, seed=3, batch_size=8, block=30, lanes=4, window=5)
    announced = Announcements()
    prefetcher = Prefetcher(sampler, WorkerInfo(), (0, 0), announced.announce, stop_epoch=num_epochs)
    for epoch in range(num_epochs):
        for step in range(sampler.steps_per_epoch):
            prefetcher.consume(len(sampler.rows(epoch, step).row))
    everything = {(shard, sample) for shard, count in enumerate(counts) for sample in range(count)}
    assert announced.samples == Counter(dict.fromkeys(everything, num_epochs))
