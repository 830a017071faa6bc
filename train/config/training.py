"""The sections that say how weights change: `optimizer`, `schedule`, `sparsity`, `ema`."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from train.config.base import (
    AboveZero,
    BelowOne,
    Epochs,
    Fraction,
    NotNegative,
    Positive,
    Strict,
    Unit,
    WholeEpochs,
)


class OptimizerConfig(Strict):
    """Turns gradients into updates."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    """`adamw` decays weights apart from the gradient, the others as a part of it."""
    lr: AboveZero = 0.1
    """Learning rate after the warmup, for updates of `batch_size` samples: the same for any number of ranks."""
    momentum: BelowOne = 0.9
    """Momentum of `sgd`."""
    nesterov: bool = True
    """Whether that is Nesterov's."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square, for `adam` and `adamw`."""
    weight_decay: NotNegative = 4.0e-5
    """How strongly weights are pulled towards 0 in every update."""
    decay_norms_and_biases: bool = True
    """Whether norms and biases are, too."""
    clip_norm: AboveZero | None = None
    """Largest norm of the gradient over all parameters; a larger one is scaled down to it. `null`: no limit."""


def default_warmup(epochs: int) -> float:
    """Epochs of warmup where none are asked for: 5, and of a short schedule a quarter."""
    return min(5.0, epochs / 4)


class ScheduleConfig(Strict):
    """How long to train, and the learning rate on the way."""

    epochs: WholeEpochs = 60
    """Times that every sample is seen."""
    warmup_epochs: Epochs = Field(default=None, validate_default=True)
    """The learning rate rises linearly over these, which may be a fraction. `null`: 5, at most a quarter of
    `epochs`."""
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The warmup begins at `optimizer.lr` x this."""
    decay: Literal["cosine", "constant", "steps"] = "cosine"
    """What follows the warmup. `cosine`: half a cosine down to `final_factor`. `steps`: x `gamma` at each milestone."""
    final_factor: Fraction = 0.0
    """`cosine` ends at `optimizer.lr` x this."""
    milestones: tuple[Epochs, ...] = ()
    """When the learning rate falls; for `steps`, and only there."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor at each milestone."""
    patience: Annotated[Positive, Unit("evaluations")] | None = None
    """So many evaluations in a row without a better `checkpoint.monitor` end the training. `null`: none do."""

    @field_validator("warmup_epochs", mode="before")
    @classmethod
    def _by_length(cls, value: Any, info: ValidationInfo) -> Any:
        return default_warmup(info.data.get("epochs", 0)) if value is None else value

    @model_validator(mode="after")
    def _has_steps(self) -> "ScheduleConfig":
        if (self.decay == "steps") != bool(self.milestones):
            raise ValueError("decay: steps and milestones belong together")
        return self

    @model_validator(mode="after")
    def _ends_in_time(self) -> "ScheduleConfig":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs {self.warmup_epochs:g} is not below schedule.epochs {self.epochs}, so the "
                "learning rate would never be reached; lower it, or leave it out"
            )
        if late := [f"{milestone:g}" for milestone in self.milestones if milestone >= self.epochs]:
            raise ValueError(
                f"schedule.milestones {', '.join(late)}: not below schedule.epochs {self.epochs}, so nothing would "
                "change there; lower or remove them"
            )
        return self


class SparsityConfig(Strict):
    """An L1 penalty on the weights (gammas) of batch norms, so that channels can be pruned afterwards.
    `sparsity: null`, the default: none."""

    kind: Literal["subgradient", "proximal"] = "subgradient"
    """`subgradient` adds strength x sign(gamma) to the gradient (network slimming, Liu et al. 2017). `proximal` moves
    gamma by learning rate x strength towards 0 after each update, and reaches exact zeros."""
    strength: AboveZero = 1.0e-4
    """Strength of the penalty."""
    start_epoch: Epochs = 0.0
    """When the penalty begins."""
    ramp_epochs: Epochs = 0.0
    """It rises linearly from 0 to full strength over these."""
    groups: dict[str, NotNegative] | None = None
    """Factors of the strength by part (`heads`, `backbone.blocks.3`; the innermost counts) or kind of channels (`stem`,
    `hidden`, `stream`, `features`, `embedding`); what is not named is not penalised. `null`: every norm, factor 1."""


class EmaConfig(Strict):
    """An exponential moving average of the weights: average = decay x average + (1 - decay) x weights after each
    update. Where it is on, the average is what is validated and saved. `ema: null`, the default: none; `ema: {}`
    switches it on."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    """Share of the average that each update keeps; at update t at most (1 + t) / (10 + t), so that the random start is
    soon forgotten."""
