"""How many workers an attempt needs, which it takes, and when it is clear that there will never be enough."""

from typing import Any, cast

import pytest

from launch.coordinator.listener import Peer
from launch.coordinator.membership import Quorum


def peers(*num_ranks: int) -> dict[int, Peer]:
    """Workers 0, 1, ... with so many ranks each; 0 for one that is not here."""
    channel = cast(Any, None)
    return {
        index: Peer(channel, index, len(num_ranks), "a", ranks) for index, ranks in enumerate(num_ranks) if ranks > 0
    }


@pytest.mark.parametrize(
    ("bounds", "ranks", "chosen"),
    [
        (None, (2, 0, 2), [0, 2]),
        ((1, 3), (2, 2), [0]),
        ((1, 3), (2, 2, 1), [0, 2]),
        ((1, 4), (2, 2, 1), [0, 1]),
        ((1, 2), (3,), []),
    ],
)
def test_the_first_workers_that_fit_are_taken(
    bounds: tuple[int, int] | None, ranks: tuple[int, ...], chosen: list[int]
) -> None:
    fitting = Quorum(len(ranks), bounds).fitting(peers(*ranks))
    assert [peer.index for peer in fitting] == chosen


@pytest.mark.parametrize(
    ("bounds", "ranks", "at_once", "settled"),
    [
        (None, (1, 0), False, False),
        (None, (1, 1), True, True),
        ((1, 2), (1, 0), False, True),
        ((1, 2), (1, 1), True, True),
        ((2, 3), (1, 0, 0), False, False),
        ((1, 2), (1, 1, 0), True, True),  # no more than two take part
        ((1, 3), (2, 2, 0), False, True),  # a third worker with one rank would fit
        ((1, 2), (0, 1, 1), False, False),  # never without worker 0
        ((4, 8), (1, 1), False, False),
    ],
)
def test_when_there_are_enough(
    bounds: tuple[int, int] | None, ranks: tuple[int, ...], at_once: bool, settled: bool
) -> None:
    quorum = Quorum(len(ranks), bounds)
    assert quorum.enough(peers(*ranks), settled=False) is at_once
    assert quorum.enough(peers(*ranks), settled=True) is settled


def test_a_shortage_is_reported_only_once_nobody_else_can_come() -> None:
    assert Quorum(3, (4, 8)).shortage(peers(1, 1, 0)) == ""
    assert Quorum(2, (2, 8)).shortage(peers(1, 1)) == ""
    assert Quorum(2, (4, 8)).shortage(peers(1, 1)) == (
        "elastic.min_ranks is 4, but the workers bring 1, 1 ranks, of which 2 fit into elastic.max_ranks 8, and no "
        "more workers will come: lower min_ranks, or start others or larger ones"
    )
    assert "bring 2, 2 ranks, of which 2 fit into elastic.max_ranks 3" in Quorum(2, (3, 3)).shortage(peers(2, 2))


def test_missing_workers_are_named_and_a_long_list_is_cut() -> None:
    assert Quorum(4, None).missing(peers(0, 1, 0, 1)) == "0, 2"
    assert Quorum(64, None).missing({}).endswith("18, 19 ...")
