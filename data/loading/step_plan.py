"""A rank's steps as loader processes make them: reading, rendering and the recording of bad samples are here alone.

    class Plan(StepPlan[Batch]): ...  # a step's arrays, how a sample fills its rows of them, what a batch is made of
    for batch in plan.batches(workers=4, sharers=1): ...

Each process owns some of the rank's rows of every step and writes each at its place in the rank's arrays: batches do
not depend on the number of processes. A batch is whole, or the run stops: the rows that came, good and bad, are held
against the sampler's plan.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from data.errors import BadSample
from data.loading.batch import BadRecord, JoinedStep, WorkerBatch, join_parts
from data.loading.image_sets import ImageSet
from data.loading.step_memory import Arrays, Layout
from data.loading.worker_processes import side_by_side
from data.sampling.prefetch import Prefetcher
from data.sampling.sampler import Rows, Run, Sampler, TrainSampler, WorkerInfo

BatchT = TypeVar("BatchT")
At = tuple[int, int]  # epoch, step


@dataclass(frozen=True, slots=True)
class Sample:
    """Which sample it is, and where its row of the step's arrays is."""

    shard: str
    key: str
    index: tuple[int, int]  # shard number, sample number
    place: int


# (encoded image, sample): writes the sample's row of every array that the step fills. Raises BadSample.
RenderSample = Callable[[bytes, Sample], None]


class Renderer(Protocol):
    """Makes rows of a step's arrays in one process; may hold open files, which end with the process."""

    def prefetch(self, epoch: int, runs: list[Run]) -> None:
        """These samples are rendered next."""
        ...

    def of_step(self, at: At, arrays: Arrays) -> RenderSample:
        """What renders the samples of one step."""
        ...


@dataclass(frozen=True)
class StepPlan(ABC, Generic[BatchT]):
    """The steps of one rank from `start_at` to the end of epoch `stop_epoch - 1`. Loader processes work on copies."""

    images: ImageSet
    sampler: Sampler
    rank: int
    num_ranks: int
    start_at: At
    stop_epoch: int

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The arrays of one step, with room for `num_rows` rows."""

    @abstractmethod
    def renderer(self) -> Renderer:
        """Made in the process that uses it."""

    @abstractmethod
    def batch(self, joined: JoinedStep, arrays: Arrays) -> BatchT:
        """arrays: the step's, of which the rows `joined.kept` are good."""

    @property
    def num_rows(self) -> int:
        """No step has more rows of this rank."""
        return self.sampler.most_rows(self.num_ranks)

    def batches(self, *, workers: int, sharers: int) -> Iterator[BatchT]:
        """workers=0 works in this process; sharers: ranks that share this machine's memory. Raises DataError when the
        data as a whole cannot be read on, LoaderLost when a process is gone or a batch is not whole."""
        # A map keeps nothing: the memory of a batch is free when the caller drops it.
        return map(self.join, side_by_side(self, self.steps(), workers=workers, sharers=sharers))

    def steps(self) -> Iterator[At]:
        first_epoch, first_step = self.start_at
        for epoch in range(first_epoch, self.stop_epoch):
            for step in range(first_step if epoch == first_epoch else 0, self.sampler.steps_per_epoch):
                yield epoch, step

    def places(self, at: At) -> np.ndarray:
        """The rank's rows of a step, ascending."""
        return self.sampler.places(*at, WorkerInfo(self.rank, self.num_ranks))

    def start(self, worker: int, num_workers: int) -> "WorkerBatchMaker":
        return WorkerBatchMaker(self, WorkerInfo(self.rank, self.num_ranks, worker, num_workers))

    def join(self, made: tuple[At, Arrays, list[WorkerBatch]]) -> BatchT:
        at, arrays, parts = made
        return self.batch(join_parts(parts, at=at, places=self.places(at), tasks=self.images.tasks), arrays)


class WorkerBatchMaker:
    """Reads and renders one process's samples of each step."""

    def __init__(self, plan: StepPlan[BatchT], worker_info: WorkerInfo) -> None:
        self._plan, self._worker_info = plan, worker_info
        self._images, self._renderer = plan.images, plan.renderer()
        self._prefetcher: Prefetcher | None = None
        if isinstance(plan.sampler, TrainSampler):
            self._prefetcher = Prefetcher(
                plan.sampler, worker_info, plan.start_at, self._prefetch, stop_epoch=plan.stop_epoch
            )

    def make(self, at: At, arrays: Arrays) -> WorkerBatch:
        """The samples that can be used, and the names of those that cannot."""
        rows = self._plan.sampler.rows(*at, self._worker_info)
        if self._prefetcher is not None:
            self._prefetcher.consume(len(rows.row))
        else:
            self._prefetch(at[0], _neighbours(rows))
        render = self._renderer.of_step(at, arrays)
        labels = np.empty((len(rows.row), len(self._images.tasks)), dtype=np.int32)
        kept: list[int] = []
        keys: list[str] = []
        bad: list[BadRecord] = []
        places = np.searchsorted(self._plan.places(at), rows.row).tolist()
        numbers = zip(rows.row.tolist(), rows.shard.tolist(), rows.sample.tolist(), places, strict=True)
        for number, (row, shard, sample, place) in enumerate(numbers):
            name, key = self._images.name(shard, sample)
            try:
                render(self._images.read(shard, sample), Sample(name, key, (shard, sample), place))
            except BadSample as error:
                bad.append(BadRecord(name, key, error.reason, (shard, sample), row))
                continue
            labels[len(kept)] = self._images.labels(shard, sample)
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
        self._images.close()

    def _prefetch(self, epoch: int, runs: list[Run]) -> None:
        self._images.prefetch(runs)
        self._renderer.prefetch(epoch, runs)


def _neighbours(rows: Rows) -> list[Run]:
    """The samples as runs of neighbours in their shards."""
    runs: list[Run] = []
    for shard, sample in zip(rows.shard.tolist(), rows.sample.tolist(), strict=True):
        if runs and runs[-1].shard == shard and runs[-1].last == sample:
            runs[-1] = Run(shard, runs[-1].first, sample + 1)
        else:
            runs.append(Run(shard, sample, sample + 1))
    return runs
