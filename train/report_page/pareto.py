"""The models that no other beats on both counts: `front = pareto_front([(bytes, accuracy), ...])`."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, gain) that none beats with at most the cost and at least the gain (and one of them
    better), by rising cost. Of equal points the first."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1], place)):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front
