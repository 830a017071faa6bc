"""Choose, rewrite, check: a trained student in, a narrower one and everything known about it out.

pruned = prune_student(student, candidates, limits=Limits(multiple=8), goal=Goal(ratio=0.3), inputs={"random": x})
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from torch import Tensor

from models.channel_groups import Group
from models.cost import Cost, count_cost, without_weights
from models.errors import ModelError
from models.student import Student
from prune.equivalence import Equivalence, check_equivalence
from prune.goal import UNITS, Goal, attainable, exact, mildest_rank, require_larger
from prune.rewrite import rewrite
from prune.selection import Candidates, Selection, default_min_features, least_widths, rank_of, select

_LATENCY_CANDIDATES = 128  # ranks among which a latency budget is bisected: each one tried is exported and timed


class NothingToPrune(ModelError):
    """Under these limits no layer can get narrower."""


@dataclass(frozen=True)
class Limits:
    """As in `prune.selection.select`. min_features: of the pooled features; None for `default_min_features`."""

    threshold_cap: bool = True
    floor: int = 8
    max_layer_ratio: float = 1.0
    multiple: int = 1
    min_features: int | None = None


@dataclass(frozen=True)
class Pruned:
    student: Student  # float32, eval mode
    groups: tuple[Group, ...]  # of the network before
    selection: Selection
    limits: Limits  # with the number of features that the default came to
    before: Cost
    after: Cost
    equivalence: dict[str, Equivalence]  # by the name of the input


def prune_student(
    student: Student,
    candidates: Candidates,
    *,
    limits: Limits,
    goal: Goal,
    inputs: Mapping[str, Tensor],
    fold: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Pruned:
    """inputs: name -> images on which masked and rebuilt network must agree. Raises NothingToPrune, ModelError for
    goals that cannot be reached, and NotEquivalent where the two networks differ; the student stays as it is."""
    if limits.min_features is None:
        limits = replace(limits, min_features=default_min_features(student.tasks))
    selection = _choose(student, candidates, limits, goal, progress)
    _require_change(candidates, selection, limits)
    progress("rewriting and proving")
    masked, narrow = rewrite(student, selection.kept, fold=fold)
    equivalence = check_equivalence(masked, narrow, inputs)  # in float64
    return Pruned(
        student=narrow.float(),
        groups=candidates.groups,
        selection=selection,
        limits=limits,
        before=count_cost(student, image_size=goal.image_size),
        after=count_cost(narrow, image_size=goal.image_size),
        equivalence=equivalence,
    )


def _choose(
    student: Student, candidates: Candidates, limits: Limits, goal: Goal, progress: Callable[[str], None]
) -> Selection:
    least = least_widths(student, candidates.groups, min_features=limits.min_features or 0)

    def at(rank: int, *, threshold_cap: bool = limits.threshold_cap, least: Mapping[str, int] = least) -> Selection:
        return select(
            candidates.layers,
            rank=rank,
            pool=candidates.pool,
            threshold_cap=threshold_cap,
            floor=limits.floor,
            max_layer_ratio=limits.max_layer_ratio,
            multiple=limits.multiple,
            least=least,
        )

    if goal.ratio is not None:
        return at(rank_of(goal.ratio, candidates.pool))
    require_larger({kind: goal.cost(kind, student) for kind in goal.budgets}, goal.budgets)
    shapes = without_weights(student)

    @cache
    def cost_at(kind: str, rank: int) -> float:
        # Latency is measured on real weights, the rest is counted on shapes alone.
        cost = goal.cost(kind, _rebuilt(student if kind == "latency" else shapes, at(rank)))
        progress(f"pruned to {attainable(cost, UNITS[kind])}, budget {exact(goal.budgets[kind])}")
        return cost

    num_ranks = len(candidates.magnitudes)
    ranks = range(num_ranks)
    if "latency" in goal.budgets:
        ranks = np.unique(np.linspace(0, num_ranks - 1, _LATENCY_CANDIDATES).astype(int)).tolist()
    way_out = "lower --floor or --multiple, or raise --max-layer-ratio"
    if candidates.more_by:
        way_out = f"{way_out}, or prune more {candidates.more_by}"
    harshest = at(ranks[-1])
    if held := [name for name, kept in at(ranks[-1], least={}).kept.items() if kept != harshest.kept[name]]:
        keep = ", ".join(f"{name} keeps {_num_channels(candidates, harshest, name)}" for name in held)
        way_out = f"lower --min-features ({keep} channels for the classifiers), or {way_out}"
    if harshest.kept != at(ranks[-1], threshold_cap=False).kept:
        way_out = f"the cap holds the threshold at {harshest.cap:.3g}: leave out --threshold-cap, or {way_out}"
    return at(mildest_rank(cost_at, budgets=goal.budgets, ranks=ranks, way_out=way_out))


def _num_channels(candidates: Candidates, selection: Selection, name: str) -> str:
    layer = candidates.layers[name]
    return f"{len(selection.kept[name]) * layer.copies:,} of {layer.width:,}"


def _rebuilt(source: Student, selection: Selection) -> Student:
    """The narrow network itself; without folding, which changes no shape."""
    rebuilt = copy.deepcopy(source)
    rebuilt.narrow(selection.kept)
    return rebuilt


def _require_change(candidates: Candidates, selection: Selection, limits: Limits) -> None:
    layers = candidates.layers
    if any(len(kept) < len(layers[name].importance) for name, kept in selection.kept.items()):
        return
    widest = max(layer.width for layer in layers.values())
    raise NothingToPrune(
        f"nothing would be pruned: with multiples of {limits.multiple}, a floor of {limits.floor} and max_layer_ratio "
        f"{limits.max_layer_ratio:g} no layer (the widest has {widest} channels) can get narrower; prune more, or "
        "relax a limit"
    )
