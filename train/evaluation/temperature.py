"""One temperature for the logits of a task, fitted on labelled photos.

    fitted = fit_temperature(logits, label); probabilities = softmax(logits / fitted.temperature)

Guo et al. 2017, "On Calibration of Modern Neural Networks": the temperature with the least negative log-likelihood. No
answer changes by it, only how sure each one is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0
_MOST_STEPS = 100  # bisection alone needs 60 for the last bit
_CLOSE = 1e-12  # relative
_ROWS = 4096

Limit = Literal["", "lowest", "highest", "flat"]


@dataclass(frozen=True)
class FittedTemperature:
    """limit: empty where the likelihood has its maximum at the temperature; "lowest" or "highest" where it only rises
    towards that end of LOWEST..HIGHEST, and "flat" where no temperature changes anything, which is then 1."""

    temperature: float
    limit: Limit


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> FittedTemperature:
    """logits: finite [N, C], or log-probabilities, whose differences are the same; label: int [N]; N of at least 1.

    With b = 1 / T the mean negative log-likelihood is convex, its slope is mean(sum_c p_c z_c - z_y), and the slope of
    that is the mean variance of z under p. The zero of the slope is found in float64 by Newton's steps, and by halving
    where one would leave the interval that is known to hold it.
    """
    if not (logits != logits[:, :1]).any():
        return FittedTemperature(1.0, "flat")
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _slopes(logits, label, high)[0] <= 0:
        return FittedTemperature(LOWEST, "lowest")
    if _slopes(logits, label, low)[0] >= 0:
        return FittedTemperature(HIGHEST, "highest")
    at = 1.0
    for _ in range(_MOST_STEPS):
        slope, curvature = _slopes(logits, label, at)
        if slope > 0:
            high = at
        else:
            low = at
        step = at - slope / curvature if curvature > 0 else low
        new = step if low < step < high else (low + high) / 2
        if slope == 0 or abs(new - at) <= _CLOSE * at:
            break
        at = new
    return FittedTemperature(1 / at, "")


def _slopes(logits: np.ndarray, label: np.ndarray, b: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood at b = 1 / T."""
    first = second = 0.0
    for z, true in _parts(logits, label):
        share = np.exp(_log_softmax(z, b))
        z -= z[np.arange(len(true)), true][:, None]
        mean = (share * z).sum(axis=1)
        first += float(mean.sum())
        second += float((share * (z - mean[:, None]) ** 2).sum())
    return first / len(label), second / len(label)


@dataclass(frozen=True)
class CalibratedAnswers:
    """Of N labelled samples at one temperature. confidence: float64 [N], the probability of the answer. correct: bool
    [N]. loss: mean negative log-likelihood."""

    confidence: np.ndarray
    correct: np.ndarray
    loss: float


def answers_at(logits: np.ndarray, label: np.ndarray, temperature: float) -> CalibratedAnswers:
    """logits finite [N, C], label int [N], as for `fit_temperature`."""
    confidence, correct, loss = [np.empty(0)], [np.empty(0, bool)], 0.0
    for z, true in _parts(logits, label):
        log_probabilities = _log_softmax(z, 1 / temperature)
        confidence.append(np.exp(log_probabilities.max(axis=1)))
        correct.append(z.argmax(axis=1) == true)
        loss -= float(log_probabilities[np.arange(len(true)), true].sum())
    return CalibratedAnswers(np.concatenate(confidence), np.concatenate(correct), loss / max(1, len(label)))


def _parts(logits: np.ndarray, label: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """In float64, a few rows at a time: all of 50,000 photos and 1,000 classes would be gigabytes."""
    for start in range(0, len(label), _ROWS):
        yield logits[start : start + _ROWS].astype(np.float64), label[start : start + _ROWS]


def _log_softmax(z: np.ndarray, b: float) -> np.ndarray:
    scaled = b * (z - z.max(axis=1, keepdims=True))
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))
