"""What a rank sees of one step: the samples that it owns, and the ones that could not be used.

for batch in loader: batch.image  # uint8 [N, S, S, 3]
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from data.errors import LoaderLost


@dataclass(frozen=True)
class BadRecord:
    """A sample that keeps its place in the order but cannot be used."""

    shard: str
    key: str
    reason: str
    index: tuple[int, int]  # (shard number, sample number)
    row: int  # place in the global batch


@dataclass(frozen=True)
class WorkerBatch:
    """One loader process's samples of one step, but for the arrays, which it has written into the step's memory: the
    i-th of the rank's planned rows at place i."""

    at: tuple[int, int]  # epoch, step
    labels: np.ndarray  # int32 [n, num_tasks]
    index: np.ndarray  # int64 [n, 2]
    row: np.ndarray  # int64 [n]
    key: list[str]
    bad: list[BadRecord]


def _require_whole(parts: Sequence[WorkerBatch], *, at: tuple[int, int], places: np.ndarray) -> None:
    """The rows that are kept and those that are bad must be exactly `places` (int64 [n], ascending), the rows of step
    `at`. Raises LoaderLost: a batch that came short would train, or measure, in silence."""
    for part in parts:
        if part.at != at:
            raise LoaderLost("a loader process gave epoch {} step {} for epoch {} step {}".format(*part.at, *at))
    bad = [record.row for part in parts for record in part.bad]
    rows = np.sort(np.concatenate([*(part.row for part in parts), np.array(bad, dtype=np.int64)]))
    if not np.array_equal(rows, places):
        planned = len(np.intersect1d(rows, places))
        raise LoaderLost(
            "the loader processes gave {} samples, {} of them planned, for the {} of epoch {} step {}".format(
                len(rows), planned, len(places), *at
            )
        )


@dataclass(frozen=True)
class JoinedStep:
    """What a rank's loader processes made of one step, in position order, but for the arrays."""

    epoch: int
    step: int
    label: dict[str, torch.Tensor]  # task -> int64 [n], -1 where the label is missing
    key: list[str]
    index: np.ndarray  # int64 [n, 2]: shard number, sample number in the shard
    row: np.ndarray  # int64 [n]: place in the global batch
    bad: list[BadRecord]
    kept: slice | np.ndarray  # the good ones among the rank's planned rows


def join_parts(
    parts: Sequence[WorkerBatch], *, at: tuple[int, int], places: np.ndarray, tasks: Sequence[str]
) -> JoinedStep:
    """places: the rank's planned rows. Raises LoaderLost where the parts are not the whole step."""
    _require_whole(parts, at=at, places=places)
    row = np.concatenate([part.row for part in parts])
    order = np.argsort(row)
    row = row[order]
    keys = [key for part in parts for key in part.key]
    labels = np.concatenate([part.labels for part in parts])[order]
    epoch, step = at
    return JoinedStep(
        epoch=epoch,
        step=step,
        label={task: torch.from_numpy(labels[:, column].astype(np.int64)) for column, task in enumerate(tasks)},
        key=[keys[number] for number in order],
        index=np.concatenate([part.index for part in parts])[order],
        row=row,
        bad=sorted((record for part in parts for record in part.bad), key=lambda record: record.row),
        # A slice, where none is bad, leaves the images where the processes wrote them.
        kept=slice(len(row)) if len(row) == len(places) else np.searchsorted(places, row),
    )


def require_all(count: int, planned: int, *, what: str) -> None:
    """At the end of a pass, whoever counted: LoaderLost unless every planned sample came, as a good or a bad one."""
    if count != planned:
        raise LoaderLost(f"{what}: {count:,} samples came, {planned:,} were planned")


def copy_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """A copy on a GPU that overlaps with compute."""
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass
class Batch:
    """One rank's samples of one step, in position order."""

    epoch: int
    step: int
    image: torch.Tensor  # uint8 [N, S, S, 3], RGB
    label: dict[str, torch.Tensor]  # task -> int64 [N], -1 where the label is missing
    valid: dict[str, torch.Tensor]  # task -> bool [N]
    key: list[str]
    index: torch.Tensor  # int64 [N, 2]: shard number, sample number in the shard
    row: torch.Tensor  # int64 [N]: place in the global batch
    bad: list[BadRecord]
    teacher_image: torch.Tensor | None = None  # uint8 [N, S', S', 3]: the same views at the teacher's own size
    teacher: torch.Tensor | None = None  # [N, classes of all teacher tasks]: logits, cached or computed

    def __len__(self) -> int:
        return len(self.key)

    def to(self, device: torch.device) -> "Batch":
        """Tensors on `device`; the copy overlaps with compute when it starts from pinned memory."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            image=copy_to(device, self.image),
            label={task: copy_to(device, label) for task, label in self.label.items()},
            valid={task: copy_to(device, valid) for task, valid in self.valid.items()},
            teacher_image=None if self.teacher_image is None else copy_to(device, self.teacher_image),
            teacher=None if self.teacher is None else copy_to(device, self.teacher),
        )

    def split(self, size: int) -> "list[Batch]":
        """Micro-batches of at most `size` samples and as equal as can be (a lone last sample would upset norms)."""
        count = -(-len(self) // size) if self.key else 1
        if count == 1:
            return [self]
        borders = [len(self) * number // count for number in range(count + 1)]
        return [self._slice(slice(low, high)) for low, high in pairwise(borders)]

    def _slice(self, part: slice) -> "Batch":
        return replace(
            self,
            image=self.image[part],
            label={task: label[part] for task, label in self.label.items()},
            valid={task: valid[part] for task, valid in self.valid.items()},
            key=self.key[part],
            index=self.index[part],
            row=self.row[part],
            bad=[],
            teacher_image=None if self.teacher_image is None else self.teacher_image[part],
            teacher=None if self.teacher is None else self.teacher[part],
        )
