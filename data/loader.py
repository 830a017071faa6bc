"""Batches of one rank, in the promised order, decoded and augmented by worker processes.

    loader = TrainLoader(index, order, rank=0, num_ranks=2, image_size=224, operations=POLICIES["standard"])
    for batch in loader.batches(start=(3, 17), stop_epoch=60): ...

Each worker owns some of the rank's lanes and gives one part per step, so the parts arrive in a fixed round and are
merged by position: the batches do not depend on the number of workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data.augment import Operations, View, centre_square, draw_view, render, view_key
from data.batch import BadRecord, Batch, Part, join_parts
from data.cache import RangeCache
from data.decode import decode_image, image_size
from data.errors import BadSample, DataError
from data.index import Index
from data.order import Owner, Rows, SampleOrder
from data.reader import ShardReader
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
class Pixels:
    """How a sample's bytes become pixels: uint8 [size, size, 3]."""

    size: int
    operations: Operations
    seed: int = 0
    max_pixels: int = 64_000_000
    num_views: int = 0  # K views in turn (epoch e sees view e mod K); 0: every epoch its own

    def make(self, data: bytes, *, shard: str, key: str, epoch: int, out: np.ndarray) -> None:
        """Decode, augment and write one sample into `out`. Raises BadSample."""
        height, width = image_size(data)
        view_number = epoch % self.num_views if self.num_views else epoch
        random_key = view_key(self.seed, shard, key, view_number)
        view = draw_view(self.operations, height=height, width=width, key=random_key)
        render_bytes(data, view, height=height, width=width, size=self.size, max_pixels=self.max_pixels, out=out)


def render_bytes(
    data: bytes, view: View, *, height: int, width: int, size: int, max_pixels: int, out: np.ndarray
) -> None:
    """Decode only as finely as the view's crop needs, then render it into `out` (uint8 [size, size, 3])."""
    scale = min(1.0, size / min(view.height, view.width))
    min_height, min_width = int(np.ceil(height * scale)), int(np.ceil(width * scale))
    image = decode_image(data, min_height=min_height, min_width=min_width, max_pixels=max_pixels)
    if image.shape[:2] != (height, width):
        view = _scaled(view, image.shape[0] / height, image.shape[1] / width, image.shape[0], image.shape[1])
    render(image, view, size, out)


def _scaled(view: View, vertical: float, horizontal: float, height: int, width: int) -> View:
    """The same view on an image that was decoded smaller."""
    top, left = min(int(view.top * vertical), height - 1), min(int(view.left * horizontal), width - 1)
    box = dict(
        top=top,
        left=left,
        height=max(1, min(round(view.height * vertical), height - top)),
        width=max(1, min(round(view.width * horizontal), width - left)),
    )
    return View(**{**view.__dict__, **box})


def centre_view(height: int, width: int) -> View:
    """The view that evaluation takes: the largest centred square."""
    return View(*centre_square(height, width))


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
    ) -> None:
        self.index, self.order, self.pixels = index, order, pixels
        self.rank, self.num_ranks = rank, num_ranks
        self.start, self.stop_epoch, self.cache = start, stop_epoch, cache

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
        lookahead = None
        if isinstance(self.order, SampleOrder):
            lookahead = Lookahead(self.order, owner, self.start, reader, stop_epoch=self.stop_epoch)
        first_epoch, first_step = self.start
        try:
            for epoch in range(first_epoch, self.stop_epoch):
                for step in range(first_step if epoch == first_epoch else 0, self.order.steps_per_epoch):
                    rows = self.order.rows(epoch, step, owner)
                    if lookahead is not None:
                        lookahead.consume(len(rows.row))
                    yield self._part(reader, epoch, step, rows)
        finally:
            reader.close()

    def _part(self, reader: ShardReader, epoch: int, step: int, rows: Rows) -> Part:
        count, size = len(rows.row), self.pixels.size
        image = torch.empty((count, size, size, 3), dtype=torch.uint8)
        labels = np.empty((count, len(self.index.tasks)), dtype=np.int32)
        pixels = image.numpy()
        kept: list[int] = []
        keys: list[str] = []
        bad: list[BadRecord] = []
        for at, (row, shard, sample) in enumerate(
            zip(rows.row.tolist(), rows.shard.tolist(), rows.sample.tolist(), strict=True)
        ):
            name, info = self.index.shards[shard].name, reader.info(shard)
            key = info.key(sample)
            try:
                data = reader.read(shard, sample)
                self.pixels.make(data, shard=name, key=key, epoch=epoch, out=pixels[len(kept)])
            except BadSample as error:
                bad.append(BadRecord(name, key, error.reason, (shard, sample), row))
                continue
            labels[len(kept)] = info.labels[sample]
            kept.append(at)
            keys.append(key)
        index = np.stack([rows.shard[kept], rows.sample[kept]], axis=1)
        num = len(kept)
        return Part(epoch, step, image[:num], labels[:num], index, rows.row[kept], keys, bad)


def _start_worker(worker: int) -> None:
    # One process per core is the parallelism; threads inside would fight with the training step.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


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
    ) -> None:
        self.index, self.order, self.pixels = index, order, pixels
        self.rank, self.num_ranks, self.workers, self.cache = rank, num_ranks, workers, cache

    def batches(self, *, start: tuple[int, int] = (0, 0), stop_epoch: int = 1) -> Iterator[Batch]:
        """Batches from (epoch, step) to the end of epoch `stop_epoch - 1`, without a pause between epochs. DataError
        when the data as a whole cannot be read on."""
        stream = _Stream(
            self.index,
            self.order,
            self.pixels,
            rank=self.rank,
            num_ranks=self.num_ranks,
            start=start,
            stop_epoch=stop_epoch,
            cache=self.cache,
        )
        parts: Iterator[Part | DataError]
        if self.workers:
            parts = iter(
                DataLoader(
                    stream,
                    batch_size=None,
                    num_workers=self.workers,
                    collate_fn=_same,
                    prefetch_factor=_PREFETCH,
                    worker_init_fn=_start_worker,
                )
            )
        else:
            parts = iter(stream)
        tasks = list(self.index.tasks)
        while round_of_parts := [_whole(part) for part in islice(parts, max(1, self.workers))]:
            yield join_parts(round_of_parts, tasks)


def _whole(part: Part | DataError) -> Part:
    if isinstance(part, DataError):
        raise part
    return part


def _same(part: Any) -> Any:
    """Parts leave the workers as they are; torch would otherwise look for arrays to convert."""
    return part
