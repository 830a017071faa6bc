"""Sparse training: an L1 penalty on the weights (gammas) of batch norms, so that some channels can go.

    norms = penalised_norms(student, groups={"hidden": 1.0, "stream": 0.5})
    hook = SubgradientSparsity(norms, strength=lambda step: 1e-4)   # a gradient hook
    hook = ProximalSparsity(norms, optimizer, strength=lambda step: 1e-4)   # an update hook

Both act on the sums over ranks and micro-batches, unscaled and clipped, so neither knows of ranks or loss scales.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.channel_groups import KINDS
from models.channel_groups.gamma_histogram import EDGES, NEAR_ZERO, counts
from models.channel_groups.narrow import Norm
from models.errors import ModelError
from models.student import Student


@dataclass(frozen=True)
class PenalisedNorm:
    """One norm's gammas and what the strength is multiplied with there."""

    name: str
    weight: nn.Parameter
    factor: float


def penalised_norms(model: Student, *, groups: Mapping[str, float] | None = None) -> list[PenalisedNorm]:
    """The trainable norms that are penalised: all with factor 1, or as `groups` says.

    groups: factors for kinds of channel groups (`stem`, `hidden`, `stream`, `features`, `embedding`) and for parts of
    the model (`heads`, `backbone.blocks.3`); the innermost part counts, then the kind, else 0. Raises ModelError for
    unknown names and where nothing is left.
    """
    norms = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, Norm) and isinstance(module.weight, nn.Parameter) and module.weight.requires_grad
    }
    if groups is None:
        factors = dict.fromkeys(norms, 1.0)
    else:
        parts = {part: factor for part, factor in groups.items() if part not in KINDS}
        for part in parts:
            _require_part(model, part)
        kinds = {kind: factor for kind, factor in groups.items() if kind in KINDS}
        kind_of = _kinds(model) if kinds else {}
        factors = {name: _factor(name, parts, kinds, kind_of) for name in norms}
    chosen = [PenalisedNorm(name, norms[name], factor) for name, factor in factors.items() if factor > 0]
    if not chosen:
        raise ModelError(
            "sparsity: no trainable batch norm is penalised; the model has none, or sparsity.groups says 0"
        )
    return chosen


def require_prunable(model: Student, norms: Sequence[PenalisedNorm]) -> None:
    """ModelError, with the reason, for a network that pruning would refuse after the training."""
    try:
        groups = model.channel_groups()
    except ModelError as error:
        raise ModelError(f"sparsity: {error}; remove the section, or take another model.backbone") from error
    gates = {gate.module for group in groups for gate in group.gates}
    if not any(norm.name in gates for norm in norms):
        named = ", ".join(norm.name for norm in norms[:3])
        raise ModelError(f"sparsity: no channel that can be pruned is behind the penalised norms ({named})")


def _require_part(model: Student, part: str) -> None:
    try:
        model.get_submodule(part)
    except AttributeError as error:
        raise ModelError(
            f"sparsity.groups: {part!r} is neither a part of the model nor a kind of channel group ({', '.join(KINDS)})"
        ) from error


def _kinds(model: Student) -> dict[str, str]:
    return {gate.module: group.kind for group in model.channel_groups() for gate in group.gates}


def _factor(name: str, parts: Mapping[str, float], kinds: Mapping[str, float], kind_of: Mapping[str, str]) -> float:
    matching = [part for part in parts if name == part or name.startswith(f"{part}.")]
    if matching:
        return parts[max(matching, key=len)]
    return kinds.get(kind_of.get(name, ""), 0.0)


def sparsity_factor(step: int, *, steps_per_epoch: int, start_epoch: float = 0, ramp_epochs: float = 0) -> float:
    """What the strength is multiplied with at a step: 0 before start_epoch, then linear to 1 over ramp_epochs."""
    since = step - start_epoch * steps_per_epoch
    if since < 0:
        return 0.0
    ramp = ramp_epochs * steps_per_epoch
    return min(1.0, since / ramp) if ramp else 1.0


class SubgradientSparsity:
    """Adds strength x sign(gamma) to the gradient of each gamma (Liu et al. 2017)."""

    def __init__(self, norms: Sequence[PenalisedNorm], *, strength: Callable[[int], float]) -> None:
        self._by_factor = _by_factor(norms)
        self._strength = strength

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        strength = self._strength(step)
        for factor, weights in self._by_factor.items():
            # Each has one: the buckets give zeros to parameters without a part in the loss.
            gradients = [gradient for weight in weights if (gradient := weight.grad) is not None]
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=strength * factor)


class ProximalSparsity:
    """Moves each gamma by learning rate x strength towards zero, where it stays if it gets there (soft threshold; ISTA,
    Daubechies et al. 2004). The rate is the present one of the gamma's own optimizer group; after a skipped update
    nothing moves."""

    def __init__(
        self, norms: Sequence[PenalisedNorm], optimizer: torch.optim.Optimizer, *, strength: Callable[[int], float]
    ) -> None:
        factor_of = {norm.weight: norm.factor for norm in norms}
        self._optimizer, self._strength = optimizer, strength
        self._parts = [
            (group, factor, weights)
            for group in optimizer.param_groups
            for factor, weights in _by_factor(
                [
                    PenalisedNorm("", parameter, factor_of[parameter])
                    for parameter in group["params"]
                    if parameter in factor_of
                ]
            ).items()
        ]

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        strength = self._strength(step)
        for group, factor, weights in self._parts:
            # On the device: whether the update was skipped is not known to the host.
            shrink = (1 - self._skipped(weights[0])) * (group["lr"] * factor * strength)
            magnitudes = torch._foreach_abs(weights)
            torch._foreach_add_(magnitudes, -shrink)
            torch._foreach_clamp_min_(magnitudes, 0.0)
            torch._foreach_mul_(magnitudes, torch._foreach_sign(weights))
            torch._foreach_copy_(weights, magnitudes)

    def _skipped(self, like: Tensor) -> Tensor:
        found: Tensor = self._optimizer.found_inf  # type: ignore[attr-defined]  # TrainStep sets it before each step
        return found.to(like.device)


def _by_factor(norms: Sequence[PenalisedNorm]) -> dict[float, list[Tensor]]:
    weights: dict[float, list[Tensor]] = {}
    for norm in norms:
        weights.setdefault(norm.factor, []).append(norm.weight)
    return weights


def gamma_report(norms: Sequence[PenalisedNorm]) -> dict[str, float | list[float] | list[int]]:
    """For the log: how many gammas there are, how many near zero (below 0.01), their mean magnitude, a histogram."""
    magnitudes = torch.cat([norm.weight.detach().abs().flatten() for norm in norms]).double().cpu().numpy()
    largest = magnitudes[np.isfinite(magnitudes)].max(initial=2.0)
    near_zero = int((magnitudes < NEAR_ZERO).sum())
    return {
        "gamma.count": len(magnitudes),
        "gamma.near_zero": near_zero,
        "gamma.near_zero_share": near_zero / len(magnitudes),
        "gamma.mean": float(magnitudes.mean()),
        "gamma.histogram_edges": [*EDGES[:-1], float(largest)],
        "gamma.histogram": counts(magnitudes),
    }
