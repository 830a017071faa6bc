"""The sections that do not change what is learnt: `run`, `checkpoint`, `elastic`, `tracking`."""

from typing import Annotated, Literal

from pydantic import model_validator

from train.config.base import Positive, Strict, Unit, Updates, WholeEpochs

Ranks = Annotated[Positive, Unit("ranks")]


class RunConfig(Strict):
    """The run's folder: checkpoints, models, logs."""

    dir: str
    """Path of the folder; it is made if need be."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: continue the run that the folder holds. `never`: refuse such a folder."""
    allow_changes: bool = False
    """Continue although the config or the data changed, with the new ones."""


class CheckpointConfig(Strict):
    """The whole state of the training on disk, from which the same command continues, and which model is the best."""

    every_steps: Updates | None = 500
    """Every how many updates it is written. `null`: at the end of epochs alone."""
    every_epochs: WholeEpochs = 1
    """Every how many epochs it is written; always after the last."""
    keep: Annotated[Positive, Unit("checkpoints")] = 2
    """How many of the newest are kept. With one alone there is nothing to fall back on if it is damaged."""
    monitor: str = "mean_top1"
    """The result of validation that `best/` and `schedule.patience` go by: `mean_top1` (over the tasks), or a task's
    `NAME.top1`, `NAME.top5` (above 5 classes), `NAME.macro_f1`, `NAME.loss` (lower is better), and of a task that is
    `ordered` `NAME.mean_absolute_error` (lower is better)."""


class ElasticConfig(Strict):
    """`python -m launch.worker` goes on with fewer ranks when one is lost, and takes in those that come.
    `elastic: null`, the default: the number of ranks is fixed."""

    min_ranks: Ranks = 1
    """The fewest to go on with."""
    max_ranks: Ranks
    """More are not taken in; at most `data.lanes` and `batch_size`."""

    @model_validator(mode="after")
    def _in_order(self) -> "ElasticConfig":
        if self.min_ranks > self.max_ranks:
            raise ValueError(f"min_ranks {self.min_ranks} is more than max_ranks {self.max_ranks}")
        return self


class WandbConfig(Strict):
    """Weights & Biases. Nothing that goes wrong there ends a run."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    """`offline` keeps the records in the run folder, for `wandb sync` to send later."""
    project: str = "slimheads"
    """Where the run is listed."""
    name: str | None = None
    """Name of the run. `null`: one that W&B makes up."""


class TrackingConfig(Strict):
    """Numbers while it trains: in `metrics.jsonl`, on the console, in W&B and in TensorBoard."""

    wandb: WandbConfig = WandbConfig()
    tensorboard: bool | str = False
    """`true` writes event files into `tensorboard/` of the run folder, text into the folder that it names. Needs the
    package `tensorboard`: `pip install 'slimheads[tensorboard]'`."""
    log_every: Updates = 20
    """Every how many updates losses and accuracies of the training are written."""
    evaluate_every: WholeEpochs = 1
    """Every how many epochs it validates; always after the last."""
