"""From the ends of ranks to the job's exit code, and when another start is worth it."""

import signal

import pytest

from launch.coordinator.outcome import RankEnd, RestartLimit, outcome_of

KILLED, ENDED_BY_TERM = -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(
    ("codes", "stop_requested", "expected"),
    [
        ([0, 0], False, 0),
        ([75, 75], True, 75),
        ([75, 75], False, 75),
        ([0, 75], True, 75),
        ([77, 77, 76], False, 76),
        ([77, 65], False, 65),
        ([76, 2], False, 76),
        ([77, KILLED], False, 77),
        ([0, 77], False, 77),
        ([1, 77], False, 1),
        ([ENDED_BY_TERM, 77], True, 75),
        ([ENDED_BY_TERM, 77], False, 77),
        ([KILLED, 77], True, 77),
        ([75, 77], True, 75),
        ([76, ENDED_BY_TERM], True, 76),
    ],
)
def test_one_code_for_all_ranks(codes: list[int], stop_requested: bool, expected: int) -> None:
    ends = [RankEnd(rank, "a", code) for rank, code in enumerate(codes)]
    assert outcome_of(ends, stop_requested=stop_requested).code == expected


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (RankEnd(3, "b", KILLED), "rank 3 on b was killed by SIGKILL"),
        (RankEnd(3, "b", 65), "rank 3 on b ended with 65: the data cannot be used"),
        (RankEnd(3, "b", 1), "rank 3 on b ended with 1: an error that its log tells"),
        (RankEnd(3, "b", 77, "was lost with its worker"), "rank 3 on b was lost with its worker"),
    ],
)
def test_how_a_rank_ended_is_described_in_words(end: RankEnd, words: str) -> None:
    assert str(end) == words


def restarts(limit: RestartLimit, checkpoints: list[tuple[str, str]]) -> list[bool]:
    """Whether each failure is followed by a start; (newest checkpoint before, after)."""
    allowed = []
    for before, after in checkpoints:
        limit.begin(before)
        allowed.append(limit.may_restart(after)[0])
    return allowed


def test_failures_that_bring_something_are_followed_by_a_start_until_the_number_is_used_up() -> None:
    checkpoints = [(f"step-{number}", f"step-{number + 1}") for number in range(4)]
    assert restarts(RestartLimit(3), checkpoints) == [True, True, True, False]


def test_three_in_a_row_that_bring_nothing_are_a_crash_loop() -> None:
    assert restarts(RestartLimit(50), [("", ""), ("", ""), ("", "")]) == [True, True, False]
    progress = [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("b", "b")]
    assert restarts(RestartLimit(50), progress) == [True, True, True, True, True, False]
