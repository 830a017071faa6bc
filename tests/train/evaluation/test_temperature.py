"""The temperature of a task is the one with the least negative log-likelihood, exactly and every time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation import temperature
from train.evaluation.temperature import HIGHEST, LOWEST, answers_at, fit_temperature


def random_answers(seed: int, *, count: int = 300, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, num_classes, count)
    logits = draw.normal(size=(count, num_classes))
    logits[np.arange(count), label] += 1.5
    return (3 * logits).astype(np.float32), label


@pytest.mark.parametrize("logit", [0.2, 1.0, 6.0])
def test_two_classes_with_three_of_four_right_have_the_temperature_of_the_formula(logit: float) -> None:
    """p = 1 / (1 + exp(-logit / T)) is to be 3/4, so T = logit / ln 3."""
    logits = np.array([[logit, 0.0], [logit, 0.0], [0.0, logit], [0.0, logit]])
    fitted = fit_temperature(logits, np.array([0, 0, 1, 0]))
    assert fitted.temperature == pytest.approx(logit / math.log(3), rel=1e-9)
    assert fitted.limit == ""


@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_no_neighbour_is_likelier_and_the_scale_of_the_logits_is_found(seed: int, scale: float) -> None:
    logits, label = random_answers(seed)
    fitted = fit_temperature(logits, label)
    best = answers_at(logits, label, fitted.temperature).loss
    for near in (1.001, 1.5):
        assert best < answers_at(logits, label, fitted.temperature * near).loss
        assert best < answers_at(logits, label, fitted.temperature / near).loss
    scaled = fit_temperature(logits.astype(np.float64) * scale, label)
    assert scaled.temperature == pytest.approx(fitted.temperature * scale, rel=1e-9)


def test_log_probabilities_and_shifted_logits_give_the_same() -> None:
    logits, label = random_answers(1)
    wide = logits.astype(np.float64)
    shifted = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    assert fit_temperature(shifted, label).temperature == pytest.approx(fit_temperature(wide, label).temperature)
    assert fit_temperature(wide, label) == fit_temperature(wide, label)


def test_a_few_rows_at_a_time_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, label = random_answers(2)
    whole, answers = fit_temperature(logits, label), answers_at(logits, label, 2.0)
    monkeypatch.setattr(temperature, "_ROWS", 7)
    assert fit_temperature(logits, label).temperature == pytest.approx(whole.temperature, rel=1e-12)
    parts = answers_at(logits, label, 2.0)
    np.testing.assert_array_equal(parts.confidence, answers.confidence)
    np.testing.assert_array_equal(parts.correct, answers.correct)
    assert parts.loss == pytest.approx(answers.loss, rel=1e-12)


def test_an_optimum_out_of_reach_is_told_from_one_within() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    right = np.array([0, 1, 0])
    fitted = fit_temperature(logits, right)
    assert (fitted.temperature, fitted.limit) == (LOWEST, "lowest")
    wrong = fit_temperature(logits, 1 - right)
    assert (wrong.temperature, wrong.limit) == (HIGHEST, "highest")
    for flat in (np.full((3, 2), 1.5), np.zeros((3, 1))):
        same = fit_temperature(flat, np.zeros(3, int))
        assert (same.temperature, same.limit) == (1.0, "flat")


def test_logits_of_hundreds_neither_overflow_nor_end_at_a_limit() -> None:
    logits, label = random_answers(3)
    huge = fit_temperature(logits * 5, label)
    assert huge.limit == ""
    assert np.isfinite(answers_at(logits * 300, label, 1.0).loss)


def test_answers_are_the_softmax_of_the_divided_logits() -> None:
    answers = answers_at(np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([0, 2]), 2.0)
    e, root = math.e, math.sqrt(math.e)
    assert answers.confidence.tolist() == pytest.approx([e / (e + 2), root / (root + 2)])
    assert answers.correct.tolist() == [True, False]
    assert answers.loss == pytest.approx((math.log((e + 2) / e) + math.log(root + 2)) / 2)
