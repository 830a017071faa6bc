"""Where the classes of an ordered task stand on its scale, from which its mean absolute error is counted.

values_of_classes(["20", "21", "30"], True)  # (20.0, 21.0, 30.0): the numbers themselves
values_of_classes(["adult", "child", "old"], ["child", "adult", "old"])  # (1.0, 0.0, 2.0): steps of the given order
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import yaml

from data.index.labels import missing_names

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def values_of_classes(classes: Sequence[str], order: Literal[True] | Sequence[str]) -> tuple[float, ...]:
    """One value per class, in the order of `classes`.

    order: True where the names are all numbers, which are the values; else all class names from the lowest to the
    highest, whose places in it are the values. ValueError saying what to write where the order is not known.
    """
    numbers = _numbers(classes)
    if order is True:
        if numbers is None:
            raise ValueError(
                f"the classes are not all numbers, so their order must be given; write {as_yaml(classes)} with the "
                "names from the lowest to the highest"
            )
        return numbers
    _require_same(classes, order)
    if numbers is None:
        place = {name: float(number) for number, name in enumerate(order)}
        return tuple(place[name] for name in classes)
    value = dict(zip(classes, numbers, strict=True))
    ascending = sorted(value[name] for name in order)
    if [value[name] for name in order] not in (ascending, ascending[::-1]):
        raise ValueError("the class names are numbers, which have another order; write ordered: true")
    return numbers


def agreed_values(said: Iterable[Mapping[str, float]]) -> dict[str, float] | None:
    """Class name -> value of all models that say one; None where two of them say different ones."""
    agreed: dict[str, float] = {}
    for values in said:
        if any(agreed.setdefault(name, value) != value for name, value in values.items()):
            return None
    return agreed


def as_yaml(names: Sequence[str]) -> str:
    """The names as the config has them, in quotes where YAML would take them for something else."""
    listed = yaml.safe_dump(list(names), default_flow_style=True, width=math.inf, allow_unicode=True).strip()
    return f"ordered: {listed}"


def _numbers(classes: Sequence[str]) -> tuple[float, ...] | None:
    """None where a name is no number that a float holds."""
    if not all(_NUMBER.fullmatch(name) for name in classes):
        return None
    numbers = tuple(float(name) for name in classes)
    return numbers if all(map(math.isfinite, numbers)) else None


def _require_same(classes: Sequence[str], order: Sequence[str]) -> None:
    wrong = []
    if missing := missing_names(classes, order):
        wrong.append(f"lacks {missing}")
    if unknown := missing_names(order, classes):
        wrong.append(f"has {unknown} (no class of the data)")
    if twice := [name for name in dict.fromkeys(order) if order.count(name) > 1]:
        wrong.append(f"has {', '.join(map(repr, twice))} twice")
    if wrong:
        raise ValueError(
            f"the list {' and '.join(wrong)}; write {as_yaml(classes)} with the names from the lowest to the highest"
        )
