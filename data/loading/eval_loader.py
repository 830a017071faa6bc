"""Batches of photos, each rendered at one or more sizes and in one or more views, for evaluation and prediction.

    for batch in eval_batches(photos, sizes=[224], num_views=8, batch_size=64, workers=1): batch.image[224]

A photo is read once; the order is that of the index, and the batches do not depend on the number of workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.errors import BadSample
from data.images.decode import MAX_PIXELS, image_size
from data.images.transform import render_bytes
from data.images.tta import evaluation_view
from data.loading.batch import BadRecord, require_whole
from data.loading.image_sets import ImageSet
from data.loading.step_memory import Arrays, Layout
from data.loading.worker_processes import side_by_side
from data.sampling.sampler import EvalSampler, WorkerInfo


@dataclass(frozen=True)
class EvalBatch:
    """One rank's photos of one step."""

    image: dict[int, Tensor]  # size -> uint8 [num_views, N, size, size, 3]
    label: dict[str, Tensor]  # task -> int64 [N], -1 where the label is missing
    key: list[str]
    row: list[int]  # place among all photos of the step
    bad: list[BadRecord]

    def __len__(self) -> int:
        return len(self.key)

    def to(self, device: torch.device) -> "EvalBatch":
        """Images and labels on `device`."""
        return replace(
            self,
            image={size: views.to(device) for size, views in self.image.items()},
            label={task: label.to(device) for task, label in self.label.items()},
        )


@dataclass(frozen=True)
class _Piece:
    """One process's photos of a step, but for the images, which lie in the step's memory."""

    at: tuple[int, int]
    row: np.ndarray  # int64 [n]
    labels: np.ndarray  # int64 [n, num_tasks]
    key: list[str]
    bad: list[BadRecord]


@dataclass(frozen=True)
class _Plan:
    """This rank's steps; loader processes work on copies."""

    photos: ImageSet
    order: EvalSampler
    owner: WorkerInfo
    sizes: Sequence[int]
    num_views: int

    @property
    def layout(self) -> Layout:
        rows = self.order.most_rows(self.owner.num_ranks)
        return {str(size): ((self.num_views, rows, size, size, 3), np.uint8) for size in self.sizes}

    def places(self, at: tuple[int, int]) -> np.ndarray:
        return self.order.places(*at, self.owner)

    def join(self, made: tuple[tuple[int, int], Arrays, list[_Piece]]) -> EvalBatch:
        """The pieces are stretches of neighbours, in order. Raises LoaderLost when they are not the whole step."""
        at, arrays, pieces = made
        places = self.places(at)
        require_whole(pieces, at=at, places=places)
        row = np.concatenate([piece.row for piece in pieces])
        kept = slice(len(row)) if len(row) == len(places) else np.searchsorted(places, row)
        labels = torch.from_numpy(np.concatenate([piece.labels for piece in pieces]))
        return EvalBatch(
            image={int(size): torch.from_numpy(views[:, kept]) for size, views in arrays.items()},
            label={task: labels[:, column] for column, task in enumerate(self.photos.tasks)},
            key=[key for piece in pieces for key in piece.key],
            row=row.tolist(),
            bad=[record for piece in pieces for record in piece.bad],
        )

    def start(self, worker: int, num_workers: int) -> "_PieceMaker":
        return _PieceMaker(self, replace(self.owner, worker=worker, num_workers=num_workers))


@dataclass(frozen=True)
class _PieceMaker:
    plan: _Plan
    owner: WorkerInfo

    def make(self, at: tuple[int, int], arrays: Arrays) -> _Piece:
        photos, rows = self.plan.photos, self.plan.order.rows(*at, self.owner)
        for group in np.unique(rows.shard).tolist():
            numbers = rows.sample[rows.shard == group]
            photos.prefetch(group, int(numbers[0]), int(numbers[-1]) + 1)
        kept: list[int] = []
        labels: list[np.ndarray] = []
        keys: list[str] = []
        bad: list[BadRecord] = []
        places = np.searchsorted(self.plan.places(at), rows.row).tolist()
        samples = zip(rows.row.tolist(), rows.shard.tolist(), rows.sample.tolist(), places, strict=True)
        for row, group, number, place in samples:
            shard, key = photos.name(group, number)
            out = {size: arrays[str(size)][:, place] for size in self.plan.sizes}
            try:
                _render(photos.read(group, number), shard=shard, key=key, out=out)
            except BadSample as error:
                bad.append(BadRecord(shard, key, error.reason, (group, number), row))
                continue
            labels.append(photos.labels(group, number))
            keys.append(key)
            kept.append(row)
        columns = np.array(labels, dtype=np.int64).reshape(len(kept), len(photos.tasks))
        return _Piece(at, np.array(kept, dtype=np.int64), columns, keys, bad)

    def close(self) -> None:
        return None


def eval_batches(
    photos: ImageSet,
    *,
    sizes: Sequence[int],
    num_views: int,
    batch_size: int,
    workers: int,
    rank: int = 0,
    num_ranks: int = 1,
    sharers: int = 1,
) -> Iterator[EvalBatch]:
    """Every photo once, over all ranks. batch_size: photos per rank and step; workers=0 decodes in this process;
    sharers: ranks that share this host's memory. Raises DataError, LoaderLost."""
    order = EvalSampler(photos.counts, batch_size=batch_size, num_ranks=num_ranks)
    plan = _Plan(photos, order, WorkerInfo(rank, num_ranks), sizes, num_views)
    steps = ((0, step) for step in range(order.steps_per_epoch))
    # A map keeps nothing: the memory of a batch is free when the caller drops it.
    return map(plan.join, side_by_side(plan, steps, workers=workers, sharers=sharers))


def _render(data: bytes, *, shard: str, key: str, out: dict[int, np.ndarray]) -> None:
    """Every view at every size; out: size -> uint8 [num_views, size, size, 3]."""
    height, width = image_size(data)
    for size, views in out.items():
        for number, pixels in enumerate(views):
            view = evaluation_view(number, height=height, width=width, shard=shard, key=key)
            render_bytes(data, view, height=height, width=width, size=size, max_pixels=MAX_PIXELS, out=pixels)
