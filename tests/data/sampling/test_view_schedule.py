"""Which view a step sees is a pure function of epoch and step."""

import pytest

from data.sampling.view_schedule import ViewSchedule


def test_without_a_number_every_epoch_has_its_own() -> None:
    assert [ViewSchedule().at(epoch, 3) for epoch in (0, 1, 17)] == [(0, True), (1, True), (17, True)]


def test_views_come_in_turn() -> None:
    assert [ViewSchedule(3).at(epoch, 0) for epoch in range(5)] == [
        (0, False),
        (1, False),
        (2, False),
        (0, False),
        (1, False),
    ]


def test_the_share_of_fresh_views_is_drawn_by_step_and_their_number_is_no_cached_one() -> None:
    schedule = ViewSchedule(3, fresh_share=0.3, seed=1)
    drawn = [schedule.at(epoch, step) for epoch in range(20) for step in range(100)]
    assert sum(is_fresh for _, is_fresh in drawn) / len(drawn) == pytest.approx(0.3, abs=0.03)
    assert all((view >= 3) == is_fresh for view, is_fresh in drawn)
    assert drawn == [schedule.at(epoch, step) for epoch in range(20) for step in range(100)]
    other = ViewSchedule(3, fresh_share=0.3, seed=2)
    assert drawn != [other.at(epoch, step) for epoch in range(20) for step in range(100)]
