"""How large the gammas are, in words and numbers: whether a network was trained sparse shows at one glance.

text = describe(np.abs(gammas)); is_sparse(np.abs(gammas))
"""

from collections.abc import Sequence

import numpy as np

NEAR_ZERO = 0.01
EDGES = (0.0, 0.001, NEAR_ZERO, 0.1, 0.3, 1.0, float("inf"))
_SPARSE_SHARE = 0.01


def counts(magnitudes: np.ndarray, *, edges: Sequence[float] = EDGES) -> list[int]:
    """Magnitudes in [edges[i], edges[i + 1])."""
    return [int(count) for count in np.histogram(magnitudes, bins=np.array(edges))[0]]


def is_sparse(magnitudes: np.ndarray) -> bool:
    """Whether at least one in a hundred is near zero, as training with a sparsity penalty brings about."""
    return float((magnitudes < NEAR_ZERO).mean()) >= _SPARSE_SHARE


def describe(magnitudes: np.ndarray) -> str:
    """One line per range that is not empty."""
    lines = []
    for low, high, count in zip(EDGES[:-1], EDGES[1:], counts(magnitudes), strict=True):
        if count:
            bar = "#" * max(1, round(40 * count / len(magnitudes)))
            lines.append(f"  |gamma| {low:>5g} to {high:<5g} {count:>7,}  {bar}")
    return "\n".join(lines)
