"""Which units stay: pure functions of their importance and the limits.

selection = select(layers, rank=rank_of(0.3, pool), pool=pool, floor=8, multiple=8)

A layer here is one channel group; its width is counted in channels, its importance and what is kept in units.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.channel_groups import KINDS, Group
from models.channel_groups.gamma_histogram import describe
from models.errors import ModelError
from models.heads import task_module
from models.student import Student
from prune.importance import CRITERIA, NEEDS_NORMS, Batch, gate_gammas, has_norm_gates


@dataclass(frozen=True)
class Layer:
    """importance: float [num_units]. copies: channels of a unit. unit_step: the kept units must be a multiple of it."""

    importance: np.ndarray
    copies: int = 1
    unit_step: int = 1

    @property
    def width(self) -> int:
        """In channels."""
        return len(self.importance) * self.copies


@dataclass(frozen=True)
class Selection:
    """kept: layer -> ascending units. threshold: units at or below it were to go. cap: the smallest maximum of a norm,
    which the threshold may not exceed; None without it. is_capped: the threshold is lower for it. reasons: layer ->
    which limit made it keep more."""

    kept: dict[str, tuple[int, ...]]
    threshold: float
    cap: float | None
    is_capped: bool = False
    reasons: dict[str, str] = field(default_factory=dict)


def rank_of(ratio: float, pool: Mapping[str, np.ndarray]) -> int:
    """Place of the threshold in the sorted pool. Raises ModelError for a ratio that is not between 0 and 1."""
    if not 0 < ratio < 1:
        raise ModelError(f"the ratio is {ratio}; it is the share of channels to prune, between 0 and 1")
    return int(sum(len(values) for values in pool.values()) * ratio)


def pool_of(layers: Mapping[str, Layer]) -> dict[str, np.ndarray]:
    """The importance itself, from which the threshold is taken unless a rule has another pool."""
    return {name: layer.importance for name, layer in layers.items()}


def select(
    layers: Mapping[str, Layer],
    *,
    rank: int,
    pool: Mapping[str, np.ndarray],
    threshold_cap: bool = True,
    floor: int = 1,
    max_layer_ratio: float = 1.0,
    multiple: int = 1,
    least: Mapping[str, int] | None = None,
) -> Selection:
    """Units above sorted(pool)[rank] stay, and as many of the others, largest first, as the limits ask.

    threshold_cap: the threshold is at most the smallest of the pool's per-norm maxima. floor: channels that every layer
    keeps. max_layer_ratio: the largest share of a layer that may go. multiple: widths are rounded up to it; a layer
    whose rounded width would exceed its width keeps all. least: layer -> channels that it keeps at any rate, as
    `least_widths` gives them. Equal ones go by their number, lower ones stay.
    """
    ordered = np.sort(np.concatenate(list(pool.values())))
    cap = float(min(values.max() for values in pool.values())) if threshold_cap else None
    wanted = float(ordered[rank])
    threshold = wanted if cap is None else min(wanted, cap)
    kept, reasons = {}, {}
    for name, layer in layers.items():
        above = int((layer.importance > threshold).sum())
        count, reason = _num_kept(
            layer,
            above=above,
            floor=floor,
            max_layer_ratio=max_layer_ratio,
            multiple=multiple,
            least=(least or {}).get(name, 0),
        )
        largest_first = np.argsort(-layer.importance, kind="stable")
        kept[name] = tuple(sorted(largest_first[:count].tolist()))
        if reason:
            reasons[name] = reason
    return Selection(kept, threshold, cap, threshold < wanted, reasons)


def _num_kept(
    layer: Layer, *, above: int, floor: int, max_layer_ratio: float, multiple: int, least: int
) -> tuple[int, str]:
    """Units to keep, and why they are more than `above`, where a limit and not the rounding decided."""
    num_units = len(layer.importance)
    wanted = {
        "min_features": math.ceil(min(least, layer.width) / layer.copies),
        "floor": math.ceil(min(floor, layer.width) / layer.copies),
        # Rounded first, lest 10 x (1 - 0.7) ask for a fourth unit.
        "max_layer_ratio": math.ceil(round(num_units * (1 - max_layer_ratio), 9)),
    }
    limit = max(wanted, key=lambda name: (wanted[name], name == "floor"))
    count = max(above, wanted[limit], 1)
    reason = limit if count > above and wanted[limit] == count else "floor" if count > above else ""
    step = math.lcm(multiple // math.gcd(multiple, layer.copies), layer.unit_step)
    rounded = -(-count // step) * step
    if rounded > num_units:
        no_smaller = f"no smaller width is a multiple of {step * layer.copies}"
        return num_units, no_smaller if count < num_units else reason
    return rounded, reason


# Fewer pooled features than that carry little, however few the classes are.
LEAST_FEATURES = 32
FEATURES_PER_CLASS = 2  # where 1 was left, EfficientNet-lite0 answered all alike until its norms were measured anew


def default_min_features(tasks: Mapping[str, int]) -> int:
    """Pooled features that the heads need. tasks: {name: number of classes}.

    A trained classifier puts the means of its C classes on the corners of a simplex, which has C - 1 dimensions (neural
    collapse: Papyan, Han and Donoho 2020). Pruning takes from the features that are there, which share these
    dimensions among them, so it leaves two for each class (docs/PRUNING.md has what more are worth).
    """
    return max(LEAST_FEATURES, *(FEATURES_PER_CLASS * count for count in tasks.values()))


def least_widths(student: Student, groups: Sequence[Group], *, min_features: int) -> dict[str, int]:
    """Channels that the groups before the classifiers keep at any rate: `min_features` of the pooled features (a
    flattened map has several per channel), and of an embedding FEATURES_PER_CLASS for each class of its tasks, if that
    is less."""
    classes = {}
    for task, count in student.tasks.items():
        for name in (f"heads.classifiers.{task_module(task)}", f"heads.branches.{task_module(task)}.1"):
            classes[name] = count
    least = {}
    for group in groups:
        if group.kind == "features":
            least[group.name] = math.ceil(min_features / group.consumers[-1].spread)
        elif read_by := [classes[reader.module] for reader in group.consumers if reader.module in classes]:
            least[group.name] = min(min_features, FEATURES_PER_CLASS * max(read_by))
    return least


RULES = ("threshold", "expansion")
_NOT_EXPANSION = "not an expansion"
NO_NORM = "no norm, so no gamma: another score ranks it"


@dataclass(frozen=True)
class Candidates:
    """layers: group name -> importance of its units. pool: from which the threshold is taken. left_out: group
    name -> the reason."""

    groups: tuple[Group, ...]
    layers: dict[str, Layer]
    pool: dict[str, np.ndarray]
    left_out: dict[str, str]

    @property
    def magnitudes(self) -> np.ndarray:
        """The pool, flat."""
        return np.concatenate(list(self.pool.values()))

    @property
    def more_by(self) -> str | None:
        """The option that takes more groups, where an option left some out."""
        reasons = set(self.left_out.values())
        if _NOT_EXPANSION in reasons:
            return "by --rule threshold"
        return "--kinds" if reasons - {NO_NORM} else None


def find_candidates(
    student: Student,
    *,
    rule: str = "threshold",
    score: str = "gamma",
    kinds: Sequence[str] = KINDS,
    batches: Iterable[Batch] = (),
) -> Candidates:
    """rule `threshold`: one pool of the importance in all groups of these kinds. rule `expansion`: the slimming of
    MobileNetV2: the pool is |gamma| of the expansion and depthwise norms of the blocks that expand, and the expansion's
    |gamma| alone decides. Raises ModelError where there is nothing to choose from or nothing to choose by."""
    groups = student.channel_groups()
    if rule == "expansion":
        return _expansions(student, groups)
    left_out = {group.name: f"kind {group.kind}" for group in groups if group.kind not in kinds}
    chosen = [group for group in groups if group.name not in left_out]
    if not chosen:
        present = ", ".join(dict.fromkeys(group.kind for group in groups))
        raise ModelError(f"the model has no channel groups of kind {', '.join(kinds)}; it has {present}")
    if score in NEEDS_NORMS:
        without = [group for group in chosen if not has_norm_gates(student, group)]
        left_out |= {group.name: NO_NORM for group in without}
        chosen = [group for group in chosen if group.name not in left_out]
        if not chosen:
            of_kinds = f" in its groups of kind {', '.join(kinds)}" if set(kinds) < set(KINDS) else ""
            raise ModelError(
                f"this model has no norms whose channels could be pruned{of_kinds}; rank by weights instead: --score l2"
            )
    importance = CRITERIA[score](student, chosen, batches)
    layers = {group.name: Layer(importance[group.name], group.copies, group.unit_step) for group in chosen}
    return _checked(Candidates(groups, layers, pool_of(layers), left_out), score)


def _expansions(student: Student, groups: tuple[Group, ...]) -> Candidates:
    chosen = [
        group
        for group in groups
        if group.kind == "hidden" and group.followers and len(group.gates) == 2 and has_norm_gates(student, group)
    ]
    if not chosen:
        raise ModelError(
            "rule expansion is for inverted residual blocks (MobileNetV2); this model has none: --rule threshold"
        )
    names = {group.name for group in chosen}
    pool = {gate.module: gate_gammas(student, group, gate) for group in chosen for gate in group.gates}
    layers = {group.name: Layer(pool[group.gates[0].module], group.copies, group.unit_step) for group in chosen}
    left_out = {group.name: _NOT_EXPANSION for group in groups if group.name not in names}
    return _checked(Candidates(groups, layers, pool, left_out), "gamma")


def _checked(candidates: Candidates, score: str) -> Candidates:
    values = candidates.magnitudes
    if values.min() == values.max():
        shown = f":\n{describe(values)}\n" if score == "gamma" else "; "
        raise ModelError(
            f"all {len(values):,} {score} scores are equal, so they rank nothing{shown}"
            "train with a `sparsity:` section first, or take another --score"
        )
    return candidates
