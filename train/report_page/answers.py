"""What a saved model says about each photo of its validation set.

answers = collect_answers("runs/a/best", "shards/val", most=1000); answers.tasks["age"].confidence
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from data.index import load_index
from train.comm import SingleProcess
from train.ensemble import load_ensemble
from train.photo_batches import photo_batches
from train.photo_subset import PhotoSubset
from train.photos import ShardPhotos

_BATCH = 64
_THUMBNAIL = 128  # pixels of the longer side


@dataclass(frozen=True)
class TaskAnswers:
    """Of the labelled photos, all [N]: number of the photo, true class, answer, and the answer's probability."""

    classes: tuple[str, ...]
    photo: np.ndarray
    true: np.ndarray
    answer: np.ndarray
    confidence: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.true == self.answer

    @property
    def confusion(self) -> np.ndarray:
        """int [C, C], rows are the true classes."""
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(matrix, (self.true, self.answer), 1)
        return matrix

    def worst(self, count: int) -> list[int]:
        """Places of the wrong answers, the surest first."""
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count].tolist()


@dataclass(frozen=True)
class Answers:
    """data: where the photos are from; num_photos of num_all were asked about."""

    data: str
    num_photos: int
    num_all: int
    tasks: Mapping[str, TaskAnswers]
    photos: PhotoSubset

    def name(self, photo: int) -> str:
        """shard/key."""
        return "/".join(self.photos.name(0, photo))

    def thumbnail(self, photo: int) -> str:
        """A small JPEG as a data URI."""
        with Image.open(io.BytesIO(self.photos.read(0, photo))) as file:
            file.draft("RGB", (_THUMBNAIL, _THUMBNAIL))  # decodes only as finely as is shown
            small = ImageOps.exif_transpose(file).convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=72)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def collect_answers(
    model: Path, data: str, *, most: int, workers: int, progress: Callable[[int], None] = lambda count: None
) -> Answers:
    """At most `most` photos, evenly spaced. Raises ModelError or DataError where model or photos cannot be read."""
    index = load_index(data)
    ensemble, _ = load_ensemble([str(model)], device=torch.device("cpu"), tasks=index.tasks)
    photos = PhotoSubset(ShardPhotos(index), count=most)
    batches = photo_batches(
        photos, sizes=ensemble.sizes, num_views=1, batch_size=_BATCH, workers=workers, comm=SingleProcess()
    )
    found: dict[str, list[np.ndarray]] = {task: [] for task in ensemble.tasks}
    asked = 0
    for step, batch in enumerate(batches):
        progress(len(batch) + len(batch.bad))
        asked += len(batch)
        if not len(batch):
            continue
        number = np.array(batch.row) + step * _BATCH
        for task, values in ensemble(batch).items():
            confidence, answer = values.exp().max(dim=1)
            true = batch.label[task].numpy()
            columns = np.stack([number, true, answer.numpy(), confidence.numpy()])
            found[task].append(columns[:, true >= 0])
    tasks = {task: _task_answers(ensemble.tasks[task], parts) for task, parts in found.items() if parts}
    return Answers(data, asked, index.num_samples, {task: one for task, one in tasks.items() if len(one.true)}, photos)


def _task_answers(classes: Sequence[str], parts: Sequence[np.ndarray]) -> TaskAnswers:
    photo, true, answer, confidence = np.concatenate(parts, axis=1)
    photo, true, answer = (column.astype(np.int64) for column in (photo, true, answer))
    return TaskAnswers(tuple(classes), photo, true, answer, confidence)
