"""Batches of one rank, in the promised order, decoded and augmented by worker processes.

    loader = Loader(index, order, Pixels(size=224, operations=POLICIES["standard"]), rank=0, num_ranks=2, workers=4)
    for batch in loader.batches(start=(3, 17), stop_epoch=60): ...

Each worker owns some of the rank's lanes and gives one part per step, so the parts arrive in a fixed round and are
merged by position: the batches do not depend on the number of workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from data.batch import BadRecord, Batch, Part, join_parts
from data.cache import RangeCache
from data.errors import BadSample, DataError
from data.index import Index
from data.loader_processes import from_processes
from data.order import Owner, Rows, Run, SampleOrder
from data.pixels import Pixels
from data.reader import ShardReader
from data.teacher_logits import LogitReader
from data.views import Views
from data.will_need import Lookahead

_PREFETCH = 2  # steps that each worker may be ahead


class Order(Protocol):
    """What decides which samples a step has: SampleOrder for training, EvalOrder for measuring."""

    steps_per_epoch: int

    def rows(self, epoch: int, step: int, owner: Owner | None = None) -> Rows: ...


class EvalOrder:
    """Every sample once, in index order; step k of W ranks takes W x batch_size neighbours and cuts them W ways."""

    def __init__(self, counts: np.ndarray, *, batch_size: int, num_ranks: int) -> None:
        self.ends = np.cumsum(np.asarray(counts, dtype=np.int64))
        self.num_samples = int(self.ends[-1]) if len(self.ends) else 0
        self.global_batch = batch_size * num_ranks
        self.steps_per_epoch = -(-self.num_samples // self.global_batch)

    def rows(self, epoch: int, step: int, owner: Owner | None = None) -> Rows:
        """The samples of a step; an owner's rank gets one contiguous part, its workers every V-th of that."""
        owner = owner or Owner()
        first = step * self.global_batch
        size = min(self.global_batch, self.num_samples - first)
        low, high = (size * rank // owner.num_ranks for rank in (owner.rank, owner.rank + 1))
        row = np.arange(low + owner.worker, high, owner.num_workers)
        shard = np.searchsorted(self.ends, first + row, side="right")
        start = np.concatenate([[0], self.ends])[shard]
        return Rows(row=row, shard=shard, sample=first + row - start)


@dataclass(frozen=True)
class TeacherData:
    """What a batch brings for a teacher. cache: folder or URL of its logits. pixels: how it sees the same views, where
    that is not how the student does."""

    cache: str | None = None
    pixels: Pixels | None = None


_OWN_VIEWS, _NO_TEACHER = Views(), TeacherData()


class _Stream(IterableDataset[Part | DataError]):
    """What one worker process runs: its part of every step from `start` to the end of `stop_epoch - 1`."""

    def __init__(
        self,
        index: Index,
        order: Order,
        pixels: Pixels,
        *,
        rank: int,
        num_ranks: int,
        start: tuple[int, int],
        stop_epoch: int,
        cache: tuple[str, int] | None,
        views: Views,
        teacher: TeacherData,
    ) -> None:
        self.index, self.order, self.pixels = index, order, pixels
        self.rank, self.num_ranks = rank, num_ranks
        self.start, self.stop_epoch, self.cache = start, stop_epoch, cache
        self.views, self.teacher = views, teacher

    def __iter__(self) -> Iterator[Part | DataError]:
        try:
            yield from self._parts()
        except DataError as error:
            # As a value: raised in a worker, torch would bury its words under the worker's stack.
            yield error

    def _parts(self) -> Iterator[Part]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        owner = Owner(self.rank, self.num_ranks, number, count)
        cache = RangeCache(self.cache[0], max_bytes=self.cache[1]) if self.cache else None
        reader = ShardReader(self.index, cache)
        logits = None
        if self.teacher.cache is not None:
            logits = LogitReader(self.teacher.cache, self.index, num_views=self.views.num_views, cache=cache)
        lookahead = None
        if isinstance(self.order, SampleOrder):

            def announce(epoch: int, runs: list[Run]) -> None:
                reader.will_need(runs)
                if logits is not None:
                    logits.will_need(runs, view=epoch % self.views.num_views)

            lookahead = Lookahead(self.order, owner, self.start, announce, stop_epoch=self.stop_epoch)
        first_epoch, first_step = self.start
        try:
            for epoch in range(first_epoch, self.stop_epoch):
                for step in range(first_step if epoch == first_epoch else 0, self.order.steps_per_epoch):
                    rows = self.order.rows(epoch, step, owner)
                    if lookahead is not None:
                        lookahead.consume(len(rows.row))
                    else:
                        reader.will_need(_single_runs(rows))
                    yield self._part(reader, logits, epoch, step, rows)
        finally:
            reader.close()

    def _part(self, reader: ShardReader, logits: LogitReader | None, epoch: int, step: int, rows: Rows) -> Part:
        count = len(rows.row)
        view, is_fresh = self.views.at(epoch, step)
        image = _empty_image(count, self.pixels.size)
        targets = [(self.pixels, image.numpy())]
        large = None
        # Logits from the cache need no picture for the teacher.
        if self.teacher.pixels is not None and (logits is None or is_fresh):
            large = _empty_image(count, self.teacher.pixels.size)
            targets.append((self.teacher.pixels, large.numpy()))
        teacher = (
            None if logits is None or is_fresh else np.empty((count, logits.manifest.num_classes), dtype=np.float16)
        )
        labels = np.empty((count, len(self.index.tasks)), dtype=np.int32)
        kept: list[int] = []
        keys: list[str] = []
        bad: list[BadRecord] = []
        for at, (row, shard, sample) in enumerate(
            zip(rows.row.tolist(), rows.shard.tolist(), rows.sample.tolist(), strict=True)
        ):
            name, info, num = self.index.shards[shard].name, reader.info(shard), len(kept)
            key = info.key(sample)
            try:
                data = reader.read(shard, sample)
                for pixels, out in targets:
                    pixels.make(data, shard=name, key=key, view=view, out=out[num])
            except BadSample as error:
                bad.append(BadRecord(name, key, error.reason, (shard, sample), row))
                continue
            if teacher is not None and logits is not None:
                teacher[num] = logits.read(shard, sample, view)
            labels[num] = info.labels[sample]
            kept.append(at)
            keys.append(key)
        num = len(kept)
        return Part(
            epoch,
            step,
            image[:num],
            labels[:num],
            np.stack([rows.shard[kept], rows.sample[kept]], axis=1),
            rows.row[kept],
            keys,
            bad,
            teacher_image=None if large is None else large[:num],
            teacher=None if teacher is None else teacher[:num],
        )


def _single_runs(rows: Rows) -> list[Run]:
    """Each sample for itself: the samples between them are other workers' to fetch."""
    return [
        Run(shard, sample, sample + 1) for shard, sample in zip(rows.shard.tolist(), rows.sample.tolist(), strict=True)
    ]


def _empty_image(count: int, size: int) -> torch.Tensor:
    return torch.empty((count, size, size, 3), dtype=torch.uint8)


class Loader:
    """Iterates a rank's batches; see the module's docstring. `workers=0` decodes in this process."""

    def __init__(
        self,
        index: Index,
        order: Order,
        pixels: Pixels,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        workers: int = 0,
        cache: tuple[str, int] | None = None,
        views: Views = _OWN_VIEWS,
        teacher: TeacherData = _NO_TEACHER,
    ) -> None:
        self.index, self.order, self.pixels = index, order, pixels
        self.rank, self.num_ranks, self.workers, self.cache = rank, num_ranks, workers, cache
        self.views, self.teacher = views, teacher

    def batches(self, *, start: tuple[int, int] = (0, 0), stop_epoch: int = 1) -> Iterator[Batch]:
        """Batches from (epoch, step) to the end of epoch `stop_epoch - 1`, without a pause between epochs. DataError
        when the data as a whole cannot be read on, LoaderLost when a worker process is gone."""
        stream = _Stream(
            self.index,
            self.order,
            self.pixels,
            rank=self.rank,
            num_ranks=self.num_ranks,
            start=start,
            stop_epoch=stop_epoch,
            cache=self.cache,
            views=self.views,
            teacher=self.teacher,
        )
        parts = from_processes(stream, workers=self.workers, prefetch=_PREFETCH) if self.workers else iter(stream)
        tasks = list(self.index.tasks)
        while round_of_parts := [_whole(part) for part in islice(parts, max(1, self.workers))]:
            yield join_parts(round_of_parts, tasks)


def _whole(part: Part | DataError) -> Part:
    if isinstance(part, DataError):
        raise part
    return part
