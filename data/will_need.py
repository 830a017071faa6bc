"""Reads ahead of the consumer: announces the stretches of shards that an owner's lanes will read next.

lookahead = Lookahead(order, owner, start=(epoch, step), reader=reader)
lookahead.consume(num_rows)  # before each step
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from data.order import Owner, Run, SampleOrder


class Announced(Protocol):
    def will_need(self, runs: list[Run]) -> None: ...


class Lookahead:
    """Keeps the announcements about one block's share ahead of what was consumed, across blocks and epochs, up to the
    end of epoch `stop_epoch - 1`."""

    def __init__(
        self,
        order: SampleOrder,
        owner: Owner,
        start: tuple[int, int],
        reader: Announced,
        *,
        stop_epoch: int | None = None,
    ) -> None:
        self._reader = reader
        self._windows = _windows(order, owner, start, stop_epoch)
        self._target = max(1, int(min(order.block_size, order.num_samples) * owner.share))
        self._ahead = 0

    def consume(self, num_samples: int) -> None:
        self._ahead -= num_samples
        while self._ahead < self._target:
            runs = next(self._windows, None)
            if runs is None:
                return
            self._reader.will_need(runs)
            self._ahead += sum(run.last - run.first for run in runs)


def _windows(order: SampleOrder, owner: Owner, start: tuple[int, int], stop_epoch: int | None) -> Iterator[list[Run]]:
    """The windows of the owner's lanes in the order in which they are first read; without a stop, for ever."""
    epoch, position = start[0], start[1] * order.batch_size
    while stop_epoch is None or epoch < stop_epoch:
        while position < order.num_samples:
            block = order.block_at(epoch, position)
            lanes = np.flatnonzero(owner.owns(np.arange(order.lanes)) & (block.lane_length > 0))
            done = (position - block.start) // order.lanes  # offsets that every lane has passed
            longest = int(block.lane_length.max())
            for level in range(1 + -(-longest // order.window)):
                for lane in lanes.tolist():
                    base, size = order.window_span(block, lane, level)
                    if size > 0 and base + size > done:
                        yield order.window_runs(block, lane, level)
            position = block.start + block.num_samples
        epoch, position = epoch + 1, 0
