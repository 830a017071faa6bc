"""What a rank sees of one step: the samples that it owns, and the ones that could not be used.

for batch in loader: batch.image  # uint8 [N, S, S, 3]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

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


class Piece(Protocol):
    """What one loader process made of a step, as far as it takes to see that nothing is missing."""

    @property
    def at(self) -> tuple[int, int]: ...

    @property
    def row(self) -> np.ndarray: ...

    @property
    def bad(self) -> list[BadRecord]: ...


def require_whole(pieces: Sequence[Piece], *, at: tuple[int, int], places: np.ndarray) -> None:
    """The rows that are kept and those that are bad must be exactly `places` (int64 [n], ascending), the rows of step
    `at`. Raises LoaderLost: a batch that came short would train, or measure, in silence."""
    for piece in pieces:
        if piece.at != at:
            raise LoaderLost("a loader process gave epoch {} step {} for epoch {} step {}".format(*piece.at, *at))
    bad = [record.row for piece in pieces for record in piece.bad]
    rows = np.sort(np.concatenate([*(piece.row for piece in pieces), np.array(bad, dtype=np.int64)]))
    if not np.array_equal(rows, places):
        planned = len(np.intersect1d(rows, places))
        raise LoaderLost(
            "the loader processes gave {} samples, {} of them planned, for the {} of epoch {} step {}".format(
                len(rows), planned, len(places), *at
            )
        )


def require_all(count: int, planned: int, *, what: str) -> None:
    """At the end of a pass, whoever counted: LoaderLost unless every planned sample came, as a good or a bad one."""
    if count != planned:
        raise LoaderLost(f"{what}: {count:,} samples came, {planned:,} were planned")


@dataclass(frozen=True)
class WorkerBatch:
    """One loader process's samples of one step, but for the arrays, which it has written into the step's memory: row i
    of the rank's planned rows at place i."""

    at: tuple[int, int]  # epoch, step
    labels: np.ndarray  # int32 [n, num_tasks]
    index: np.ndarray  # int64 [n, 2]
    row: np.ndarray  # int64 [n]
    key: list[str]
    bad: list[BadRecord]


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

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return replace(
            self,
            image=move(self.image),
            label={task: move(label) for task, label in self.label.items()},
            valid={task: move(valid) for task, valid in self.valid.items()},
            teacher_image=None if self.teacher_image is None else move(self.teacher_image),
            teacher=None if self.teacher is None else move(self.teacher),
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


def join_parts(
    parts: Sequence[WorkerBatch],
    arrays: Mapping[str, np.ndarray],
    *,
    at: tuple[int, int],
    places: np.ndarray,
    tasks: list[str],
) -> Batch:
    """One batch from the parts of a rank's loader processes, rows in position order. places: the rank's planned rows;
    arrays: "image" and, where the step has them, "teacher_image" and "teacher", each with a row for every place.

    The images stay where the processes wrote them, unless a bad sample leaves a gap. Raises LoaderLost."""
    require_whole(parts, at=at, places=places)
    row = np.concatenate([part.row for part in parts])
    order = np.argsort(row)
    row = row[order]
    keys = [key for part in parts for key in part.key]
    labels = np.concatenate([part.labels for part in parts])[order]
    kept = slice(len(row)) if len(row) == len(places) else np.searchsorted(places, row)
    rows = {name: torch.from_numpy(array[kept]) for name, array in arrays.items()}
    label = {task: torch.from_numpy(labels[:, column].astype(np.int64)) for column, task in enumerate(tasks)}
    epoch, step = at
    return Batch(
        epoch=epoch,
        step=step,
        image=rows["image"],
        label=label,
        valid={task: column >= 0 for task, column in label.items()},
        key=[keys[number] for number in order],
        index=torch.from_numpy(np.concatenate([part.index for part in parts])[order]),
        row=torch.from_numpy(row),
        bad=sorted((record for part in parts for record in part.bad), key=lambda record: record.row),
        teacher_image=rows.get("teacher_image"),
        teacher=rows.get("teacher"),
    )
