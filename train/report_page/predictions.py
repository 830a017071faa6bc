"""What saved models say about each photo of their validation set.

answers, refused = collect_predictions({"a": Path("runs/a/best")}, "shards/val", most=500); answers["a"].tasks["age"]
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.images.decode import image_size
from data.images.transform import resize_image
from data.index import load_index
from data.loading.batch import require_all
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import ImageSubset, ShardImages
from models.errors import ModelError
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.ensemble import Ensemble, load_ensemble

PRECISION = "fp32"  # half precision, which a model may have been trained in, is slow on most CPUs
_BATCH = 16  # larger ones leave the caches of a CPU
_THUMBNAIL = 128  # pixels of the longer side


@dataclass(frozen=True)
class TaskPredictions:
    """Of the labelled photos, all [N]: number of the photo, true class, answer (NO_ANSWER, which is wrong, where the
    model gave no number), and the answer's probability."""

    classes: tuple[str, ...]
    photo: np.ndarray
    true: np.ndarray
    answer: np.ndarray
    confidence: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.true == self.answer

    @property
    def answered(self) -> np.ndarray:
        return self.answer != NO_ANSWER

    @property
    def confusion(self) -> np.ndarray:
        """int [C, C], rows are the true classes; photos without an answer are in none."""
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(matrix, (self.true[self.answered], self.answer[self.answered]), 1)
        return matrix

    def worst(self, count: int) -> list[int]:
        """Places of the wrong answers, the surest first."""
        wrong = np.flatnonzero(~self.correct & self.answered)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count].tolist()


@dataclass(frozen=True)
class Predictions:
    """data: where the photos are from; num_photos of num_all were asked about."""

    data: str
    num_photos: int
    num_all: int
    tasks: Mapping[str, TaskPredictions]
    photos: ImageSubset

    @property
    def top1(self) -> dict[str, float]:
        """Task -> share of right answers."""
        return {task: float(one.correct.mean()) for task, one in self.tasks.items()}

    def name(self, photo: int) -> str:
        """shard/key."""
        return "/".join(self.photos.name(0, photo))

    def thumbnail(self, photo: int) -> str:
        """A small JPEG as a data URI."""
        data = self.photos.read(0, photo)
        height, width = image_size(data)
        scale = min(1.0, _THUMBNAIL / max(height, width))
        small = resize_image(data, height=max(1, round(height * scale)), width=max(1, round(width * scale)))
        buffer = io.BytesIO()
        Image.fromarray(small).save(buffer, "JPEG", quality=72)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def collect_predictions(
    models: Mapping[str, Path],
    data: str,
    *,
    most: int,
    workers: int,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, Predictions], dict[str, str]]:
    """The answers of all models to at most `most` photos, evenly spaced, and why the other models have none.

    models: name -> folder; all compute in PRECISION. Each photo is decoded once for every size that a model takes.
    progress: called with the photos of a batch. Raises DataError where the photos cannot be read.
    """
    index = load_index(data)
    ensembles: dict[str, Ensemble] = {}
    refused: dict[str, str] = {}
    for name, path in models.items():
        try:
            ensembles[name], _ = load_ensemble(
                [str(path)], device=torch.device("cpu"), tasks=index.tasks, precision=PRECISION
            )
        except ModelError as error:
            refused[name] = str(error)
    if not ensembles:
        return {}, refused
    photos = ImageSubset(ShardImages(index), count=most)
    sizes = sorted({size for ensemble in ensembles.values() for size in ensemble.sizes})
    batches = eval_batches(photos, sizes=sizes, num_views=1, batch_size=_BATCH, workers=workers)
    found: dict[str, dict[str, list[np.ndarray]]] = {
        name: {task: [] for task in ensemble.tasks} for name, ensemble in ensembles.items()
    }
    asked = num_bad = 0
    for step, batch in enumerate(batches):
        progress(len(batch) + len(batch.bad))
        asked += len(batch)
        num_bad += len(batch.bad)
        if not len(batch):
            continue
        number = np.array(batch.row) + step * _BATCH
        for name, ensemble in ensembles.items():
            for task, values in ensemble(batch).items():
                true, chosen = batch.label[task].numpy(), answer(values).numpy()
                columns = np.stack([number, true, chosen, values.exp().amax(dim=1).numpy()])
                found[name][task].append(columns[:, true >= 0])
    require_all(asked + num_bad, int(photos.counts.sum()), what=f"asking about {data}")
    answers = {}
    for name, ensemble in ensembles.items():
        tasks = {task: _task_answers(ensemble.tasks[task], parts) for task, parts in found[name].items() if parts}
        labelled = {task: one for task, one in tasks.items() if len(one.true)}
        answers[name] = Predictions(data, asked, index.num_samples, labelled, photos)
    return answers, refused


def _task_answers(classes: Sequence[str], parts: Sequence[np.ndarray]) -> TaskPredictions:
    photo, true, answer, confidence = np.concatenate(parts, axis=1)
    photo, true, answer = (column.astype(np.int64) for column in (photo, true, answer))
    return TaskPredictions(tuple(classes), photo, true, answer, confidence)
