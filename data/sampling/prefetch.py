"""Reads ahead of the consumer: announces the stretches of shards that a worker's lanes will read next.

prefetcher = Prefetcher(sampler, worker_info, start=(epoch, step), announce=lambda epoch, runs: reader.prefetch(runs))
prefetcher.consume(num_rows)  # before each step
"""

from collections.abc import Callable, Iterator

import numpy as np

from data.sampling.sampler import Run, TrainSampler, WorkerInfo


class Prefetcher:
    """Keeps the announcements about one block's share ahead of what was consumed, across blocks and epochs, up to the
    end of epoch `stop_epoch - 1`. announce(epoch, runs) is told what will be read."""

    def __init__(
        self,
        sampler: TrainSampler,
        worker_info: WorkerInfo,
        start: tuple[int, int],
        announce: Callable[[int, list[Run]], None],
        *,
        stop_epoch: int | None = None,
    ) -> None:
        self._announce = announce
        self._windows = _windows(sampler, worker_info, start, stop_epoch)
        self._target = max(1, int(min(sampler.block_size, sampler.num_samples) * worker_info.share))
        self._ahead = 0

    def consume(self, num_samples: int) -> None:
        self._ahead -= num_samples
        while self._ahead < self._target:
            window = next(self._windows, None)
            if window is None:
                return
            self._announce(*window)
            _, runs = window
            self._ahead += sum(run.last - run.first for run in runs)


def _windows(
    sampler: TrainSampler, worker_info: WorkerInfo, start: tuple[int, int], stop_epoch: int | None
) -> Iterator[tuple[int, list[Run]]]:
    """(epoch, runs) of the worker's lanes in the order in which they are first read; without a stop, for ever."""
    epoch, position = start[0], start[1] * sampler.batch_size
    while stop_epoch is None or epoch < stop_epoch:
        while position < sampler.num_samples:
            block = sampler.block_at(epoch, position)
            lanes = np.flatnonzero(worker_info.owns(np.arange(sampler.lanes)) & (block.lane_length > 0))
            done = (position - block.start) // sampler.lanes  # offsets that every lane has passed
            longest = int(block.lane_length.max())
            for level in range(1 + -(-longest // sampler.window)):
                for lane in lanes.tolist():
                    base, size = sampler.window_span(block, lane, level)
                    if size > 0 and base + size > done:
                        yield epoch, sampler.window_runs(block, lane, level)
            position = block.start + block.num_samples
        epoch, position = epoch + 1, 0
