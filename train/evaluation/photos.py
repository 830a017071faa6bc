"""What models say about photos, asked from Python.

ensemble, notes = load_ensemble(["runs/a/best"], device=torch.device("cpu"))
for answer in predict_photos(ensemble, ["a.jpg", "b.png"]): print(answer.photo, answer.classes)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.loading.eval_loader import EvalBatch, eval_batches
from data.loading.image_sets import named_images
from train.evaluation.ensemble import Ensemble
from train.evaluation.evaluation_pass import Accumulator, Outputs, run_evaluation
from train.evaluation.prediction import predictions


@dataclass(frozen=True)
class PhotoAnswer:
    """photo: as it was named. probabilities: task -> class -> probability; empty where `error` says why there are
    none."""

    photo: str
    probabilities: Mapping[str, Mapping[str, float]]
    error: str = ""

    @property
    def classes(self) -> dict[str, str]:
        """Task -> its most probable class."""
        return {task: max(values, key=values.__getitem__) for task, values in self.probabilities.items()}


def predict_photos(
    ensemble: Ensemble, photos: Sequence[str | Path], *, num_views: int = 1, batch_size: int = 64, workers: int = 0
) -> list[PhotoAnswer]:
    """One answer for each photo, in their order. num_views: of each photo, whose probabilities are averaged; workers:
    decoding processes, 0 for none. A photo that cannot be used has an answer with an error; DataError for a folder."""
    answers = _Answers(ensemble)
    images = named_images([str(photo) for photo in photos])
    some_order = next(iter(ensemble.members[0].predictor.order.values()))
    run_evaluation(
        {"ensemble": ensemble},
        eval_batches(images, sizes=ensemble.sizes, num_views=num_views, batch_size=batch_size, workers=workers),
        [answers],
        num_samples=len(photos),
        what="predicting",
        device=some_order.device,
    )
    return answers.found


class _Answers(Accumulator):
    def __init__(self, ensemble: Ensemble) -> None:
        self._tasks = ensemble.tasks
        self.found: list[PhotoAnswer] = []

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        for prediction in predictions(batch, outputs.get("ensemble", {})):
            named = {
                task: dict(zip(self._tasks[task], values, strict=True))
                for task, values in prediction.probabilities.items()
            }
            self.found.append(PhotoAnswer(prediction.key, named, prediction.error))
