"""The samples of some shards in the order of their index, in batches that lie within one shard each.

    walk = ShardWalk(index.counts, shards=[3, 5], batch_size=64)
    loader = Loader(index, walk, pixels)  # every epoch is one view of these samples

The batches of a shard do not depend on which other shards are walked, so the same shard gives the same logits on any
number of ranks.
"""

from collections.abc import Sequence

import numpy as np

from data.order import Owner, Rows


class ShardWalk:
    """An order of the loader; it knows no ranks, since the shards are already one rank's."""

    def __init__(self, counts: np.ndarray, *, shards: Sequence[int], batch_size: int) -> None:
        self._spans = [
            (shard, first, min(first + batch_size, count))
            for shard, count in zip(shards, counts[list(shards)].tolist(), strict=True)
            for first in range(0, count, batch_size)
        ]
        self.steps_per_epoch, self._batch_size = len(self._spans), batch_size

    def span(self, step: int) -> tuple[int, int, int]:
        """(shard, first sample, sample after the last) of a step."""
        return self._spans[step]

    def rows(self, epoch: int, step: int, owner: Owner | None = None) -> Rows:
        """The samples of a step, the same in every epoch."""
        shard, first, _ = self._spans[step]
        row = self.places(epoch, step, owner or Owner())
        return Rows(row=row, shard=np.full(len(row), shard), sample=first + row)

    def places(self, epoch: int, step: int, owner: Owner) -> np.ndarray:
        _, first, last = self._spans[step]
        return owner.cut(last - first)

    def most_rows(self, num_ranks: int) -> int:
        return self._batch_size
