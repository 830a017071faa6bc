"""The loss terms through which a student learns from a teacher, and the hook that runs a teacher within a step.

columns = teacher_columns(tasks=student_classes, teacher=teacher_classes)
terms = [distillation_term("age", columns=columns["age"], loss="kl", temperature=5.0, weight=1.0)]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from data.index.labels import missing_names
from data.loading.batch import BadRecord, Batch
from models.errors import ModelError
from train.distillation.feature_hooks import ForwardHooks
from train.distillation.teacher import Teacher
from train.losses.feature_distillation import FEATURE_LOSSES
from train.losses.logit_distillation import DISTILLATION_LOSSES, NEEDS_TARGET
from train.losses.objective import Logits, LossTerm

Classes = Mapping[str, tuple[str, ...]]


def teacher_columns(*, tasks: Classes, teacher: Classes) -> dict[str, Tensor]:
    """Task -> int64 [num_classes]: the columns of the teacher's logits in the order of the student's classes.

    Tasks that the teacher lacks are left out. Classes are matched by name: the teacher may know more of them, which
    then count for nothing, but ModelError names those that it lacks.
    """
    first, found = 0, {}
    for task, names in teacher.items():
        if task in tasks:
            if missing := missing_names(tasks[task], names):
                raise ModelError(
                    f"task {task!r}: the teacher does not know {missing}, classes of the data; it must know all, "
                    "in any order"
                )
            place = {name: number for number, name in enumerate(names)}
            found[task] = torch.tensor([first + place[name] for name in tasks[task]])
        first += len(names)
    if not found:
        raise ModelError(f"the teacher knows {', '.join(teacher)}, none of the tasks {', '.join(tasks)}")
    return found


def distillation_term(
    task: str,
    *,
    columns: Tensor,
    loss: str,
    temperature: float,
    weight: float,
    ramp: Callable[[int], float] | None = None,
) -> LossTerm:
    """The term that learns a task from the teacher's logits in `batch.teacher`. Its weight sum is the number of
    samples."""
    function = DISTILLATION_LOSSES[loss]
    # A slice is a view; most teachers have the classes in the student's order.
    is_slice = torch.equal(columns, torch.arange(len(columns)) + columns[0])
    chosen = slice(int(columns[0]), int(columns[0]) + len(columns)) if is_slice else columns

    def compare(logits: Logits, batch: Batch) -> Tensor:
        assert batch.teacher is not None
        more = {"target": batch.label[task]} if loss in NEEDS_TARGET else {}
        return function(logits[task], batch.teacher[:, chosen], temperature=temperature, **more)[0]

    return LossTerm(f"{task}.teacher", weight, loss=compare, weight_sum=_num_samples, ramp=ramp)


def hint_term(
    name: str,
    *,
    kind: str,
    student: tuple[ForwardHooks, str],
    teacher: tuple[ForwardHooks, str],
    adapter: nn.Module,
    weight: float,
    ramp: Callable[[int], float] | None = None,
) -> LossTerm:
    """The term that makes a feature of the student like one of the teacher. Its weight sum is the number of samples."""
    function = FEATURE_LOSSES[kind]

    def compare(logits: Logits, batch: Batch) -> Tensor:
        (student_tap, student_layer), (teacher_tap, teacher_layer) = student, teacher
        # Under autocast features are 16 bits wide, a adapter's weights and the losses are not.
        features = student_tap[student_layer].float(), teacher_tap[teacher_layer].detach().float()
        return function(*adapter(*features))[0]

    return LossTerm(name, weight, loss=compare, weight_sum=_num_samples, ramp=ramp)


class TeacherHook:
    """Computes the teacher's logits of batches that bring none, and remembers where they were not finite."""

    def __init__(self, teacher: Teacher, shard_names: Sequence[str]) -> None:
        self._teacher, self._shard_names = teacher, shard_names
        self._unseen: list[tuple[Tensor, Batch]] = []

    def __call__(self, batch: Batch) -> Batch:
        """The batch, on its device, with `teacher`."""
        if batch.teacher is not None:
            return batch
        logits = self._teacher(batch.image if batch.teacher_image is None else batch.teacher_image)
        # No view of the images: it would keep their memory.
        small = replace(batch, image=batch.image.new_empty(0), teacher_image=None, label={}, valid={})
        self._unseen.append((~logits.isfinite().all(dim=1), small))
        return replace(batch, teacher=logits)

    def find_bad(self) -> list[BadRecord]:
        """Samples since the last call for which the teacher gave no finite logits. Waits for the device."""
        bad = []
        for flags, batch in self._unseen:
            for at in flags.nonzero().flatten().tolist():
                shard, sample = batch.index[at].tolist()
                record = partial(BadRecord, index=(shard, sample), row=int(batch.row[at]))
                bad.append(record(self._shard_names[shard], batch.key[at], "the teacher's logits are not finite"))
        self._unseen.clear()
        return bad


def _num_samples(batch: Batch) -> float:
    return float(len(batch))
