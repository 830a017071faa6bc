"""What a run needs of its config before and beside its experiment: `settings = run_settings(config)`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config.schema import Config, describe


@dataclass(frozen=True)
class WandbSettings:
    mode: str
    project: str
    name: str | None


@dataclass(frozen=True)
class RunSettings:
    """folder: of the run. may_resume: go on where a run in it was. config: resolved, as plain values, for the folder
    and for trackers. max_bad_share: of the training samples. trace: write down which samples each step had.
    tensorboard: the folder for its files, None for none."""

    folder: str
    may_resume: bool
    allow_changes: bool
    config: Mapping[str, Any]
    watchdog_seconds: float
    num_checkpoints: int
    max_bad_share: float
    trace: bool
    wandb: WandbSettings
    tensorboard: Path | None


def run_settings(config: Config) -> RunSettings:
    wandb = config.tracking.wandb
    return RunSettings(
        folder=config.run.dir,
        may_resume=config.run.resume != "never",
        allow_changes=config.run.allow_changes,
        config=describe(config),
        watchdog_seconds=config.watchdog_seconds,
        num_checkpoints=config.checkpoint.keep,
        max_bad_share=config.data.max_bad_share,
        trace=config.trace_samples,
        wandb=WandbSettings(wandb.mode, wandb.project, wandb.name),
        tensorboard=_tensorboard_folder(config),
    )


def _tensorboard_folder(config: Config) -> Path | None:
    wanted = config.tracking.tensorboard
    return Path(wanted) if isinstance(wanted, str) else Path(config.run.dir) / "tensorboard" if wanted else None
