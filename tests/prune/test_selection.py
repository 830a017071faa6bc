"""Selection keeps its promises for any importance, ranks and limits; recipe A's rule is followed to the letter."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ModelError
from prune.goal import UNITS, mildest_rank
from prune.selection import Layer, pool_of, rank_of, select


@st.composite
def many_layers(draw: st.DrawFn) -> dict[str, Layer]:
    """One to five layers; equal, zero and tiny gammas are frequent."""
    layers = {}
    for number in range(draw(st.integers(1, 5))):
        copies, step = draw(st.sampled_from([1, 1, 1, 2])), draw(st.sampled_from([1, 1, 1, 4]))
        num_units = draw(st.integers(1, 24)) * step
        gamma = st.one_of(st.floats(0, 2, allow_subnormal=False), st.sampled_from([0.0, 0.5, 1.0]))
        importance = draw(st.lists(gamma, min_size=num_units, max_size=num_units))
        layers[f"layer{number}"] = Layer(np.array(importance), copies, step)
    return layers


LIMITS = {
    "place": st.floats(0, 1, exclude_max=True),
    "threshold_cap": st.booleans(),
    "floor": st.integers(1, 20),
    "max_layer_ratio": st.floats(0.05, 1),
    "multiple": st.sampled_from([1, 2, 4, 8, 12, 16]),
}


@settings(max_examples=400, deadline=None)
@given(layers=many_layers(), **LIMITS)
def test_every_limit_holds_after_rounding(
    layers: dict[str, Layer], place: float, threshold_cap: bool, floor: int, max_layer_ratio: float, multiple: int
) -> None:
    pool = pool_of(layers)
    rank = int(place * sum(map(len, pool.values())))
    selection = select(
        layers,
        rank=rank,
        pool=pool,
        threshold_cap=threshold_cap,
        floor=floor,
        max_layer_ratio=max_layer_ratio,
        multiple=multiple,
    )
    if threshold_cap:
        assert selection.threshold <= min(importance.max() for importance in pool.values())
    for name, layer in layers.items():
        kept, total = selection.kept[name], len(layer.importance)
        assert list(kept) == sorted(set(kept))
        assert set(kept) <= set(range(total))
        width = len(kept) * layer.copies
        assert min(floor, layer.width) <= width <= layer.width
        assert total - len(kept) <= total * max_layer_ratio + 1e-6
        assert len(kept) % layer.unit_step == 0
        assert width % multiple == 0 or width == layer.width
        # Whatever is above the threshold stays, and nothing that goes is larger than something that stays.
        assert set(np.flatnonzero(layer.importance > selection.threshold)) <= set(kept)
        gone = sorted(set(range(total)) - set(kept))
        if gone:
            assert layer.importance[gone].max() <= layer.importance[list(kept)].min()


@settings(max_examples=200, deadline=None)
@given(layers=many_layers(), **LIMITS)
def test_no_more_is_given_back_than_the_limits_ask(
    layers: dict[str, Layer], place: float, threshold_cap: bool, floor: int, max_layer_ratio: float, multiple: int
) -> None:
    """Every width is the smallest allowed: one step narrower breaks a limit or takes a unit above the threshold."""
    pool = pool_of(layers)
    selection = select(
        layers,
        rank=int(place * sum(map(len, pool.values()))),
        pool=pool,
        threshold_cap=threshold_cap,
        floor=floor,
        max_layer_ratio=max_layer_ratio,
        multiple=multiple,
    )
    for name, layer in layers.items():
        total, kept = len(layer.importance), len(selection.kept[name])
        step = math.lcm(multiple // math.gcd(multiple, layer.copies), layer.unit_step)
        narrower = (kept - 1) // step * step
        needed = max(
            int((layer.importance > selection.threshold).sum()),
            math.ceil(min(floor, layer.width) / layer.copies),
            math.ceil(round(total * (1 - max_layer_ratio), 9)),
            1,
        )
        assert narrower < needed


@settings(max_examples=100, deadline=None)
@given(layers=many_layers(), first=st.floats(0, 1, exclude_max=True), second=st.floats(0, 1, exclude_max=True))
def test_a_higher_rank_never_keeps_more(layers: dict[str, Layer], first: float, second: float) -> None:
    pool = pool_of(layers)
    total = sum(map(len, pool.values()))
    mild, harsh = (
        select(layers, rank=int(place * total), pool=pool, floor=3, multiple=4) for place in sorted((first, second))
    )
    assert all(set(harsh.kept[name]) <= set(mild.kept[name]) for name in layers)


def expansion_rule(gammas: dict[str, tuple[np.ndarray, np.ndarray]], ratio: float) -> tuple[float, dict[str, set[int]]]:
    """Recipe A, written down once more: pool of both norms, sorted[int(total x p)], cap, strict mask by expansion."""
    both = [norm for pair in gammas.values() for norm in pair]
    everything = sorted(value for norm in both for value in norm)
    threshold = min(everything[int(len(everything) * ratio)], min(norm.max() for norm in both))
    return threshold, {
        name: {number for number, value in enumerate(expansion) if value > threshold}
        for name, (expansion, _) in gammas.items()
    }


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), ratio=st.floats(0.01, 0.99))
def test_the_expansion_rule_is_recipe_a(seed: int, ratio: float) -> None:
    random = np.random.default_rng(seed)
    gammas = {
        f"block{at}": (random.gamma(1, 0.2, width), random.gamma(1, 0.2, width))
        for at, width in enumerate((48, 96, 24))
    }
    layers = {name: Layer(expansion) for name, (expansion, _) in gammas.items()}
    pool = {f"{name}.bn{at}": norm for name, pair in gammas.items() for at, norm in enumerate(pair)}
    selection = select(layers, rank=rank_of(ratio, pool), pool=pool, threshold_cap=True, floor=1)
    threshold, masks = expansion_rule(gammas, ratio)
    assert selection.threshold == threshold
    for name, mask in masks.items():
        if mask:
            assert set(selection.kept[name]) == mask
        else:  # the strict ">" at the cap would leave nothing: the floor keeps the largest
            assert selection.kept[name] == (int(gammas[name][0].argmax()),)
            assert selection.reasons[name] == "floor"


def test_the_largest_pruned_channels_come_back_when_widths_are_rounded_up() -> None:
    importance = np.array([0.9, 0.1, 0.8, 0.3, 0.7, 0.2, 0.05, 0.4, 0.6, 0.5])
    selection = select({"a": Layer(importance)}, rank=4, pool={"a": importance}, multiple=4)
    assert selection.threshold == 0.4
    assert selection.kept["a"] == (0, 2, 3, 4, 5, 7, 8, 9)  # 0, 2, 4, 8, 9 and then 0.4, 0.3, 0.2


def test_a_width_that_no_multiple_fits_keeps_all_and_says_so() -> None:
    importance = np.linspace(0, 1, 141)
    selection = select({"a": Layer(importance)}, rank=3, pool={"a": importance}, multiple=8)
    assert len(selection.kept["a"]) == 141
    assert selection.reasons["a"] == "no smaller width is a multiple of 8"


def test_the_cap_keeps_a_layer_of_small_gammas_from_vanishing() -> None:
    layers = {"small": Layer(np.array([0.01, 0.02, 0.03])), "large": Layer(np.linspace(1, 2, 50))}
    pool = pool_of(layers)
    capped = select(layers, rank=30, pool=pool)
    assert capped.cap == capped.threshold == 0.03
    assert len(capped.kept["large"]) == 50
    free = select(layers, rank=30, pool=pool, threshold_cap=False)
    assert free.cap is None
    assert len(free.kept["large"]) < 50
    assert (capped.is_capped, free.is_capped, select(layers, rank=2, pool=pool).is_capped) == (True, False, False)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, math.nan])
def test_a_ratio_beyond_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ModelError, match="between 0 and 1"):
        rank_of(ratio, {"a": np.ones(10)})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1, 100), min_size=1, max_size=60), st.floats(1, 100))
def test_bisection_finds_the_mildest_rank_within_the_budget(costs: list[float], budget: float) -> None:
    costs = sorted(costs, reverse=True)
    within = [rank for rank, cost in enumerate(costs) if cost <= budget]
    if within:
        assert cheapest(costs, budget) == within[0]
    else:
        with pytest.raises(ModelError, match=r"cannot be reached: .* the smallest is .* MACs; lower --floor"):
            cheapest(costs, budget)


def cheapest(costs: list[float], budget: float, unit: str = "MACs") -> int:
    ranks = range(len(costs))
    kind = {name: kind for kind, name in UNITS.items()}[unit]
    return mildest_rank(lambda _, rank: costs[rank], budgets={kind: budget}, ranks=ranks, way_out="lower --floor")


@pytest.mark.parametrize(
    ("smallest", "budget", "unit", "message"),
    [
        (1_234_564, 1_234_563, "parameters", "of 1,234,563 parameters .* the smallest is 1,234,564 parameters;"),
        (2_987_654_321, 10, "MACs", "of 10 MACs .* the smallest is 2,987,654,321 MACs;"),
        (1.23412, 1.2341, "ms", r"of 1.2341 ms .* the smallest is 1.235 ms;"),
        (0.25, 1e-9, "ms", r"of 1e-09 ms .* the smallest is 0.250 ms;"),
    ],
)
def test_the_smallest_reachable_cost_is_a_number_that_can_be_asked_for(
    smallest: float, budget: float, unit: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        cheapest([smallest + 1, smallest], budget, unit)
