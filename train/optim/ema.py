"""An exponential moving average of the weights and statistics, kept as a second model.

ema = Ema(model, decay=0.9999); ema.update(step); measure(ema.model, ...)
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

ModelType = TypeVar("ModelType", bound=nn.Module)


class Ema(Generic[ModelType]):
    """average <- d * average + (1 - d) * weights, d = min(decay, (1 + t) / (10 + t)) so that the start is forgotten."""

    def __init__(self, model: ModelType, *, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        source, average = model.state_dict(), self.model.state_dict()
        floats = [name for name, tensor in source.items() if tensor.is_floating_point()]
        self._source, self._average = [source[name] for name in floats], [average[name] for name in floats]
        self._exact = [(average[name], source[name]) for name in source if name not in floats]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._source, 1 - decay)
        for average, source in self._exact:
            average.copy_(source)
