"""Saved or exported models that predict together: the mean of their softmax probabilities over models and views.

    ensemble, notes = load_ensemble(paths, device=device, image_size=None, precision=None)
    log_probabilities = ensemble(batch)

The models may differ in heads, input sizes and normalisation. Classes are matched by name.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor, nn

from data.index.labels import missing_names
from data.loading.eval_loader import EvalBatch
from models.artifact import ArtifactMeta
from models.errors import ModelError
from models.formats.loading import LoadedModel, load_model
from models.preprocessing import PRECISIONS, Normalise
from models.student import Student
from models.trial_pass import require_size
from train.evaluation.answer import is_answer
from train.evaluation.class_values import agreed_values

Tasks = Mapping[str, Sequence[str]]  # task -> class names in label order


@dataclass(frozen=True)
class Predictor:
    """One network on its device, from the pixels of a batch to log-probabilities: the same for a model that is being
    trained and for the file that it is saved in.

    normalise: pixels as a batch has them -> what the network takes. precision: of PRECISIONS, or an exported file's.
    order: task -> int64 [C], the network's position of each class that is asked for. temperature: of the calibrated
    tasks, what their logits are divided by (Guo et al. 2017, "On Calibration of Modern Neural Networks").
    """

    model: nn.Module
    normalise: nn.Module
    image_size: int
    precision: str
    order: Mapping[str, Tensor]
    temperature: Mapping[str, float] = field(default_factory=dict)

    @torch.inference_mode()
    def __call__(self, batch: EvalBatch) -> dict[str, Tensor]:
        """task -> log of the mean probability over the views, float32 [N, C]."""
        return _mean_probability([self.log_probabilities(image) for image in batch.image[self.image_size]], self.order)

    def log_probabilities(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 [N, S, S, 3] -> float32 [N, C] for each task of `order`; NaN throughout where a logit is not
        finite: one of -inf would pass for a class that is out of the question."""
        dtype = PRECISIONS.get(self.precision, torch.float32)
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.model(self.normalise(image))
        return {task: self._log_softmax(task, logits[task].float())[:, order] for task, order in self.order.items()}

    def _log_softmax(self, task: str, logits: Tensor) -> Tensor:
        if task in self.temperature:
            logits = logits / self.temperature[task]
        return torch.where(is_answer(logits)[:, None], logits.log_softmax(dim=1), torch.nan)


def live_predictor(
    model: nn.Module,
    num_classes: Mapping[str, int],
    *,
    normalise: nn.Module,
    image_size: int,
    precision: str,
    device: torch.device,
) -> Predictor:
    """Of a model in memory, with its classes in their own order. The caller has it in eval mode."""
    order = {task: torch.arange(classes, device=device) for task, classes in num_classes.items()}
    return Predictor(model, normalise, image_size, precision, order)


def _mean_probability(outputs: Sequence[Mapping[str, Tensor]], tasks: Iterable[str]) -> dict[str, Tensor]:
    """task -> log of the mean over the outputs that have the task. Summed as logarithms, so that a model that is all
    but sure gives no log of 0."""
    mean = {}
    for task in tasks:
        values = [output[task] for output in outputs if task in output]
        mean[task] = reduce(torch.logaddexp, values) - math.log(len(values))
    return mean


@dataclass(frozen=True)
class Member:
    """A saved model of an ensemble."""

    path: str
    meta: ArtifactMeta
    predictor: Predictor


class Ensemble:
    """Attributes: members, tasks {name: class names} that at least one member answers, and class_values {name: value of
    each class} of the ordered ones among them."""

    def __init__(self, members: Sequence[Member], tasks: Tasks, class_values: Mapping[str, Sequence[float]]) -> None:
        self.members, self.tasks, self.class_values = members, tasks, class_values

    @property
    def sizes(self) -> list[int]:
        """The image sizes that a batch must have."""
        return sorted({member.predictor.image_size for member in self.members})

    @property
    def thresholds(self) -> dict[str, float]:
        """Task -> probability below which an answer is withheld. Of one model: that of a mean has another meaning."""
        if len(self.members) > 1:
            return {}
        own = self.members[0].meta.thresholds
        return {task: own[task] for task in self.tasks if task in own}

    @torch.inference_mode()
    def __call__(self, batch: EvalBatch) -> dict[str, Tensor]:
        """task -> log of the mean probability, float32 [N, C]. One forward pass per model and view."""
        outputs = [
            predictor.log_probabilities(image)
            for predictor in (member.predictor for member in self.members)
            for image in batch.image[predictor.image_size]
        ]
        return _mean_probability(outputs, self.tasks)


