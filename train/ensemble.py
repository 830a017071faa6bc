"""One or more saved models that answer together: the mean of their softmax probabilities over models and views.

    ensemble = load_ensemble(paths, device=device, image_size=None, precision=None)
    log_probabilities = ensemble(batch)

The models may differ in heads, input sizes and normalisation. Classes are matched by name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from models.artifact import ArtifactMeta, load_artifact
from models.errors import ModelError
from models.student import Student
from train.photo_batches import PhotoBatch
from train.step import PRECISIONS, Normalise

Tasks = Mapping[str, Sequence[str]]  # task -> class names in label order


@dataclass(frozen=True)
class Member:
    """One model on its device. order: task -> int64 [C], this model's position of each class of the ensemble."""

    path: str
    meta: ArtifactMeta
    model: Student
    normalise: Normalise
    image_size: int
    precision: str
    order: Mapping[str, Tensor]

    def log_probabilities(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 [N, S, S, 3] -> float32 [N, C] for each task of `order`."""
        with torch.autocast(image.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            logits = self.model(self.normalise(image))
        return {task: logits[task].float().log_softmax(dim=1)[:, order] for task, order in self.order.items()}


class Ensemble:
    """Attributes: members, and tasks {name: class names} that at least one member answers."""

    def __init__(self, members: Sequence[Member], tasks: Tasks) -> None:
        self.members, self.tasks = members, tasks

    @property
    def sizes(self) -> list[int]:
        """The image sizes that a batch must have."""
        return sorted({member.image_size for member in self.members})

    @torch.inference_mode()
    def __call__(self, batch: PhotoBatch) -> dict[str, Tensor]:
        """task -> log of the mean probability, float32 [N, C]. One forward pass per model and view."""
        answers: dict[str, list[Tensor]] = {task: [] for task in self.tasks}
        for member in self.members:
            for image in batch.image[member.image_size]:
                for task, values in member.log_probabilities(image).items():
                    answers[task].append(values)
        # Summed as logarithms, so that a model that is all but sure gives no log of 0.
        return {task: reduce(torch.logaddexp, values) - math.log(len(values)) for task, values in answers.items()}


def load_ensemble(
    paths: Sequence[str],
    *,
    device: torch.device,
    tasks: Tasks | None = None,
    image_size: int | None = None,
    precision: str | None = None,
) -> tuple[Ensemble, list[str]]:
    """The models, and remarks for the user.

    tasks: those of the data; without it, all tasks of the models, with classes in the order of the first that has the
    task. image_size: default each model's own eval size. precision: default the one each model was trained in.
    Raises ModelError for files that do not load, for classes that differ, and where no model knows a task of the data.
    """
    loaded = [(path, *load_artifact(path)) for path in paths]
    wanted = _all_tasks(loaded) if tasks is None else tasks
    notes, members = [], []
    for path, model, meta in loaded:
        order = {
            task: _class_order(path, task, meta.tasks[task], wanted[task]) for task in wanted if task in meta.tasks
        }
        if not order:
            notes.append(f"{path} has none of the tasks {', '.join(wanted)} and is left out")
            continue
        if len(paths) > 1 and (missing := [task for task in wanted if task not in meta.tasks]):
            notes.append(f"{path} has no task {', '.join(missing)} and is left out there")
        size = image_size or int(meta.preprocessing["eval_size"])
        if image_size is not None:
            _require_size(path, model, size)
        members.append(
            Member(
                path=str(Path(path)),
                meta=meta,
                model=model.to(memory_format=torch.channels_last).to(device),
                normalise=Normalise(meta.preprocessing["mean"], meta.preprocessing["std"]).to(device),
                image_size=size,
                precision=precision or _trained_precision(meta),
                order={task: positions.to(device) for task, positions in order.items()},
            )
        )
    if not members:
        known = ", ".join(_all_tasks(loaded))
        raise ModelError(f"the data has the tasks {', '.join(wanted)}, the models have {known}: none in common")
    answered = {task: tuple(names) for task, names in wanted.items() if any(task in m.order for m in members)}
    notes += [f"no model has the data's task {task}: not measured" for task in wanted if task not in answered]
    return Ensemble(members, answered), notes


def _all_tasks(loaded: Sequence[tuple[str, Student, ArtifactMeta]]) -> dict[str, tuple[str, ...]]:
    tasks: dict[str, tuple[str, ...]] = {}
    for _, _, meta in loaded:
        for task, names in meta.tasks.items():
            tasks.setdefault(task, names)
    return tasks


def _class_order(path: str, task: str, own: Sequence[str], wanted: Sequence[str]) -> Tensor:
    if set(own) != set(wanted):
        raise ModelError(
            f"{path}: its classes of task {task!r} are {', '.join(own)}; "
            f"they must be those of the data or of the other models: {', '.join(wanted)}"
        )
    return torch.tensor([own.index(name) for name in wanted])


def _trained_precision(meta: ArtifactMeta) -> str:
    config = meta.provenance.get("config", {})
    return config.get("precision", "fp32")


def _require_size(path: str, model: Student, size: int) -> None:
    """A size that the network cannot take is found before the data is read."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        raise ModelError(f"{path}: does not run on {size}x{size} images, try another --image-size ({error})") from error
