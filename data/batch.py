"""What a rank sees of one step: the samples that it owns, and the ones that could not be used.

for batch in loader: batch.image  # uint8 [N, S, S, 3]
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch


@dataclass(frozen=True)
class BadRecord:
    """A sample that keeps its place in the order but cannot be used."""

    shard: str
    key: str
    reason: str
    index: tuple[int, int]  # (shard number, sample number)
    row: int  # place in the global batch


@dataclass
class Part:
    """One loader worker's samples of one step; arrays are small and travel by value, images in shared memory."""

    epoch: int
    step: int
    image: torch.Tensor  # uint8 [n, S, S, 3]
    labels: np.ndarray  # int32 [n, num_tasks]
    index: np.ndarray  # int64 [n, 2]
    row: np.ndarray  # int64 [n]
    key: list[str]
    bad: list[BadRecord] = field(default_factory=list)
    teacher_image: torch.Tensor | None = None  # the same views at the teacher's size, uint8 [n, S', S', 3]
    teacher: np.ndarray | None = None  # float16 [n, classes of all teacher tasks], from the teacher cache


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


def join_parts(parts: list[Part], tasks: list[str]) -> Batch:
    """One batch from the parts of a rank's workers, rows in position order."""
    if len(parts) == 1:
        part = parts[0]
        image, labels, index, row, key = part.image, part.labels, part.index, part.row, part.key
        teacher_image, teacher = part.teacher_image, part.teacher
    else:
        row = np.concatenate([part.row for part in parts])
        order = np.argsort(row)
        row = row[order]
        labels = np.concatenate([part.labels for part in parts])[order]
        index = np.concatenate([part.index for part in parts])[order]
        keys = [key for part in parts for key in part.key]
        key = [keys[at] for at in order]
        image = torch.cat([part.image for part in parts])[torch.from_numpy(order)]
        teacher_images = [part.teacher_image for part in parts if part.teacher_image is not None]
        teacher_image = torch.cat(teacher_images)[torch.from_numpy(order)] if teacher_images else None
        logits = [part.teacher for part in parts if part.teacher is not None]
        teacher = np.concatenate(logits)[order] if logits else None
    label = {task: torch.from_numpy(labels[:, at].astype(np.int64)) for at, task in enumerate(tasks)}
    return Batch(
        epoch=parts[0].epoch,
        step=parts[0].step,
        image=image,
        label=label,
        valid={task: column >= 0 for task, column in label.items()},
        key=key,
        index=torch.from_numpy(index),
        row=torch.from_numpy(row),
        bad=sorted((record for part in parts for record in part.bad), key=lambda record: record.row),
        teacher_image=teacher_image,
        teacher=None if teacher is None else torch.from_numpy(teacher),
    )