def load_ensemble(
    paths: Sequence[str],
    *,
    device: torch.device,
    tasks: Tasks | None = None,
    image_size: int | None = None,
    precision: str | None = None,
    calibrated: bool = True,
) -> tuple[Ensemble, list[str]]:
    """The models, and notes for the user.

    tasks: those of the data; without it, all tasks of the models, with classes in the order of the first that has the
    task. Classes that the models know beyond those of the data come behind them. image_size: default each model's own
    eval size. precision: default the one each model was trained in. calibrated: with each model's own temperatures.
    Raises ModelError for files that do not load, for classes that a model does not know, and where no model knows a
    task of the data.
    """
    loaded = [(path, load_model(path)) for path in paths]
    known = _all_tasks(loaded)
    wanted = known if tasks is None else {task: _with_more(names, known.get(task, ())) for task, names in tasks.items()}
    notes, members = [], []
    for path, one in loaded:
        own = one.meta.tasks
        order = {task: _class_order(path, task, own[task], wanted[task]) for task in wanted if task in own}
        if not order:
            notes.append(f"{path} has none of the tasks {', '.join(wanted)} and is left out")
            continue
        if len(paths) > 1 and (missing := [task for task in wanted if task not in own]):
            notes.append(f"{path} has no task {', '.join(missing)} and is left out there")
        if precision is not None and one.precision not in (None, precision):
            notes.append(f"{path} computes in {one.precision}, whatever --precision says")
        temperatures = one.meta.temperatures if calibrated else {}
        member = _member(path, one, order, temperatures, device=device, image_size=image_size, precision=precision)
        members.append(member)
    if not members:
        raise ModelError(
            f"the data has the tasks {', '.join(wanted)}, the models have {', '.join(known)}: none in common"
        )
    known_to_some = {task for member in members for task in member.predictor.order}
    answered = {task: tuple(names) for task, names in wanted.items() if task in known_to_some}
    notes += [f"no model has the data's task {task}: not measured" for task in wanted if task not in answered]
    if len(members) > 1 and (withheld := [member.path for member in members if member.meta.thresholds]):
        notes.append(f"the thresholds of {', '.join(withheld)} are of one model each: the ensemble withholds no answer")
    class_values = _class_values(members, answered, notes)
    return Ensemble(members, answered, class_values), notes


def _member(
    path: str,
    loaded: LoadedModel,
    order: Mapping[str, Tensor],
    temperatures: Mapping[str, float],
    *,
    device: torch.device,
    image_size: int | None,
    precision: str | None,
) -> Member:
    meta = loaded.meta
    size = image_size or loaded.image_size or int(meta.preprocessing["eval_size"])
    _require_size(path, loaded, size)
    normalise = (
        nn.Identity() if loaded.takes_pixels else Normalise(meta.preprocessing["mean"], meta.preprocessing["std"])
    )
    predictor = Predictor(
        model=loaded.model.to(memory_format=torch.channels_last).to(device),
        normalise=normalise.to(device),
        image_size=size,
        precision=loaded.precision or precision or trained_precision(meta),
        order={task: positions.to(device) for task, positions in order.items()},
        temperature={task: temperatures[task] for task in order if task in temperatures},
    )
    return Member(str(Path(path)), meta, predictor)


def _all_tasks(loaded: Sequence[tuple[str, LoadedModel]]) -> dict[str, tuple[str, ...]]:
    tasks: dict[str, tuple[str, ...]] = {}
    for _, one in loaded:
        for task, names in one.meta.tasks.items():
            tasks.setdefault(task, names)
    return tasks


def _with_more(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*names, *others]))


def _class_values(members: Sequence[Member], tasks: Tasks, notes: list[str]) -> dict[str, tuple[float, ...]]:
    """Of the tasks that a member knows to be ordered. notes: gets those on which two members disagree."""
    found = {}
    for task, names in tasks.items():
        values = agreed_values(member.meta.value_of_class(task) for member in members)
        if values is None:
            notes.append(f"the models order the classes of task {task} differently: no mean absolute error")
        elif values:
            found[task] = tuple(values[name] for name in names)
    return found


def _class_order(path: str, task: str, own: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Both must be the same names, in any order."""
    if missing := missing_names(wanted, own):
        raise ModelError(f"{path}: does not know {missing}, classes of task {task!r} in the data or another model")
    if more := missing_names(own, wanted):
        raise ModelError(f"{path}: alone knows {more} of task {task!r}; models answer together about the same classes")
    place = {name: number for number, name in enumerate(own)}
    return torch.tensor([place[name] for name in wanted])


def trained_precision(meta: ArtifactMeta) -> str:
    """In which a training also validates."""
    return str((meta.provenance.get("config") or {}).get("precision", "fp32"))


def _require_size(path: str, loaded: LoadedModel, size: int) -> None:
    """A size that the network cannot take is found before the data is read."""
    if loaded.image_size is None:
        assert isinstance(loaded.model, Student)
        require_size(loaded.model, size, whose=path)
    elif size != loaded.image_size:
        own = f"{loaded.image_size}x{loaded.image_size}"
        raise ModelError(f"{path}: takes {own} images, not {size}x{size}; leave out --image-size")
