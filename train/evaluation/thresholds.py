"""From which probability on the answers of a task are given, so that as many of them are right as is wanted.

wanted = parse_wanted("precision:0.95"); chosen = choose_threshold(confidence, correct, wanted, num_samples=200)
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

KINDS = ("precision", "coverage")


@dataclass(frozen=True)
class Wanted:
    """kind precision: the least share of right answers among those that are given. kind coverage: the least share of
    samples that have an answer."""

    kind: Literal["precision", "coverage"]
    share: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.share:g}"


@dataclass(frozen=True)
class ChosenThreshold:
    """probability: the least that an answer must have, None where all of them can be given. coverage, precision: of
    the samples that it was chosen on. reached: False where no threshold gives what was wanted; then this is the one
    that comes nearest."""

    probability: float | None
    coverage: float
    precision: float
    reached: bool


def parse_wanted(text: str) -> Wanted:
    """Of `precision:0.95` or `coverage:0.8`. ValueError saying what it must be."""
    kind, _, number = text.partition(":")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if kind not in KINDS or not 0 < share <= 1:
        raise ValueError(f"{text!r} must be precision:SHARE or coverage:SHARE, with a share above 0 and at most 1")
    return Wanted("precision" if kind == "precision" else "coverage", share)


def choose_threshold(
    confidence: np.ndarray, correct: np.ndarray, wanted: Wanted, *, num_samples: int
) -> ChosenThreshold:
    """confidence float [N], correct bool [N]: of the answers, at least one. num_samples: with those without an answer.

    For a precision, the lowest threshold at which it holds; for a coverage, the highest. The threshold lies halfway
    between the lowest confidence that passes and the next one below, so that no rounding moves either across it.
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    right = np.cumsum(correct[order])
    ends = np.append(np.flatnonzero(np.diff(sure)), len(sure) - 1)  # answers of one confidence pass together
    number = ends + 1
    precision, coverage = right[ends] / number, number / num_samples
    # A share that is meant may lie a last bit above the quotient of two counts.
    holds = np.flatnonzero((precision if wanted.kind == "precision" else coverage) >= wanted.share - 1e-12)
    if len(holds):
        at = holds[-1] if wanted.kind == "precision" else holds[0]
    else:
        best = precision if wanted.kind == "precision" else coverage
        at = np.flatnonzero(best == best.max())[-1]
    is_last = at == len(ends) - 1
    probability = None if is_last else float((sure[ends[at]] + sure[ends[at] + 1]) / 2)
    return ChosenThreshold(probability, float(coverage[at]), float(precision[at]), reached=bool(len(holds)))


def given_answers(confidence: np.ndarray, correct: np.ndarray, probability: float | None) -> tuple[int, int]:
    """How many answers are given from this probability on, and how many of these are right."""
    given = confidence >= (0.0 if probability is None else probability)
    return int(given.sum()), int(correct[given].sum())
