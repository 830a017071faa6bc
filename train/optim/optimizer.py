"""The optimizer over the parameter groups, and its learning rate step by step.

optimizer = build_optimizer(config, model, adapters)
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from models.parameter_groups import parameter_groups
from models.student import Student
from train.config.schema import Config, OptimizerConfig, ScheduleConfig
from train.optim.schedule import learning_rate_factor


def build_optimizer(config: Config, model: Student, bridges: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the parameter groups, one of them the bridges' where there are any. The fused kernels can skip
    an update without telling the host."""
    settings: OptimizerConfig = config.optimizer
    groups = parameter_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        norm_bias_decay=settings.decay_norms_and_biases,
        multipliers=config.model.lr_multipliers,
        freeze=config.model.freeze,
    )
    if trained := list(bridges.parameters()):
        more = {"params": trained, "name": "bridges", "lr": settings.lr, "lr_multiplier": 1.0}
        groups.append({**more, "weight_decay": settings.weight_decay})
    if settings.kind == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        sgd = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True)
        if settings.momentum:
            _start_momentum(sgd)
        return sgd
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.kind]
    return kind(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Momentum begins at 0. The fused kernel would make room for it in the first step and, should that step be skipped
    (fp16 often skips it), go on with whatever the memory held."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def learning_rate(config: Config, steps_per_epoch: int) -> Callable[[int], float]:
    """Step -> learning rate."""
    schedule: ScheduleConfig = config.schedule
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
