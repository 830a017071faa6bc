"""Whether one kind of model is better than another on the same images: a paired difference with its interval.

result = paired_difference(ours, theirs)  # [seeds, images] each: was the answer right, or how far off was it
"""

from dataclasses import dataclass

import numpy as np

_DRAWS = 5000


@dataclass(frozen=True)
class PairedDifference:
    """Means over images and seeds: shares of right answers, or mean absolute errors. difference: ours - theirs;
    interval: 95 %, over images and seeds."""

    ours: float
    theirs: float
    difference: float
    interval: tuple[float, float]

    @property
    def is_clear(self) -> bool:
        """The interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


def paired_difference(ours: np.ndarray, theirs: np.ndarray, *, seed: int = 0) -> PairedDifference:
    """ours [A, N], theirs [B, N]: right or wrong (bool), or the absolute error (float, finite), per trained model (a
    seed each) and image.

    The interval is that of a bootstrap that draws images, and on each side models, with replacement (Efron 1979): a
    difference must hold for other images and for other seeds. With A = B, model i of one side is paired with model i of
    the other, as runs of one seed are.
    """
    if ours.shape[1] != theirs.shape[1] or not ours.shape[1]:
        raise ValueError(f"both sides need the same photos, at least one: {ours.shape[1]} and {theirs.shape[1]}")
    random = np.random.default_rng(seed)
    is_paired = len(ours) == len(theirs)
    differences = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        images = random.integers(0, ours.shape[1], ours.shape[1])
        mine = random.integers(0, len(ours), len(ours))
        others = mine if is_paired else random.integers(0, len(theirs), len(theirs))
        differences[draw] = ours[np.ix_(mine, images)].mean() - theirs[np.ix_(others, images)].mean()
    low, high = np.quantile(differences, [0.025, 0.975])
    mean_ours, mean_theirs = float(ours.mean()), float(theirs.mean())
    return PairedDifference(mean_ours, mean_theirs, mean_ours - mean_theirs, (float(low), float(high)))
