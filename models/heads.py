"""The six head shapes: what follows the pooled feature, up to one logit vector per task.

`build_head(kind="multi-embedding", num_features=1280, tasks={"age": 5, "gender": 2}, width=512)`

A head is a module with `forward(pooled [N, num_features]) -> {task: logits [N, num_classes]}`. To add one: a class
whose keyword-only arguments are its options, and a line in `HEADS`.
"""

import inspect
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from models.errors import ModelError

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


class SingleConv(nn.Module):
    """One convolution from the pooled 1x1 map to the classes of all tasks together, then split per task.

    On a 1x1 map a 3x3 kernel with padding 1 sees data at its centre tap alone, so kernel 1 is the same function with a
    ninth of the parameters.
    """

    def __init__(self, num_features: int, tasks: Mapping[str, int], *, kernel: int = 3) -> None:
        super().__init__()
        if kernel not in (1, 3):
            raise ModelError(f"head.kernel is {kernel!r}; it must be 1 or 3")
        self.tasks = dict(tasks)
        self.conv = nn.Conv2d(num_features, sum(tasks.values()), kernel, padding=kernel // 2)

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        logits = self.conv(pooled[:, :, None, None]).flatten(1)  # [N, classes of all tasks]
        return dict(zip(self.tasks, logits.split(list(self.tasks.values()), dim=1), strict=True))


class SingleShuffleConv(SingleConv):
    """A channel shuffle (ShuffleNet, Zhang et al. 2018), then the convolution of `SingleConv`."""

    def __init__(self, num_features: int, tasks: Mapping[str, int], *, kernel: int = 3, groups: int = 4) -> None:
        super().__init__(num_features, tasks, kernel=kernel)
        _require_positive("groups", groups)
        if num_features % groups:
            raise ModelError(f"head.groups is {groups}; it must divide the backbone's {num_features} features")
        self.groups = groups

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        return super().forward(
            pooled.reshape(-1, self.groups, pooled.shape[1] // self.groups).transpose(1, 2).flatten(1)
        )


class MultiFc(nn.Module):
    """One linear layer per task."""

    def __init__(self, num_features: int, tasks: Mapping[str, int]) -> None:
        super().__init__()
        self.classifiers = _PerTask({task: nn.Linear(num_features, classes) for task, classes in tasks.items()})

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        return self.classifiers(pooled)


class MultiSe(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018), then one linear layer per task.

    The squeeze is the pooling that came before; scaling whole channels and pooling them commute.
    """

    def __init__(self, num_features: int, tasks: Mapping[str, int], *, reduction: int = 16) -> None:
        super().__init__()
        _require_positive("reduction", reduction)
        if reduction > num_features:
            raise ModelError(
                f"head.reduction is {reduction}; it must be at most the backbone's {num_features} features"
            )
        self.excite = nn.Sequential(
            nn.Linear(num_features, num_features // reduction),
            nn.ReLU(),
            nn.Linear(num_features // reduction, num_features),
            nn.Sigmoid(),
        )
        self.classifiers = _PerTask({task: nn.Linear(num_features, classes) for task, classes in tasks.items()})

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        return self.classifiers(pooled * self.excite(pooled))


class MultiSharedFc(nn.Module):
    """One linear layer that all tasks share, then one linear layer per task. `activation: relu` puts a ReLU between."""

    def __init__(
        self, num_features: int, tasks: Mapping[str, int], *, width: int = 512, activation: str = "none"
    ) -> None:
        super().__init__()
        _require_positive("width", width)
        _require_activation(activation)
        self.shared = nn.Linear(num_features, width)
        self.activation = nn.ReLU() if activation == "relu" else nn.Identity()
        self.classifiers = _PerTask({task: nn.Linear(width, classes) for task, classes in tasks.items()})

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        return self.classifiers(self.activation(self.shared(pooled)))


class MultiEmbedding(nn.Module):
    """One embedding per task, each followed by its own linear layer.

    An embedding is linear, batch norm, ReLU; with `activation: none` it is the linear layer alone, and each task then
    collapses to one linear map of the pooled feature.
    """

    def __init__(
        self, num_features: int, tasks: Mapping[str, int], *, width: int = 512, activation: str = "relu"
    ) -> None:
        super().__init__()
        _require_positive("width", width)
        _require_activation(activation)
        self.branches = _PerTask(
            {
                task: nn.Sequential(_embedding(num_features, width, activation), nn.Linear(width, classes))
                for task, classes in tasks.items()
            }
        )

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        return self.branches(pooled)


HEADS: dict[str, type[nn.Module]] = {
    "single-conv": SingleConv,
    "single-shuffle-conv": SingleShuffleConv,
    "multi-fc": MultiFc,
    "multi-se": MultiSe,
    "multi-shared-fc": MultiSharedFc,
    "multi-embedding": MultiEmbedding,
}


def head_options(*, kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a head kind: its defaults, overridden by `options`. Unknown kinds and options: ModelError."""
    if kind not in HEADS:
        near = get_close_matches(str(kind), HEADS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"unknown head.kind {kind!r}{hint} (valid: {', '.join(HEADS)})")
    signature = inspect.signature(HEADS[kind].__init__).parameters.values()
    defaults = {option.name: option.default for option in signature if option.kind is option.KEYWORD_ONLY}
    unknown = [name for name in options if name not in defaults]
    if unknown:
        valid = ", ".join(defaults) or "none"
        raise ModelError(f"head {kind!r} has no option {unknown[0]!r} (its options: {valid})")
    return {**defaults, **options}


def build_head(*, kind: str, num_features: int, tasks: Mapping[str, int], **options: Any) -> nn.Module:
    """The head `kind` over `num_features` pooled features, for `tasks` = {name: number of classes}."""
    resolved = head_options(kind=kind, options=options)
    _require_tasks(tasks)
    return HEADS[kind](num_features, tasks, **resolved)


def task_module(task: str) -> str:
    """The name of the module that a task has to itself, a different one for each task.

    The prefixes keep tasks off the names that nn.Module owns; dots, blanks and the like are written as their numbers.
    """
    if _PLAIN.fullmatch(task):
        return f"task_{task}"
    return "odd_" + re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", task)


class _PerTask(nn.Module):
    """One module per task on the same input."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.tasks = tuple(modules)
        for task, module in modules.items():
            self.add_module(task_module(task), module)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {task: self.get_submodule(task_module(task))(features) for task in self.tasks}


def _embedding(num_features: int, width: int, activation: str) -> nn.Module:
    if activation == "none":
        return nn.Linear(num_features, width)
    return nn.Sequential(nn.Linear(num_features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())


def _require_tasks(tasks: Mapping[str, int]) -> None:
    if not tasks:
        raise ModelError("no tasks: a head needs at least one task with its number of classes")
    for task, classes in tasks.items():
        if classes < 2:
            raise ModelError(f"task {task!r} has {classes} classes; classification needs at least 2")


def _require_positive(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"head.{name} is {value!r}; it must be a whole number of at least 1")


def _require_activation(activation: str) -> None:
    if activation not in ("relu", "none"):
        raise ModelError(f"head.activation is {activation!r}; it must be relu or none")
