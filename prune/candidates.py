"""What a rule may choose from: the scores of every unit, and the pool that its threshold comes from.

candidates = find_candidates(student, rule="threshold", score="gamma", kinds=KINDS)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import ModelError
from models.groups import KINDS, Group
from models.student import Student
from prune.histogram import describe
from prune.scores import NEEDS_NORMS, SCORES, Batch, gate_gammas, has_norm_gates
from prune.selection import Layer, pool_of

RULES = ("threshold", "expansion")
_NOT_EXPANSION = "not an expansion"
NO_NORM = "no norm, so no gamma: another score ranks it"


@dataclass(frozen=True)
class Candidates:
    """layers: group name -> scores. pool: from which the threshold is taken. left_out: group name -> the reason."""

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
    """rule `threshold`: one pool of the scores of all groups of these kinds. rule `expansion`: the slimming of
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
    scores = SCORES[score](student, chosen, batches)
    layers = {group.name: Layer(scores[group.name], group.copies, group.unit_step) for group in chosen}
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
