"""Which units stay: pure functions of the scores and the limits.

selection = select({"block1": Layer(scores), ...}, rank=rank_of(0.3, pool), floor=8, multiple=8)

A layer here is one channel group; its width is counted in channels, its scores and what is kept in units.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.errors import ModelError


@dataclass(frozen=True)
class Layer:
    """scores: float [num_units]. copies: channels of a unit. unit_step: the kept units must be a multiple of it."""

    scores: np.ndarray
    copies: int = 1
    unit_step: int = 1

    @property
    def width(self) -> int:
        """In channels."""
        return len(self.scores) * self.copies


@dataclass(frozen=True)
class Selection:
    """kept: layer -> ascending units. threshold: units at or below it were to go. cap: the smallest maximum of a norm,
    which the threshold may not exceed; None without it. is_capped: the threshold is lower for it. remarks: layer ->
    which limit made it keep more."""

    kept: dict[str, tuple[int, ...]]
    threshold: float
    cap: float | None
    is_capped: bool = False
    remarks: dict[str, str] = field(default_factory=dict)


def rank_of(ratio: float, pool: Mapping[str, np.ndarray]) -> int:
    """Place of the threshold in the sorted pool. Raises ModelError for a ratio that is not between 0 and 1."""
    if not 0 < ratio < 1:
        raise ModelError(f"the ratio is {ratio}; it is the share of channels to prune, between 0 and 1")
    return int(sum(len(values) for values in pool.values()) * ratio)


def pool_of(layers: Mapping[str, Layer]) -> dict[str, np.ndarray]:
    """The scores themselves, from which the threshold is taken unless a rule has another pool."""
    return {name: layer.scores for name, layer in layers.items()}


def select(
    layers: Mapping[str, Layer],
    *,
    rank: int,
    pool: Mapping[str, np.ndarray],
    threshold_cap: bool = True,
    floor: int = 1,
    max_layer_ratio: float = 1.0,
    multiple: int = 1,
) -> Selection:
    """Units with a score above sorted(pool)[rank] stay, and as many of the others, largest first, as the limits ask.

    threshold_cap: the threshold is at most the smallest of the pool's per-norm maxima. floor: channels that every layer
    keeps. max_layer_ratio: the largest share of a layer that may go. multiple: widths are rounded up to it; a layer
    whose rounded width would exceed its width keeps all. Equal scores go by their number, lower ones stay.
    """
    ordered = np.sort(np.concatenate(list(pool.values())))
    cap = float(min(values.max() for values in pool.values())) if threshold_cap else None
    wanted = float(ordered[rank])
    threshold = wanted if cap is None else min(wanted, cap)
    kept, remarks = {}, {}
    for name, layer in layers.items():
        above = int((layer.scores > threshold).sum())
        count, remark = _num_kept(layer, above=above, floor=floor, max_layer_ratio=max_layer_ratio, multiple=multiple)
        largest_first = np.argsort(-layer.scores, kind="stable")
        kept[name] = tuple(sorted(largest_first[:count].tolist()))
        if remark:
            remarks[name] = remark
    return Selection(kept, threshold, cap, threshold < wanted, remarks)


def _num_kept(layer: Layer, *, above: int, floor: int, max_layer_ratio: float, multiple: int) -> tuple[int, str]:
    """Units to keep, and why they are more than `above`, where a limit and not the rounding decided."""
    num_units = len(layer.scores)
    # Rounded first, lest 10 x (1 - 0.7) ask for a fourth unit.
    by_ratio = math.ceil(round(num_units * (1 - max_layer_ratio), 9))
    by_floor = math.ceil(min(floor, layer.width) / layer.copies)
    count = max(above, by_floor, by_ratio, 1)
    remark = ""
    if count > above:
        remark = "max_layer_ratio" if by_ratio == count and by_ratio > by_floor else "floor"
    step = math.lcm(multiple // math.gcd(multiple, layer.copies), layer.unit_step)
    rounded = -(-count // step) * step
    if rounded > num_units:
        reason = f"no smaller width is a multiple of {step * layer.copies}"
        return num_units, reason if count < num_units else remark
    return rounded, remark
