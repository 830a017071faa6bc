"""The sparsity penalty of a run from its config: which norms, and the hooks of the training step.

sparsity = build_sparsity(config, model, optimizer, steps_per_epoch=1367)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from models.student import Student
from train.config.schema import Config
from train.losses.bn_sparsity import (
    ProximalSparsity,
    SubgradientSparsity,
    gamma_report,
    penalised_norms,
    require_prunable,
    sparsity_factor,
)


@dataclass(frozen=True)
class Sparsity:
    """Nothing where the config has no `sparsity:`. The hooks are those of `TrainStep`. report: how sparse the penalised
    norms are, for the log."""

    gradient_hooks: list[Callable[[int], None]] = field(default_factory=list)
    update_hooks: list[Callable[[int], None]] = field(default_factory=list)
    report: Callable[[], Mapping[str, Any]] | None = None


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

    report = partial(gamma_report, norms) if norms else None
    if settings.kind == "subgradient":
        return Sparsity(gradient_hooks=[SubgradientSparsity(norms, strength=strength)], report=report)
    return Sparsity(update_hooks=[ProximalSparsity(norms, optimizer, strength=strength)], report=report)
