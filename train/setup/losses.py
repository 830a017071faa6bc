"""The label terms of the loss from the config, and what their names and the monitor must be.

terms = label_terms(config, index, tasks, shares={}, steps_per_epoch=1367)
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.index import Index
from data.index.class_counts import count_classes
from train.config.schema import Config, TaskConfig
from train.errors import ConfigError
from train.losses.objective import LossTerm, label_term
from train.optim.schedule import weight_ramp


def check_monitor(config: Config, tasks: Mapping[str, int], *, ordered: Collection[str]) -> None:
    """What is watched must be measured: said at the start, not after the first epoch. Raises ConfigError."""
    if config.data.val is None:
        if config.schedule.patience is not None:
            raise ConfigError("schedule.patience: needs data.val, whose results it waits for")
        return
    measured = ["mean_top1"]
    for task, num_classes in tasks.items():
        names = ["top1", "macro_f1", "loss", *(["top5"] if num_classes > 5 else [])]
        names += ["mean_absolute_error"] if task in ordered else []
        measured += [f"{task}.{name}" for name in names]
    if config.checkpoint.monitor not in measured:
        raise ConfigError(f"checkpoint.monitor: {config.checkpoint.monitor!r} is not among {', '.join(measured)}")


def check_measure_names(terms: Sequence[str], tasks: Sequence[str]) -> None:
    """In the logs every loss term and every task's measure has a name of its own. Raises ConfigError."""
    names = [*(f"loss.{term}" for term in terms), *(f"{task}.top1" for task in tasks)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(
            f"tasks: with {', '.join(tasks)} two measures of the logs would be called {twice[0]}; rename one of the "
            "tasks, or leave it out"
        )


def label_terms(
    config: Config, index: Index, tasks: Mapping[str, int], *, shares: Mapping[str, float], steps_per_epoch: int
) -> list[LossTerm]:
    """One label term per task. shares: what a task's weight is multiplied with, 1 where it is not named."""
    terms = []
    for task, num_classes in tasks.items():
        options = (config.tasks or {}).get(task, TaskConfig())
        terms.append(
            label_term(
                task,
                weight=options.weight * shares.get(task, 1.0),
                ramp=weight_schedule(config, steps_per_epoch, power=options.ramp),
                loss=options.loss,
                class_weights=_class_weights(options.class_weights, task, num_classes, index),
                label_smoothing=options.label_smoothing,
                focal_gamma=options.focal_gamma,
            )
        )
    return terms


def weight_schedule(config: Config, steps_per_epoch: int, *, power: float) -> Callable[[int], float] | None:
    """Step -> what a loss term's weight is multiplied with; None: 1 throughout."""
    if not power:
        return None
    return partial(weight_ramp, steps_per_epoch=steps_per_epoch, epochs=config.schedule.epochs, power=power)


def _class_weights(setting: Any, task: str, num_classes: int, index: Index) -> Tensor | None:
    if setting is None:
        return None
    if setting == "balanced":
        counts = count_classes(index)[task][:-1]  # the last number counts missing labels
        # A class without a sample never occurs; any weight does.
        return torch.tensor(counts.sum() / (num_classes * np.maximum(counts, 1)), dtype=torch.float32)
    if len(setting) != num_classes:
        raise ConfigError(f"tasks.{task}.class_weights: {len(setting)} weights for {num_classes} classes")
    return torch.tensor(setting, dtype=torch.float32)
