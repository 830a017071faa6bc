"""What makes a student's feature comparable with a teacher's where their shapes differ.

    adapter = build_adapter("regressor", kind="mse", student=(16, 8, 8), teacher=(32, 8, 8))
    student_feature, teacher_feature = adapter(student_feature, teacher_feature)

Shapes are those of one sample, without N. An adapter is a module: its parameters are trained and saved with the run,
and are no part of the student.
"""

from torch import Tensor, nn
from torch.nn import functional

from models.errors import ModelError


class Identity(nn.Module):
    """Features that already have one shape."""

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return student, teacher


class Pool(nn.Module):
    """Average-pools the larger side: maps to the smaller height and width, flat features to the smaller length.

    Maps that differ in channels are flattened first where `flatten` is set, as a hidden layer would be.
    """

    def __init__(self, *, flatten: bool) -> None:
        super().__init__()
        self.flatten = flatten

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if student.ndim == 4 and not self.flatten:
            size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
            return functional.adaptive_avg_pool2d(student, size), functional.adaptive_avg_pool2d(teacher, size)
        student, teacher = student.flatten(1), teacher.flatten(1)
        length = min(student.shape[1], teacher.shape[1])
        return _pooled(student, length), _pooled(teacher, length)


class Regressor(nn.Module):
    """A trainable map from the student's channels to the teacher's: a 3x3 convolution for maps (FitNets, Romero et al.
    2015), a linear layer for flat features. Where heights and widths differ, the larger map is average-pooled."""

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.map: nn.Module = (
            nn.Conv2d(student[0], teacher[0], 3, padding=1) if len(student) == 3 else nn.Linear(student[0], teacher[0])
        )
        self.pool = Pool(flatten=False)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mapped = self.map(student)
        return self.pool(mapped, teacher) if mapped.ndim == 4 else (mapped, teacher)


def build_adapter(name: str, *, kind: str, student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    """The adapter `name` for a feature loss `kind`. ModelError names both shapes and what would bridge them."""
    shapes = f"the student's layer gives {_times(student)}, the teacher's {_times(teacher)}"
    if kind == "attention" and (len(student) != 3 or len(teacher) != 3):
        raise ModelError(f"{shapes}; attention compares maps of channels, height and width")
    if name == "none":
        if student == teacher or (kind == "attention" and student[1:] == teacher[1:]):
            return Identity()
        raise ModelError(f"{shapes}; bridge: {_fitting(kind, student, teacher)} makes them comparable")
    if name == "pool":
        both_maps = len(student) == len(teacher) == 3
        return Pool(flatten=not (both_maps and (kind == "attention" or student[0] == teacher[0])))
    if len(student) != len(teacher) or len(student) not in (1, 3):
        raise ModelError(f"{shapes}; a regressor maps maps to maps or flat features to flat ones; bridge: pool fits")
    return Regressor(student, teacher)


def _pooled(feature: Tensor, length: int) -> Tensor:
    return functional.adaptive_avg_pool1d(feature[:, None], length)[:, 0] if feature.shape[1] != length else feature


def _fitting(kind: str, student: tuple[int, ...], teacher: tuple[int, ...]) -> str:
    same_rank = len(student) == len(teacher) and len(student) in (1, 3)
    return "regressor (trained) or pool (fixed)" if same_rank and kind != "attention" else "pool"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
