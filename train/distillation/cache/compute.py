"""The teacher's logits, one view of one shard after the other: photos -> loader -> teacher -> fp16 block.

for block in teacher_blocks(index, stages, ...): writer.append(block.logits)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from data.index import Index
from data.loading.batch import Batch, require_all
from data.loading.loader import Loader
from data.sampling.sampler import ShardSampler

_NOT_FINITE = "the teacher's logits are not finite"

Unusable = tuple[str, str, str]  # shard, key, reason


@dataclass(frozen=True)
class Stage:
    """Views `first` to `stop - 1` of some shards are to be computed."""

    first: int
    stop: int
    shards: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """One view of one shard. logits: float16 [num_samples, num_classes], NaN where the photo cannot be used; unusable:
    (shard name, key, reason) of the samples without finite logits."""

    view: int
    shard: int
    logits: np.ndarray
    unusable: Sequence[Unusable]


def plan_stages(num_views: Mapping[int, int], views: int) -> list[Stage]:
    """What is missing until every shard has `views` views. num_views: shard -> views that it has.

    Without a kill it is one stage. After one, the shards that are a view behind come first."""
    borders = sorted({min(count, views) for count in num_views.values()} | {views})
    return [
        Stage(first, stop, tuple(shard for shard, count in num_views.items() if count <= first))
        for first, stop in pairwise(borders)
    ]


def teacher_blocks(
    index: Index,
    stages: Iterable[Stage],
    *,
    loader: Callable[[ShardSampler], Loader],
    teacher: Callable[[Tensor], Tensor],
    num_classes: int,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], None],
    stop_requested: Callable[[], bool],
) -> Iterator[Block]:
    """All blocks of the stages, view by view; ends early, between two batches, when a stop is wanted. LoaderLost
    when a shard's samples did not all come.

    teacher: uint8 [N, S, S, 3] on the device -> logits [N, num_classes]. progress: told the samples of every batch.
    """
    for stage in stages:
        sampler = ShardSampler(index.counts, shards=stage.shards, batch_size=batch_size)
        batches = loader(sampler).batches(start=(stage.first, 0), stop_epoch=stage.stop)
        logits, unusable, num_rows = np.empty(0), list[Unusable](), 0
        for batch, answer in _answers(batches, teacher, device):
            shard, first, last = sampler.span(batch.step)
            count = index.shards[shard].count
            if first == 0:
                logits, unusable, num_rows = np.full((count, num_classes), np.nan, np.float16), [], 0
            unusable += [(record.shard, record.key, record.reason) for record in batch.bad]
            if answer is not None:
                logits[batch.index[:, 1].numpy()] = answer
                wrong = np.flatnonzero(~np.isfinite(answer).all(axis=1)).tolist()
                unusable += [(index.shards[shard].name, batch.key[at], _NOT_FINITE) for at in wrong]
            num_rows += len(batch) + len(batch.bad)
            progress(last - first)
            if stop_requested():
                return
            if last == count:
                require_all(num_rows, count, what=f"view {batch.epoch} of {index.shards[shard].name}")
                yield Block(batch.epoch, shard, logits, unusable)


class _OnTheWay:
    """Logits that travel to the host while the device computes on."""

    def __init__(self, logits: Tensor) -> None:
        self._host = logits.half().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if logits.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def numpy(self) -> np.ndarray:
        """float16 [N, num_classes]."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host.numpy()


def _answers(
    batches: Iterable[Batch], teacher: Callable[[Tensor], Tensor], device: torch.device
) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """Each batch with its logits, None for a batch without a usable sample. One batch stays under way, so that the
    device has work while the host takes the answer."""
    before: tuple[Batch, _OnTheWay | None] | None = None
    for batch in batches:
        now = batch, _OnTheWay(teacher(batch.to(device).image)) if len(batch) else None
        if before is not None:
            yield _arrived(*before)
        before = now
    if before is not None:
        yield _arrived(*before)


def _arrived(batch: Batch, answer: _OnTheWay | None) -> tuple[Batch, np.ndarray | None]:
    return batch, None if answer is None else answer.numpy()
