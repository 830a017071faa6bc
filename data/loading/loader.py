"""Batches of one rank, in the promised order, decoded and augmented by worker processes.

    transform = ImageTransform(size=224, operations=POLICIES["standard"])
    loader = Loader(index, sampler, transform, rank=0, num_ranks=2, workers=4)
    for batch in loader.batches(start=(3, 17), stop_epoch=60): ...

Each worker owns some of the rank's lanes and makes its part of every step, each row at its place in the rank's batch:
the batches do not depend on the number of workers. A batch is whole, or the run stops: the rows that came, good and
bad, are held against the order's plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.errors import BadSample
from data.images.transform import ImageTransform
from data.index import Index
from data.loading.batch import BadRecord, Batch, WorkerBatch, join_parts
from data.loading.step_memory import Arrays, Layout, step_bytes
from data.loading.worker_processes import side_by_side
from data.sampling.prefetch import Prefetcher
from data.sampling.sampler import Rows, Run, Sampler, TrainSampler, WorkerInfo
from data.sampling.view_schedule import ViewSchedule
from data.shards.range_cache import RangeCache
from data.shards.shard_reader import ShardReader
from data.teacher_logits import LogitReader
from data.teacher_logits.manifest import load_manifest


@dataclass(frozen=True)
class TeacherData:
    """What a batch brings for a teacher. cache: folder or URL of its logits. pixels: how it sees the same views, where
    that is not how the student does."""

    cache: str | None = None
    pixels: ImageTransform | None = None


_OWN_VIEWS, _NO_TEACHER = ViewSchedule(), TeacherData()


@dataclass(frozen=True)
class BatchPlan:
    """All steps of one rank, from `start` to the end of `stop_epoch - 1`: what loader processes are given to do."""

    index: Index
    order: Sampler
    pixels: ImageTransform
    rank: int
    num_ranks: int
    start_at: tuple[int, int]
    stop_epoch: int
    cache: tuple[str, int] | None
    views: ViewSchedule
    teacher: TeacherData
    num_logits: int | None  # columns of the teacher's cache

    @property
    def layout(self) -> Layout:
        rows = self.order.most_rows(self.num_ranks)
        layout: dict[str, tuple[tuple[int, ...], type]] = {"image": (_picture(rows, self.pixels), np.uint8)}
        if self.teacher.pixels is not None:
            layout["teacher_image"] = (_picture(rows, self.teacher.pixels), np.uint8)
        if self.num_logits is not None:
            layout["teacher"] = ((rows, self.num_logits), np.float16)
        return layout

    def steps(self) -> Iterator[tuple[int, int]]:
        first_epoch, first_step = self.start_at
        for epoch in range(first_epoch, self.stop_epoch):
            for step in range(first_step if epoch == first_epoch else 0, self.order.steps_per_epoch):
                yield epoch, step

    def places(self, at: tuple[int, int]) -> np.ndarray:
        """The rank's rows of a step, ascending."""
        return self.order.places(*at, WorkerInfo(self.rank, self.num_ranks))

    def used(self, at: tuple[int, int]) -> set[str]:
        """The arrays that a step fills. Logits from the cache need no picture for the teacher."""
        _, is_fresh = self.views.at(*at)
        has_logits = self.num_logits is not None and not is_fresh
        used = {"image"}
        if has_logits:
            used.add("teacher")
        elif self.teacher.pixels is not None:
            used.add("teacher_image")
        return used

    def join(self, made: tuple[tuple[int, int], Arrays, list[WorkerBatch]]) -> Batch:
        at, arrays, parts = made
        filled = {name: arrays[name] for name in self.used(at)}
        return join_parts(parts, filled, at=at, places=self.places(at), tasks=list(self.index.tasks))

    def start(self, worker: int, num_workers: int) -> "_PartMaker":
        return _PartMaker(self, WorkerInfo(self.rank, self.num_ranks, worker, num_workers))


