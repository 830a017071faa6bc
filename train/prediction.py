"""What models say about each photo of a batch, in the order of the photos.

for prediction in predictions(batch, ensemble, device): print(prediction.key, prediction.probabilities)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from train.ensemble import Ensemble
from train.photo_batches import PhotoBatch

NOT_A_NUMBER = "the model's answer is not a number; try --precision fp32"


@dataclass(frozen=True)
class Prediction:
    """Either probabilities (task -> one per class), or the error that explains their absence."""

    key: str
    probabilities: Mapping[str, Sequence[float]]
    error: str = ""


def predictions(batch: PhotoBatch, ensemble: Ensemble, device: torch.device) -> Iterator[Prediction]:
    """One for every photo of the batch, also for those that could not be used."""
    answers = {task: values.exp().tolist() for task, values in ensemble(batch.to(device)).items()} if len(batch) else {}
    by_row = {record.row: Prediction(record.key, {}, record.reason) for record in batch.bad}
    for at, (row, key) in enumerate(zip(batch.row, batch.key, strict=True)):
        probabilities = {task: values[at] for task, values in answers.items()}
        finite = all(math.isfinite(value) for values in probabilities.values() for value in values)
        by_row[row] = Prediction(key, probabilities) if finite else Prediction(key, {}, NOT_A_NUMBER)
    for row in sorted(by_row):
        yield by_row[row]
