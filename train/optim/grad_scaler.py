"""Dynamic loss scaling for fp16, on the device without a host sync.

scale = LossScale(device); (loss * scale.value).backward(); scale.unscale(flats); scale.adapt(skipped)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_START = 65536.0
_GROWTH_STEPS = 2000
_SMALLEST, _LARGEST = 1.0, 2.0**24


class LossScale:
    """Halves after a skipped update, doubles after 2000 good ones in a row (Micikevicius et al. 2018)."""

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), _START, device=device)
        self.good_steps = torch.zeros((), device=device)

    def unscale(self, flats: Sequence[Tensor]) -> None:
        torch._foreach_mul_(list(flats), 1 / self.value)

    @property
    def can_fall(self) -> Tensor:
        """1.0 where it is not at its smallest: an update that is skipped then is part of the search for it."""
        return (self.value > _SMALLEST).float()

    def adapt(self, skipped: Tensor) -> None:
        """skipped: 1.0 where the update was left out, else 0.0."""
        self.good_steps.copy_(torch.where(skipped > 0, 0.0, self.good_steps + 1))
        grow = self.good_steps >= _GROWTH_STEPS
        factor = torch.where(skipped > 0, 0.5, torch.where(grow, 2.0, 1.0))
        self.value.mul_(factor).clamp_(min=_SMALLEST, max=_LARGEST)
        self.good_steps.mul_((~grow).float())

    def state_dict(self) -> dict[str, Tensor]:
        return {"value": self.value, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.value.copy_(state["value"])
        self.good_steps.copy_(state["good_steps"])
