"""Units: what hangs together by links or names becomes one, whatever the way."""

import numpy as np
import pytest

from data.shards.groups import join_units, nearest_sums, pick_units


def plain_units(num_samples: int, links: np.ndarray) -> list[int]:
    """The same by walking from each sample to all that it is linked to."""
    neighbours: list[list[int]] = [[] for _ in range(num_samples)]
    for one, other in links.tolist():
        neighbours[one].append(other)
        neighbours[other].append(one)
    unit = [-1] * num_samples
    for start in range(num_samples):
        waiting = [start] if unit[start] < 0 else []
        while waiting:
            place = waiting.pop()
            if unit[place] < 0:
                unit[place] = start
                waiting += neighbours[place]
    return unit


def test_without_links_and_names_each_sample_stands_alone() -> None:
    assert join_units(4).tolist() == [0, 1, 2, 3]
    assert join_units(0).tolist() == []
    assert join_units(3, np.array([[1, 1]])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_links_join_as_a_walk_over_them_does(seed: int) -> None:
    chance = np.random.default_rng(seed)
    links = chance.integers(0, 300, (40 * (seed + 1), 2))
    assert join_units(300, links).tolist() == plain_units(300, links)


def test_a_long_chain_is_one_unit_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(50_000)
    assert not join_units(50_000, np.stack([order[1:], order[:-1]], axis=1)).any()


def test_equal_names_join_and_no_name_joins_nothing() -> None:
    people = ["ann", "", "bob", "ann", "", "bob"]
    scenes = ["", "beach", "", "beach", "", ""]
    assert join_units(6, None, people).tolist() == [0, 1, 2, 0, 4, 2]
    assert join_units(6, None, people, scenes).tolist() == [0, 0, 2, 0, 4, 2], "by a person, then by a scene"
    assert join_units(6, np.array([[4, 2]]), people, scenes).tolist() == [0, 0, 2, 0, 2, 2]


def test_links_to_samples_that_are_not_there_are_no_links() -> None:
    for link in ([0, 5], [-1, 0]):
        with pytest.raises(AssertionError, match="between sample numbers"):
            join_units(5, np.array([link]))


def test_sums_of_units_are_those_of_their_subsets() -> None:
    sizes = np.array([31, 19, 35, 15, 1, 1, 1])
    subsets = {sum(size for bit, size in enumerate(sizes.tolist()) if number >> bit & 1) for number in range(128)}
    for total in range(1, int(sizes.sum())):
        below, above = nearest_sums(sizes, total + 0.5, most=int(sizes.sum()) - 1)
        assert below == max(subset for subset in subsets if subset <= total)
        assert above == min((subset for subset in subsets if total < subset < sizes.sum()), default=None)
    for total in subsets:
        assert sizes[pick_units(sizes, total)].sum() == total
