"""One number that was measured, with what was promised of it.

Figure("loader_vs_stock", 3.2, target=2.5, at_least=True, interval=(3.1, 3.3))
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`target` is a bound: an upper one, or with `at_least` a lower one; without a target the number is for the record.
    `interval` holds 95 % of the bootstrapped medians where the value is a median of pairs."""

    name: str
    value: float
    target: float | None = None
    at_least: bool = False
    interval: tuple[float, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where nothing was promised."""
        if self.target is None:
            return None
        if not math.isfinite(self.value):
            return False
        return self.value >= self.target if self.at_least else self.value <= self.target
