"""What saved models say about each image of their validation set.

found, refused = collect_predictions({"a": Path("runs/a/best")}, "shards/val", most=500, workers=1); found["a"].top1
"""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.images.decode import image_size
from data.images.transform import resize_image
from data.index import load_index
from data.loading.eval_loader import EvalBatch, eval_batches
from data.loading.image_sets import ImageSubset, ShardImages
from models.errors import ModelError
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.class_scores import ClassScore, class_scores
from train.evaluation.ensemble import Ensemble, load_ensemble
from train.evaluation.evaluation_pass import Accumulator, Outputs, run_evaluation

PRECISION = "fp32"  # half precision, which a model may have been trained in, is slow on most CPUs
_BATCH = 16  # larger ones leave the caches of a CPU
_THUMBNAIL = 128  # pixels of the longer side


@dataclass(frozen=True)
class TaskPredictions:
    """Of the labelled images, all [N]: number of the image, true class, predicted class (NO_ANSWER, which is wrong,
    where the model gave no number), and its probability. class_values: of an ordered task, else empty. temperature:
    that the logits were divided by."""

    classes: tuple[str, ...]
    class_values: tuple[float, ...]
    temperature: float
    image: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.true == self.predicted

    @property
    def is_answered(self) -> np.ndarray:
        return self.predicted != NO_ANSWER

    @property
    def confusion(self) -> np.ndarray:
        """int [C, C], rows are the true classes; images without an answer are in none."""
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(matrix, (self.true[self.is_answered], self.predicted[self.is_answered]), 1)
        return matrix

    @property
    def class_scores(self) -> list[ClassScore]:
        """Of all classes, in their order."""
        return class_scores(self.confusion, np.bincount(self.true, minlength=len(self.classes)), self.classes)

    @property
    def mean_absolute_error(self) -> float | None:
        """Of an ordered task; None where an answer is no number, which has no error."""
        if not self.class_values or not self.is_answered.all():
            return None
        values = np.array(self.class_values)
        return float(np.abs(values[self.predicted] - values[self.true]).mean())

    def worst(self, count: int) -> list[int]:
        """Places of the wrong predictions, the surest first."""
        wrong = np.flatnonzero(~self.correct & self.is_answered)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count].tolist()


@dataclass(frozen=True)
class Predictions:
    """data: where the images are from; num_images of num_all were evaluated."""

    data: str
    num_images: int
    num_all: int
    tasks: Mapping[str, TaskPredictions]
    images: ImageSubset

    @property
    def top1(self) -> dict[str, float]:
        """Task -> share of correct predictions."""
        return {task: float(one.correct.mean()) for task, one in self.tasks.items()}

    @property
    def errors(self) -> dict[str, float | None]:
        """Ordered task -> mean absolute error."""
        return {task: one.mean_absolute_error for task, one in self.tasks.items() if one.class_values}

    def name(self, image: int) -> str:
        """shard/key."""
        return "/".join(self.images.name(0, image))

    def thumbnail(self, image: int) -> str:
        """A small JPEG as a data URI."""
        return thumbnail(self.images.read(0, image))


def thumbnail(data: bytes) -> str:
    """Of an encoded photo: a small JPEG as a data URI."""
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
    """The predictions of all models for at most `most` images, evenly spaced, and why the other models have none.

    models: name -> folder; all compute in PRECISION. Each image is decoded once for every size that a model takes.
    progress: called with the images of a batch. Raises DataError where the images cannot be read.
    """
    index = load_index(data)
    cpu = torch.device("cpu")
    ensembles: dict[str, Ensemble] = {}
    refused: dict[str, str] = {}
    for name, path in models.items():
        try:
            ensembles[name], _ = load_ensemble([str(path)], device=cpu, tasks=index.tasks, precision=PRECISION)
        except ModelError as error:
            refused[name] = str(error)
    if not ensembles:
        return {}, refused
    images = ImageSubset(ShardImages(index), count=most)
    sizes = sorted({size for ensemble in ensembles.values() for size in ensemble.sizes})
    columns = {name: _Columns(name, ensemble) for name, ensemble in ensembles.items()}
    seen = run_evaluation(
        ensembles,
        eval_batches(images, sizes=sizes, num_views=1, batch_size=_BATCH, workers=workers),
        list(columns.values()),
        num_samples=int(images.counts.sum()),
        what=f"asking about {data}",
        device=cpu,
        progress=progress,
    )
    found = {
        name: Predictions(data, seen.num_good, index.num_samples, one.result(), images) for name, one in columns.items()
    }
    return found, refused


class _Columns(Accumulator):
    """What the model `name` predicts for every labelled image."""

    def __init__(self, name: str, ensemble: Ensemble) -> None:
        self._name, self._ensemble = name, ensemble
        self._parts: dict[str, list[np.ndarray]] = {task: [] for task in ensemble.tasks}
        self._num_batches = 0

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        image = np.array(batch.row) + self._num_batches * _BATCH
        self._num_batches += 1
        for task, values in outputs.get(self._name, {}).items():
            true, predicted = batch.label[task].numpy(), answer(values).numpy()
            columns = np.stack([image, true, predicted, values.exp().amax(dim=1).numpy()])
            self._parts[task].append(columns[:, true >= 0])

    def result(self) -> dict[str, TaskPredictions]:
        """Of the tasks with a labelled image."""
        found = {}
        for task, parts in self._parts.items():
            if parts and sum(part.shape[1] for part in parts):
                image, true, predicted, confidence = np.concatenate(parts, axis=1)
                image, true, predicted = (column.astype(np.int64) for column in (image, true, predicted))
                classes, values = self._ensemble.tasks[task], self._ensemble.class_values.get(task, ())
                (member,) = self._ensemble.members
                found[task] = TaskPredictions(
                    classes=tuple(classes),
                    class_values=tuple(values),
                    temperature=member.predictor.temperature.get(task, 1.0),
                    image=image,
                    true=true,
                    predicted=predicted,
                    confidence=confidence,
                )
        return found
