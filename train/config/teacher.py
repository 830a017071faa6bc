"""The section `teacher`: what the student learns from besides labels."""

from typing import Annotated, Literal

from pydantic import model_validator

from train.config.base import AboveZero, Fraction, NotNegative, Pixels, Positive, Strict, Unit


class HintConfig(Strict):
    """Layers whose output is to become like that of a layer of the teacher; each entry has these keys. Hints need a
    single teacher that is computed (`model`, no `cache`)."""

    kind: Literal["smooth-l1", "mse", "cosine", "attention"]
    """What the two are compared by. `attention` compares where both respond (the mean over channels of the squared map)
    and needs maps of equal height and width, but not of equal channels."""
    student: str
    """The student's layer, as `python -m models.summary` names it."""
    teacher: str
    """The teacher's layer."""
    weight: NotNegative = 1.0
    """Factor of the hint's loss; 0 switches it off."""
    bridge: Literal["none", "pool", "regressor"] = "none"
    """What makes different shapes comparable. `pool`: average pooling of the larger one. `regressor`: a convolution
    (for flat features a linear layer) from the student's channels to the teacher's, trained with the student but no
    part of its model."""
    ramp: Annotated[NotNegative, Unit("exponent")] = 0.0
    """As `tasks.NAME.ramp`, for this hint."""


class TeacherConfig(Strict):
    """A saved model that the student learns from, task by task. `teacher: null`, the default: labels alone. Classes are
    matched by name; tasks that the teacher does not know learn from their labels."""

    model: str | dict[str, str] | None = None
    """Folder of the teacher, or one per task: `{age: PATH, food: PATH}`."""
    cache: str | None = None
    """Folder or address of logits that `train.cache_teacher` computed. The run sees these views alone and, but for
    `fresh_share`, loads no teacher. `null`: the teacher is computed in every step."""
    views: Annotated[Positive, Unit("views")] | None = None
    """How many views of the cache to use. `null`: `augment.views`, where that is 0 all that the cache has."""
    fresh_share: Annotated[Fraction, Unit("share of the steps")] = 0.0
    """Beside a cache: so many steps, drawn by `seed`, see a new view, for which the teacher is computed (needs
    `model`)."""
    image_size: Pixels | None = None
    """Side of the photos that the teacher sees: the same views in another size. `null`: `data.image_size`."""
    loss: Literal["kl", "js", "mse", "dkd"] = "kl"
    """What compares the logits. `kl`: Kullback-Leibler at the temperature, times its square (Hinton et al. 2015). `js`:
    Jensen-Shannon, which is bounded. `mse`: squared difference of the centred logits. `dkd`: target class and other
    classes apart (Zhao et al. 2022)."""
    temperature: AboveZero | dict[str, AboveZero] = 5.0
    """Divides both logits, or one number per task (others 5); higher shows more of the teacher's ranking of the wrong
    classes. No effect on `mse`."""
    weight: NotNegative | dict[str, NotNegative] | None = None
    """Weight of the teacher's loss where that of the labels is 1, or one number per task (others 1). `null`: 1. The
    task's own weight multiplies both."""
    alpha: Fraction | None = None
    """Instead of `weight`: alpha x teacher + (1 - alpha) x labels, for the tasks that the teacher knows."""
    hints: tuple[HintConfig, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "TeacherConfig":
        if self.model is None and self.cache is None:
            raise ValueError("give model (computed in every step), cache (made by train.cache_teacher), or both")
        if self.alpha is not None and self.weight is not None:
            raise ValueError("give either alpha or weight")
        if self.cache is None and (self.views or self.fresh_share):
            raise ValueError("views and fresh_share belong to a cache; augment.views limits the views without one")
        if self.fresh_share and self.model is None:
            raise ValueError("fresh_share needs model: new views are not in the cache")
        if self.hints and self.cache is not None:
            raise ValueError("hints need the teacher's features, a cache has its logits only: remove cache or hints")
        return self
