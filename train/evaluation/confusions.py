"""The cells of a confusion matrix that say something: all of them where the classes are few, else the most frequent.

    worst_confusions(matrix, 100) -> [(true, predicted, count), ...]

A matrix of 1,500 classes has 2.25 million cells, nearly all 0; what is written of it is bounded by its images.
"""

import numpy as np

MOST_CLASSES = 100  # whose whole matrix is written

Cell = tuple[int, int, int]  # true class, predicted class, count


def all_cells(matrix: np.ndarray) -> list[Cell]:
    """matrix: [C, C], rows are the true classes. Row by row."""
    return [(true, predicted, int(matrix[true, predicted])) for true, predicted in np.ndindex(matrix.shape)]


def filled_cells(matrix: np.ndarray) -> list[Cell]:
    """Those that are not 0, row by row."""
    return [(true, predicted, int(matrix[true, predicted])) for true, predicted in np.argwhere(matrix).tolist()]


def worst_confusions(matrix: np.ndarray, most: int) -> list[Cell]:
    """At most `most` cells off the diagonal, from frequent to rare; equally frequent ones row by row."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    flat = wrong.ravel()
    least = np.partition(flat, -most)[-most] if len(flat) > most else 0
    places = np.flatnonzero(flat >= max(least, 1))
    worst = places[np.argsort(-flat[places], kind="stable")[:most]]
    return [(*divmod(place, len(matrix)), int(flat[place])) for place in worst.tolist()]
