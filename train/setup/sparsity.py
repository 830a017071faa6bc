"""The sparsity penalty of a run from its config: which norms, and the hooks of the training step.

sparsity = build_sparsity(config, model, optimizer, steps_per_epoch=1367)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from models.student import Student
from train.config.schema import Config
from train.losses.bn_sparsity import (
    PenalisedNorm,
    ProximalSparsity,
    SubgradientSparsity,
    penalised_norms,
    require_prunable,
    sparsity_factor,
)


@dataclass(frozen=True)
class Sparsity:
    """Nothing where the config has no `sparsity:`. The hooks are those of `TrainStep`."""

    norms: list[PenalisedNorm] = field(default_factory=list)
    gradient_hooks: list[Callable[[int], None]] = field(default_factory=list)
    update_hooks: list[Callable[[int], None]] = field(default_factory=list)


def build_sparsity(
    config: Config, model: Student, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int
) -> Sparsity:
    """After the optimizer, which freezes parts: frozen norms are not penalised. Raises ModelError."""
    settings = config.sparsity
    if settings is None:
        return Sparsity()
    norms = penalised_norms(model, groups=settings.groups)
    require_prunable(model, norms)
    factor = partial(
        sparsity_factor,
        steps_per_epoch=steps_per_epoch,
        start_epoch=settings.start_epoch,
        ramp_epochs=settings.ramp_epochs,
    )

    def strength(step: int) -> float:
        return settings.strength * factor(step)

    if settings.kind == "subgradient":
        return Sparsity(norms, gradient_hooks=[SubgradientSparsity(norms, strength=strength)])
    return Sparsity(norms, update_hooks=[ProximalSparsity(norms, optimizer, strength=strength)])
