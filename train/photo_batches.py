"""Batches of photos, each rendered at one or more sizes and in one or more views, for evaluation and prediction.

    for batch in photo_batches(photos, sizes=[224], num_views=8, batch_size=64, workers=1): batch.image[224]

A photo is read once; the order is that of the index, and the batches do not depend on the number of workers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.batch import BadRecord
from data.decode import MAX_PIXELS, image_size
from data.errors import BadSample, DataError
from data.loader import EvalOrder
from data.loader_processes import from_processes
from data.order import Owner
from data.pixels import render_bytes
from train.comm import Comm
from train.photos import Photos
from train.view_series import evaluation_view


@dataclass(frozen=True)
class PhotoBatch:
    """One rank's photos of one step."""

    image: dict[int, Tensor]  # size -> uint8 [num_views, N, size, size, 3]
    label: dict[str, Tensor]  # task -> int64 [N], -1 where the label is missing
    key: list[str]
    row: list[int]  # place among all photos of the step
    bad: list[BadRecord]

    def __len__(self) -> int:
        return len(self.key)

    def to(self, device: torch.device) -> "PhotoBatch":
        """Images and labels on `device`."""
        return replace(
            self,
            image={size: views.to(device) for size, views in self.image.items()},
            label={task: label.to(device) for task, label in self.label.items()},
        )


@dataclass(frozen=True)
class _Steps(Dataset[PhotoBatch | DataError]):
    """Step number -> this rank's batch."""

    photos: Photos
    order: EvalOrder
    owner: Owner
    sizes: Sequence[int]
    num_views: int

    def __getitem__(self, step: int) -> PhotoBatch | DataError:
        try:
            return self._batch(step)
        except DataError as error:  # raised in a worker it would arrive wrapped in a traceback
            return error

    def _batch(self, step: int) -> PhotoBatch:
        rows = self.order.rows(0, step, self.owner)
        for group in np.unique(rows.shard).tolist():
            numbers = rows.sample[rows.shard == group]
            self.photos.will_need(group, int(numbers[0]), int(numbers[-1]) + 1)
        image = {
            size: torch.empty((self.num_views, len(rows.row), size, size, 3), dtype=torch.uint8) for size in self.sizes
        }
        labels: list[np.ndarray] = []
        keys: list[str] = []
        places: list[int] = []
        bad: list[BadRecord] = []
        for row, group, number in zip(rows.row.tolist(), rows.shard.tolist(), rows.sample.tolist(), strict=True):
            shard, key = self.photos.name(group, number)
            out = {size: views[:, len(keys)].numpy() for size, views in image.items()}
            try:
                _render(self.photos.read(group, number), shard=shard, key=key, out=out)
            except BadSample as error:
                bad.append(BadRecord(shard, key, error.reason, (group, number), row))
                continue
            labels.append(self.photos.labels(group, number))
            keys.append(key)
            places.append(row)
        columns = torch.from_numpy(np.array(labels, dtype=np.int64).reshape(len(keys), len(self.photos.tasks)))
        return PhotoBatch(
            image={size: views[:, : len(keys)] for size, views in image.items()},
            label={task: columns[:, at] for at, task in enumerate(self.photos.tasks)},
            key=keys,
            row=places,
            bad=bad,
        )


def photo_batches(
    photos: Photos, *, sizes: Sequence[int], num_views: int, batch_size: int, workers: int, comm: Comm
) -> Iterator[PhotoBatch]:
    """Every photo once, over all ranks. batch_size: photos per rank and step; workers=0 decodes in this process.
    Raises DataError, LoaderLost."""
    order = EvalOrder(photos.counts, batch_size=batch_size, num_ranks=comm.size)
    steps = _Steps(photos, order, Owner(comm.rank, comm.size), sizes, num_views)
    numbers = range(order.steps_per_epoch)
    loaded: Iterable[PhotoBatch | DataError] = map(steps.__getitem__, numbers)
    if workers:
        loaded = from_processes(steps, workers=workers, sampler=numbers)
    for batch in loaded:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _render(data: bytes, *, shard: str, key: str, out: dict[int, np.ndarray]) -> None:
    """Every view at every size; out: size -> uint8 [num_views, size, size, 3]."""
    height, width = image_size(data)
    for size, views in out.items():
        for number, pixels in enumerate(views):
            view = evaluation_view(number, height=height, width=width, shard=shard, key=key)
            render_bytes(data, view, height=height, width=width, size=size, max_pixels=MAX_PIXELS, out=pixels)
