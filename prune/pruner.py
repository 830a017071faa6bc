"""Choose, rewrite, check: a trained student in, a narrower one and everything known about it out.

pruned = prune_student(student, candidates, limits=Limits(multiple=8), goal=Goal("ratio", 0.3), inputs={"random": x})
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor

from models.channel_groups import Group
from models.cost import Cost, count_cost, without_weights
from models.errors import ModelError
from models.formats.latency import measure_latency
from models.student import Student
from prune.equivalence import Equivalence, check_equivalence
from prune.rewrite import rewrite
from prune.selection import Candidates, Selection, rank_of, select

_LATENCY_CANDIDATES = 128  # ranks among which a latency budget is bisected: each one tried is exported and timed


class NothingToPrune(ModelError):
    """Under these limits no layer can get narrower."""


@dataclass(frozen=True)
class Limits:
    """As in `prune.selection.select`."""

    threshold_cap: bool = True
    floor: int = 8
    max_layer_ratio: float = 1.0
    multiple: int = 1


@dataclass(frozen=True)
class Goal:
    """kind: `ratio` (share of the channels), `parameters`, `macs` (of one image) or `latency` (milliseconds)."""

    kind: str
    value: float
    image_size: int = 224
    threads: int = 1


@dataclass(frozen=True)
class Pruned:
    student: Student  # float32, eval mode
    groups: tuple[Group, ...]  # of the network before
    selection: Selection
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
    selection = _choose(student, candidates, limits, goal, progress)
    _require_change(candidates, selection, limits)
    progress("rewriting and proving")
    masked, narrow = rewrite(student, selection.kept, fold=fold)
    equivalence = check_equivalence(masked, narrow, inputs)  # in float64
    return Pruned(
        student=narrow.float(),
        groups=candidates.groups,
        selection=selection,
        before=count_cost(student, image_size=goal.image_size),
        after=count_cost(narrow, image_size=goal.image_size),
        equivalence=equivalence,
    )


def _choose(
    student: Student, candidates: Candidates, limits: Limits, goal: Goal, progress: Callable[[str], None]
) -> Selection:
    def at(rank: int, *, threshold_cap: bool = limits.threshold_cap) -> Selection:
        return select(
            candidates.layers,
            rank=rank,
            pool=candidates.pool,
            threshold_cap=threshold_cap,
            floor=limits.floor,
            max_layer_ratio=limits.max_layer_ratio,
            multiple=limits.multiple,
        )

    if goal.kind == "ratio":
        return at(rank_of(goal.value, candidates.pool))
    unit, cost_of = _costs(goal)
    now = cost_of(student)
    if now <= goal.value:
        raise ModelError(f"the model already fits: it has {attainable(now, unit)}, the budget is {exact(goal.value)}")
    # Latency is measured on real weights, the rest is counted on shapes alone.
    source = student if goal.kind == "latency" else without_weights(student)

    @cache
    def cost_at(rank: int) -> float:
        cost = cost_of(_rebuilt(source, at(rank)))
        progress(f"pruned to {attainable(cost, unit)}, budget {exact(goal.value)}")
        return cost

    num_ranks = len(candidates.magnitudes)
    ranks = range(num_ranks)
    if goal.kind == "latency":
        ranks = np.unique(np.linspace(0, num_ranks - 1, _LATENCY_CANDIDATES).astype(int)).tolist()
    way_out = "lower --floor or --multiple, or raise --max-layer-ratio"
    if candidates.more_by:
        way_out = f"{way_out}, or prune more {candidates.more_by}"
    harshest = at(ranks[-1])
    if harshest.kept != at(ranks[-1], threshold_cap=False).kept:
        way_out = f"the cap holds the threshold at {harshest.cap:.3g}: leave out --threshold-cap, or {way_out}"
    return at(mildest_rank(cost_at, budget=goal.value, ranks=ranks, unit=unit, way_out=way_out))


def _costs(goal: Goal) -> tuple[str, Callable[[Student], float]]:
    if goal.kind == "parameters":
        return "parameters", lambda student: student.num_parameters
    if goal.kind == "macs":
        return "MACs", lambda student: count_cost(student, image_size=goal.image_size).macs

    def latency(student: Student) -> float:
        return measure_latency(student, image_size=goal.image_size, threads=goal.threads).milliseconds

    return "ms", latency


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


def mildest_rank(
    cost_at: Callable[[int], float], *, budget: float, ranks: Sequence[int], unit: str, way_out: str
) -> int:
    """The first of the ascending `ranks` whose cost is within the budget; costs fall as ranks rise.

    way_out: what makes smaller costs reachable. Raises ModelError with it and the smallest reachable cost where even
    the last is above.
    """
    smallest = cost_at(ranks[-1])
    if smallest > budget:
        raise ModelError(
            f"a budget of {exact(budget)} {unit} cannot be reached: with these limits the smallest is "
            f"{attainable(smallest, unit)}; {way_out}"
        )
    low, high = 0, len(ranks) - 1  # the last is known to be good
    while low < high:
        middle = (low + high) // 2
        if cost_at(ranks[middle]) <= budget:
            high = middle
        else:
            low = middle + 1
    return ranks[high]


def attainable(cost: float, unit: str) -> str:
    """A cost with its unit, in a number that can be asked for: counts in full, milliseconds rounded up."""
    return f"{math.ceil(1000 * cost) / 1000:,.3f} ms" if unit == "ms" else f"{math.ceil(cost):,} {unit}"


def exact(budget: float) -> str:
    """All digits, as they were asked for."""
    return f"{budget:,.15g}"
