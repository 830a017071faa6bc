"""Whether a model's confidence can be believed: reliability bins and expected calibration error.

bins = reliability(confidence, correct); print(calibration_error(bins))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence from low to high; confidence and accuracy are their means."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[Bin]:
    """NUM_BINS bins of equal width over 0..1; empty ones are left out. Both arrays [N]."""
    place = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        inside = place == number
        if inside.any():
            means = float(confidence[inside].mean()), float(correct[inside].mean())
            bins.append(Bin(number / NUM_BINS, (number + 1) / NUM_BINS, int(inside.sum()), *means))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Naeini et al. 2015): mean |accuracy - confidence|, weighted by answers."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total if total else float("nan")
