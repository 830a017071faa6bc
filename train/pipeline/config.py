"""What a pipeline can be told: one YAML file, options on the command line and `key=value`, all optional but the photos.

config = PipelineConfig(source="photos.csv", out="phone")
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from train.config.base import AboveZero, Pixels, Positive, Samples, Strict, Unit, WholeEpochs

# What a user may call a network with published weights that come in a package.
STARTS = {"efficientnet-lite0": "efficientnet_lite0_packaged", "efficientnet-lite2": "efficientnet_lite2_packaged"}


_AMOUNT = re.compile(r"\d+(\.\d+)?[KMG%]?")


class BuildChoices(Strict):
    """How the photos become shards; see `python -m data.build --help`."""

    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the photos that is held out, where the source publishes no val."""
    group: tuple[str, ...] = ("near-duplicates",)
    """What is never on both sides of the hold-out: a column, a pattern, near-duplicates."""
    resize: Annotated[Positive, Unit("pixels")] | None = None
    """Short side of the stored photos. `null`: 1.6 times the size of training."""
    options: tuple[str, ...] = ()
    """Further words for data.build, as `[--tasks, "gender,age"]`."""


class RecipeChoices(Strict):
    """How the networks are trained; `null` is chosen from the number of photos, their size and the hours."""

    hours: Annotated[AboveZero, Unit("hours")] | None = None
    """What all training may take. `null`: what the data needs."""
    image_size: Pixels | None = None
    """Side of the photos to train on."""
    eval_size: Pixels | None = None
    """Side at which the network is asked. `null`: chosen on the validation photos, from 1 to 1.5 times `image_size`."""
    epochs: WholeEpochs | None = None
    """Of the teacher's fine-tuning."""
    round_epochs: WholeEpochs | None = None
    """After each round of pruning but the last."""
    tune_epochs: WholeEpochs | None = None
    """After the last round."""
    batch_size: Samples | None = None
    """Of one update, over all ranks."""
    lr: Annotated[AboveZero, Unit("")] | None = None
    """Learning rate of the teacher's heads; its backbone learns with a fifth of it."""
    tune_lr: Annotated[AboveZero, Unit("")] | None = None
    """Learning rate after pruning, of all layers."""
    precision: Literal["fp32", "bf16"] | None = None
    """`null`: the one that was measured to be faster."""


class Budget(Strict):
    """What the network may cost on a phone; of several limits all hold. Without any: 30 % of the MACs."""

    max_bytes: str | int | None = None
    """Of the exported int8 file, as 1M or 500K."""
    max_macs: str | int | None = None
    """Multiply-accumulates of one photo at the size at which the network is asked: 40M, or 30%."""
    max_params: str | int | None = None
    """Parameters: 300K, or 20%."""
    max_latency_ms: Annotated[AboveZero, Unit("ms")] | None = None
    """Time of one photo on this machine's processor, fp32."""
    threads: Positive = 1
    """Of the latency."""
    max_points_lost: Annotated[AboveZero, Unit("points of top-1")] | None = None
    """Prune in rounds as long as no task loses more than this against the teacher, on the validation photos."""

    @field_validator("max_bytes", "max_macs", "max_params")
    @classmethod
    def _is_amount(cls, value: str | int | None) -> str | int | None:
        if value is not None and not _AMOUNT.fullmatch(str(value)):
            raise ValueError("must be a number, as 300000, 300K, 1.5M or a share as 30%")
        return value

    @property
    def is_empty(self) -> bool:
        return not any((self.max_bytes, self.max_macs, self.max_params, self.max_latency_ms, self.max_points_lost))

    @model_validator(mode="after")
    def _one_way(self) -> "Budget":
        if self.max_points_lost and any((self.max_bytes, self.max_macs, self.max_params, self.max_latency_ms)):
            raise ValueError(
                "max_points_lost asks for the smallest network that keeps its accuracy, and the others for one of a "
                "given size; say one of the two"
            )
        return self


class PipelineConfig(Strict):
    """From photos to a phone."""

    source: str
    """Photos and labels, as data.build takes them: a table, a folder of class folders, KIND:PATH; or a folder of shards
    with train/ and val/."""
    out: str
    """Folder of everything that is made."""
    start: str = "efficientnet-lite0"
    """The network with published weights that becomes the teacher: efficientnet-lite0, efficientnet-lite2 (both come
    in a package), or the name of a timm network, which is downloaded."""
    student: str = "pruned"
    """`pruned`: the teacher with narrower layers. Else the name of a smaller backbone; it learns from the teacher."""
    launcher: str = ""
    """What stands before the command of a training, as "horovodrun -np 8" or "srun". Empty: one process."""
    seed: int = 0
    """Of the hold-out and of all trainings."""
    build: BuildChoices = BuildChoices()
    recipe: RecipeChoices = RecipeChoices()
    budget: Budget = Budget()
