"""How much is to go: a share of the channels, or budgets that all must hold, and the mildest pruning within them.

goal = Goal(budgets={"macs": 60e6, "bytes": 1e6}, image_size=128)
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from models.cost import count_cost
from models.errors import ModelError
from models.formats.int8_size import predicted_int8_bytes
from models.formats.latency import measure_latency
from models.student import Student

# Kind of budget -> its unit; those that are only counted come first, so that no network is timed in vain.
UNITS = {"parameters": "parameters", "macs": "MACs", "bytes": "bytes in int8", "latency": "ms"}


@dataclass(frozen=True)
class Goal:
    """ratio: share of the channels to prune. budgets: kind, one of UNITS -> at most: parameters, multiply-accumulates
    of one image, bytes of the int8 file as predicted, milliseconds for one image on `threads` threads. class_names:
    task -> classes, which the int8 file lists."""

    ratio: float | None = None
    budgets: Mapping[str, float] = field(default_factory=dict)
    image_size: int = 224
    threads: int = 1
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def cost(self, kind: str, student: Student) -> float:
        """Of a network, in the unit of the kind."""
        if kind == "parameters":
            return student.num_parameters
        if kind == "macs":
            return count_cost(student, image_size=self.image_size).macs
        if kind == "bytes":
            return predicted_int8_bytes(student, self.class_names, image_size=self.image_size)
        return measure_latency(student, image_size=self.image_size, threads=self.threads).milliseconds

    def record(self) -> dict[str, object]:
        """As prune.json has it: one goal with its kind and value, or several budgets."""
        if self.ratio is not None:
            return {"kind": "ratio", "value": self.ratio}
        if len(self.budgets) == 1:
            [(kind, value)] = self.budgets.items()
            return {"kind": kind, "value": value}
        return {"kind": "together", "budgets": dict(self.budgets)}


def require_larger(costs: Mapping[str, float], budgets: Mapping[str, float]) -> None:
    """ModelError where the network already fits all budgets. costs: its own, by kind."""
    if all(costs[kind] <= budget for kind, budget in budgets.items()):
        has = joined(attainable(costs[kind], UNITS[kind]) for kind in budgets)
        noun = "budget is" if len(budgets) == 1 else "budgets are"
        raise ModelError(f"the model already fits: it has {has}, the {noun} {joined(map(exact, budgets.values()))}")


def mildest_rank(
    cost_at: Callable[[str, int], float], *, budgets: Mapping[str, float], ranks: Sequence[int], way_out: str
) -> int:
    """The first of the ascending `ranks` at which every cost is within its budget; costs fall as ranks rise.

    cost_at: (kind, rank) -> cost. way_out: what makes smaller costs reachable. Raises ModelError with it, every budget
    that even the last rank is above, and the smallest that can be had of each.
    """
    smallest = {kind: cost_at(kind, ranks[-1]) for kind in budgets}
    if missed := [kind for kind in budgets if smallest[kind] > budgets[kind]]:
        asked = joined(f"{exact(budgets[kind])} {UNITS[kind]}" for kind in missed)
        least = joined(attainable(smallest[kind], UNITS[kind]) for kind in missed)
        what, verb = ("a budget", "is") if len(missed) == 1 else ("budgets", "are")
        raise ModelError(
            f"{what} of {asked} cannot be reached: with these limits the smallest {verb} {least}; {way_out}"
        )
    low, high = 0, len(ranks) - 1  # the last is known to be good
    while low < high:
        middle = (low + high) // 2
        if all(cost_at(kind, ranks[middle]) <= budget for kind, budget in budgets.items()):
            high = middle
        else:
            low = middle + 1
    return ranks[high]


def attainable(cost: float, unit: str) -> str:
    """A cost with its unit, in a number that can be asked for: counts in full, milliseconds rounded up."""
    return f"{math.ceil(1000 * cost) / 1000:,.3f} ms" if unit == "ms" else f"{math.ceil(cost):,} {unit}"


def exact(budget: float) -> str:
    """All digits, as they were asked for."""
    return f"{budget:,.15g}"


def joined(parts: Iterable[str]) -> str:
    """As a sentence lists them: a, b and c."""
    words = list(parts)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
