"""The threshold of a task withholds no more than is needed, and says where what is wanted cannot be had."""

import numpy as np
import pytest

from train.evaluation.thresholds import Wanted, choose_threshold, given_answers, parse_wanted

# From sure to unsure: right, right, wrong, right, right, wrong; two of the same confidence.
CONFIDENCE = np.array([0.5, 0.9, 0.6, 0.8, 0.7, 0.6])
CORRECT = np.array([False, True, True, True, False, True])


def chosen(text: str, *, num_samples: int = 6) -> tuple[float | None, float, float, bool]:
    found = choose_threshold(CONFIDENCE, CORRECT, parse_wanted(text), num_samples=num_samples)
    return found.probability, found.coverage, found.precision, found.reached


def test_a_precision_has_the_lowest_threshold_at_which_it_holds() -> None:
    """Of the first 1, 2, 3, 5, 6 answers 1, 2, 2, 4, 4 are right."""
    assert chosen("precision:1") == (pytest.approx(0.75), 2 / 6, 1.0, True)
    assert chosen("precision:0.8") == (pytest.approx(0.55), 5 / 6, 4 / 5, True)  # the first three have but 2/3
    assert chosen("precision:0.7") == (pytest.approx(0.55), 5 / 6, 4 / 5, True)
    assert chosen("precision:0.66") == (None, 1.0, 4 / 6, True)


def test_a_coverage_has_the_highest_threshold_and_equal_confidences_pass_together() -> None:
    assert chosen("coverage:0.3") == (pytest.approx(0.75), 2 / 6, 1.0, True)
    assert chosen("coverage:0.5") == (pytest.approx(0.65), 3 / 6, 2 / 3, True)
    assert chosen("coverage:0.6") == (pytest.approx(0.55), 5 / 6, 4 / 5, True)
    assert chosen("coverage:1") == (None, 1.0, 4 / 6, True)


def test_what_cannot_be_had_comes_with_the_best_that_can() -> None:
    never = choose_threshold(CONFIDENCE, np.array([True, False, True, True, False, True]), Wanted("precision", 0.9),
                             num_samples=6)  # fmt: skip
    assert (never.reached, never.probability, never.precision) == (False, None, 4 / 6)
    assert chosen("coverage:0.9", num_samples=12) == (None, 6 / 12, 4 / 6, False)  # six have no answer


def test_the_answers_from_the_threshold_on_are_those_that_were_counted() -> None:
    for text in ("precision:1", "precision:0.8", "coverage:0.5", "coverage:1"):
        found = choose_threshold(CONFIDENCE, CORRECT, parse_wanted(text), num_samples=6)
        number, right = given_answers(CONFIDENCE, CORRECT, found.probability)
        assert (number / 6, right / number) == (found.coverage, found.precision)


def test_a_share_that_is_a_quotient_is_reached_though_it_is_written_in_decimals() -> None:
    confidence, correct = np.linspace(0.9, 0.1, 30), np.arange(30) != 3
    assert choose_threshold(confidence, correct, Wanted("precision", 29 / 30), num_samples=30).coverage == 1


@pytest.mark.parametrize(
    "text", ["0.9", "precision", "precision:", "precision:95", "coverage:0", "recall:0.9", "precision:nan"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be precision:SHARE or coverage:SHARE"):
        parse_wanted(text)


def test_the_words_come_back() -> None:
    assert str(parse_wanted("precision:0.950")) == "precision:0.95"
