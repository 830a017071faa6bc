"""The frozen teacher of a run that computes its teacher: logits for a batch, in eval, without gradients.

    teacher = load_teacher("runs/teacher/best", device=device, precision="bf16")
    logits = teacher(image)  # uint8 [N, S, S, 3] -> [N, classes of all teacher tasks]

It is no part of the student, so neither optimizer nor checkpoint knows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.artifact import load_artifact, load_artifact_meta
from models.errors import ModelError
from models.finite import require_finite
from models.preprocessing import PRECISIONS, Normalise
from models.student import Student


@dataclass(frozen=True)
class TeacherModel:
    """One saved model and the tasks that it teaches."""

    model: Student
    tasks: tuple[str, ...]
    mean: tuple[float, ...]  # of RGB pixels in 0..1, as the model was trained
    std: tuple[float, ...]


class Teacher:
    """One model for all tasks, or several for some each; `tasks` names the classes of every column of the logits."""

    def __init__(
        self,
        models: Sequence[TeacherModel],
        tasks: Mapping[str, tuple[str, ...]],
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.tasks = dict(tasks)
        self.device, self.precision = device, precision
        self.models = [each.model.requires_grad_(False).eval().to(device) for each in models]
        self._taught = [each.tasks for each in models]
        self.normalise = [Normalise(each.mean, each.std).to(device) for each in models]
        for model in self.models:
            model.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """uint8 [N, S, S, 3] on the device -> float32 [N, classes of all tasks], columns in the order of `tasks`."""
        logits: dict[str, Tensor] = {}
        with torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32"):
            for model, tasks, normalise in zip(self.models, self._taught, self.normalise, strict=True):
                answer = model(normalise(image))
                logits |= {task: answer[task] for task in tasks}
        return torch.cat([logits[task].float() for task in self.tasks], dim=1)


def teacher_paths(model: str | Mapping[str, str]) -> dict[str, tuple[str, ...] | None]:
    """Path of a saved model -> the tasks that it is asked for (None: all that it has)."""
    if isinstance(model, str):
        return {model: None}
    paths: dict[str, tuple[str, ...] | None] = {}
    for task, path in model.items():
        paths[path] = (*(paths.get(path) or ()), task)
    return paths


def teacher_tasks(model: str | Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Task -> class names, from the models' descriptions alone. Raises ModelError."""
    found: dict[str, tuple[str, ...]] = {}
    for path, wanted in teacher_paths(model).items():
        found |= {task: classes for task, classes in _described(path, wanted).items()}
    return found


def load_teacher(
    model: str | Mapping[str, str], *, device: torch.device, precision: str, tasks: Sequence[str] | None = None
) -> Teacher:
    """The teacher of a config. tasks: those of the student, others are left out; default: all that it has. Raises
    ModelError."""
    models: list[TeacherModel] = []
    classes: dict[str, tuple[str, ...]] = {}
    for path, wanted in teacher_paths(model).items():
        loaded, meta = load_artifact(path)
        require_finite(loaded, path)
        described = {task: names for task, names in _described(path, wanted).items() if tasks is None or task in tasks}
        if described:
            mean, std = (tuple(meta.preprocessing[name]) for name in ("mean", "std"))
            models.append(TeacherModel(loaded, tuple(described), mean, std))
            classes |= described
    if not classes:
        raise ModelError(f"the teacher {model} has none of the tasks {', '.join(tasks or ())}")
    return Teacher(models, classes, device=device, precision=precision)


def _described(path: str, wanted: tuple[str, ...] | None) -> dict[str, tuple[str, ...]]:
    meta = load_artifact_meta(path)
    for task in wanted or ():
        if task not in meta.tasks:
            raise ModelError(f"teacher.model.{task}: {path} has no such task; it has {', '.join(meta.tasks)}")
    return {task: names for task, names in meta.tasks.items() if wanted is None or task in wanted}