class _PartMaker:
    """Reads, decodes and augments one worker's part of each step."""

    def __init__(self, plan: BatchPlan, owner: WorkerInfo) -> None:
        self._plan, self._owner = plan, owner
        cache = RangeCache(plan.cache[0], max_bytes=plan.cache[1]) if plan.cache else None
        self._reader = ShardReader(plan.index, cache)
        self._logits: LogitReader | None = None
        if plan.teacher.cache is not None:
            self._logits = LogitReader(plan.teacher.cache, plan.index, num_views=plan.views.num_views, cache=cache)
        self._lookahead: Prefetcher | None = None
        if isinstance(plan.order, TrainSampler):
            self._lookahead = Prefetcher(plan.order, owner, plan.start_at, self._announce, stop_epoch=plan.stop_epoch)

    def _announce(self, epoch: int, runs: list[Run]) -> None:
        self._reader.prefetch(runs)
        if self._logits is not None:
            self._logits.prefetch(runs, view=epoch % self._plan.views.num_views)

    def make(self, at: tuple[int, int], arrays: Arrays) -> WorkerBatch:
        plan, used = self._plan, self._plan.used(at)
        view, _ = plan.views.at(*at)
        rows = plan.order.rows(*at, self._owner)
        if self._lookahead is not None:
            self._lookahead.consume(len(rows.row))
        else:
            self._reader.prefetch(_neighbours(rows))
        pictures = [(plan.pixels, arrays["image"])]
        if "teacher_image" in used and plan.teacher.pixels is not None:
            pictures.append((plan.teacher.pixels, arrays["teacher_image"]))
        labels = np.empty((len(rows.row), len(plan.index.tasks)), dtype=np.int32)
        kept: list[int] = []
        keys: list[str] = []
        bad: list[BadRecord] = []
        places = np.searchsorted(plan.places(at), rows.row).tolist()
        samples = zip(rows.row.tolist(), rows.shard.tolist(), rows.sample.tolist(), places, strict=True)
        for number, (row, shard, sample, place) in enumerate(samples):
            name, info = plan.index.shards[shard].name, self._reader.info(shard)
            key = info.key(sample)
            try:
                data = self._reader.read(shard, sample)
                for pixels, out in pictures:
                    pixels.make(data, shard=name, key=key, view=view, out=out[place])
            except BadSample as error:
                bad.append(BadRecord(name, key, error.reason, (shard, sample), row))
                continue
            if "teacher" in used and self._logits is not None:
                arrays["teacher"][place] = self._logits.read(shard, sample, view)
            labels[len(kept)] = info.labels[sample]
            kept.append(number)
            keys.append(key)
        return WorkerBatch(
            at=at,
            labels=labels[: len(kept)],
            index=np.stack([rows.shard[kept], rows.sample[kept]], axis=1),
            row=rows.row[kept],
            key=keys,
            bad=bad,
        )

    def close(self) -> None:
        self._reader.close()


def _neighbours(rows: Rows) -> list[Run]:
    """The samples as runs of neighbours in their shards."""
    runs: list[Run] = []
    for shard, sample in zip(rows.shard.tolist(), rows.sample.tolist(), strict=True):
        if runs and runs[-1].shard == shard and runs[-1].last == sample:
            runs[-1] = Run(shard, runs[-1].first, sample + 1)
        else:
            runs.append(Run(shard, sample, sample + 1))
    return runs


def _picture(rows: int, pixels: ImageTransform) -> tuple[int, ...]:
    return rows, pixels.size, pixels.size, 3


class Loader:
    """Iterates a rank's batches; see the module's docstring. workers: processes that decode, 0 for this one; sharers:
    how many ranks of this machine do the same."""

    def __init__(
        self,
        index: Index,
        order: Sampler,
        pixels: ImageTransform,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        workers: int = 0,
        sharers: int = 1,
        cache: tuple[str, int] | None = None,
        views: ViewSchedule = _OWN_VIEWS,
        teacher: TeacherData = _NO_TEACHER,
    ) -> None:
        self.index, self.order, self.pixels = index, order, pixels
        self.rank, self.num_ranks, self.cache = rank, num_ranks, cache
        self.workers, self.sharers = workers, sharers
        self.views, self.teacher = views, teacher
        # Read here, before there are processes: what reads remote files must not be shared with them.
        self._num_logits = None if teacher.cache is None else load_manifest(teacher.cache).num_classes

    def batches(self, *, start: tuple[int, int] = (0, 0), stop_epoch: int = 1) -> Iterator[Batch]:
        """Batches from (epoch, step) to the end of epoch `stop_epoch - 1`, without a pause between epochs. DataError
        when the data as a whole cannot be read on, LoaderLost when a worker process is gone or a batch is not whole.
        Who keeps batches gets copies of their images in the end: their memory goes round."""
        plan = self.plan(start=start, stop_epoch=stop_epoch)
        # A map keeps nothing: the memory of a batch is free when the caller drops it.
        return map(plan.join, side_by_side(plan, plan.steps(), workers=self.workers, sharers=self.sharers))

    def batch_bytes(self) -> int:
        """Memory of the arrays of one batch, which loader processes share with this one."""
        return step_bytes(self.plan().layout)

    def plan(self, *, start: tuple[int, int] = (0, 0), stop_epoch: int = 1) -> BatchPlan:
        """What `batches` does, for whoever takes it apart."""
        return BatchPlan(
            self.index,
            self.order,
            self.pixels,
            rank=self.rank,
            num_ranks=self.num_ranks,
            start_at=start,
            stop_epoch=stop_epoch,
            cache=self.cache,
            views=self.views,
            teacher=self.teacher,
            num_logits=self._num_logits,
        )
