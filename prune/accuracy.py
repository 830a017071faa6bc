"""Top-1 of a network before and after its pruning, on the same photos.

accuracy = measure_accuracy({"before": student, "after": narrow}, batches)
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from data.errors import DataError
from data.index import match_classes
from data.index.labels import MISSING
from data.loading.image_sets import FileImages, ShardImages
from data.storage import is_remote
from models.artifact import ArtifactMeta
from models.student import Student
from prune.importance import Batch
from train.evaluation.answer import answer

_NORMAL_95 = 1.959964  # of the normal distribution, 95 % lie within so many standard deviations


def photos_with_labels(images: ShardImages | FileImages, meta: ArtifactMeta) -> tuple[ShardImages | None, str]:
    """The photos with their classes numbered as the model's; or None, and why there is no accuracy to be measured:
    nothing where nobody would expect one."""
    if not isinstance(images, ShardImages):
        return None, ""
    if not set(images.index.tasks) & set(meta.tasks):
        return None, f"their tasks are {', '.join(images.index.tasks)}, the model's are {', '.join(meta.tasks)}"
    try:
        return ShardImages(match_classes(images.index, meta.tasks, of="the model")), ""
    except DataError as error:
        return None, str(error)


@torch.no_grad()
def measure_accuracy(students: Mapping[str, Student], batches: Iterable[Batch]) -> dict[str, dict[str, Any]]:
    """task -> {"count": labelled photos, name of the student: {"top1": share, "interval": [low, high]}}, without tasks
    that no photo is labelled for. A photo whose logits are not numbers counts as wrong. Each photo is read once."""
    right = {name: dict.fromkeys(student.tasks, 0) for name, student in students.items()}
    count: dict[str, int] = {}
    for images, labels in batches:
        logits = {name: student(images) for name, student in students.items()}
        for task, wanted in labels.items():
            count[task] = count.get(task, 0) + int((wanted != MISSING).sum())
            for name in students:
                right[name][task] += int((answer(logits[name][task]) == wanted).sum())
    return {
        task: {
            "count": total,
            **{
                name: {"top1": found[task] / total, "interval": list(wilson_interval(found[task], total))}
                for name, found in right.items()
            },
        }
        for task, total in count.items()
        if total
    }


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which stays between 0 and 1 for few photos, too. total: above 0."""
    share, spread = right / total, _NORMAL_95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    reach = _NORMAL_95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / total / 4)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def is_trained_on(meta: ArtifactMeta, data: str) -> bool:
    """Whether these are the shards that the model was trained on, as its provenance names them."""
    config = meta.provenance.get("config") or {}
    trained = [(meta.provenance.get("data") or {}).get("train"), (config.get("data") or {}).get("train")]
    return any(isinstance(one, str) and _place(one) == _place(data) for one in trained)


def _place(data: str) -> str:
    return data.rstrip("/") if is_remote(data) else str(Path(data.removeprefix("file://")).resolve())
