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
    """An order of the loader; of an owner it takes the worker alone, since the shards are already one rank's."""

    def __init__(self, counts: np.ndarray, *, shards: Sequence[int], batch_size: int) -> None:
        self._spans = [
            (shard, first, min(first + batch_size, count))
            for shard, count in zip(shards, counts[list(shards)].tolist(), strict=True)
            for first in range(0, count, batch_size)
        ]
        self.steps_per_epoch = len(self._spans)

    def span(self, step: int) -> tuple[int, int, int]:
        """(shard, first sample, sample after the last) of a step."""
        return self._spans[step]

    def rows(self, epoch: int, step: int, owner: Owner | None = None) -> Rows:
        """The samples of a step, the same in every epoch; an owner's worker gets every V-th."""
        owner = owner or Owner()
        shard, first, last = self._spans[step]
        row = np.arange(owner.worker, last - first, owner.num_workers)
        return Rows(row=row, shard=np.full(len(row), shard), sample=first + row)
