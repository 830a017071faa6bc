"""The optimizer and its learning rate from the config: `optimizer = optimizer_from(config, model, adapters)`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from models.student import Student
from train.config.schema import Config
from train.optim.optimizer import build_optimizer
from train.optim.schedule import learning_rate_factor


def optimizer_from(config: Config, model: Student, adapters: nn.Module) -> torch.optim.Optimizer:
    settings = config.optimizer
    return build_optimizer(
        model,
        adapters,
        kind=settings.kind,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        decay_norms_and_biases=settings.decay_norms_and_biases,
        lr_multipliers=config.model.lr_multipliers,
        freeze=config.model.freeze,
    )


def learning_rate(config: Config, steps_per_epoch: int) -> Callable[[int], float]:
    """Step -> learning rate."""
    schedule = config.schedule
    factor = partial(
        learning_rate_factor,
        steps_per_epoch=steps_per_epoch,
        epochs=schedule.epochs,
        warmup_epochs=schedule.warmup_epochs,
        warmup_factor=schedule.warmup_factor,
        decay=schedule.decay,
        final_factor=schedule.final_factor,
        milestones=schedule.milestones,
        gamma=schedule.gamma,
    )
    return lambda step: config.optimizer.lr * factor(step)
