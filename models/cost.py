"""Parameters and multiply-accumulates (MACs) of a network, counted without computing anything.

cost = count_cost(student, image_size=224); cost.parameters, cost.macs
"""

import copy
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """macs: of convolutions and linear layers, for one image."""

    parameters: int
    macs: int


def without_weights(model: nn.Module) -> Any:
    """A copy that has shapes but no numbers (torch's meta device), in eval mode; cheap to narrow and to count."""
    shapes = {
        id(tensor): nn.Parameter(tensor.to("meta"), requires_grad=False)
        if isinstance(tensor, nn.Parameter)
        else tensor.to("meta")
        for tensor in (*model.parameters(), *model.buffers())
    }
    return copy.deepcopy(model, memo=shapes).eval()


def macs_of(module: nn.Module, output: Tensor) -> int:
    """Behind the output of one module: its numbers times the inputs that each of them sums over; 0 for modules other
    than convolutions and linear layers."""
    if isinstance(module, nn.Conv2d):
        return output.numel() * (module.in_channels // module.groups) * prod(module.kernel_size)
    return output.numel() * module.in_features if isinstance(module, nn.Linear) else 0


def count_cost(model: nn.Module, *, image_size: int) -> Cost:
    """For images [1, 3, image_size, image_size]."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += macs_of(module, output)

    shadow = without_weights(model)
    for module in shadow.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        shadow(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return Cost(parameters=sum(parameter.numel() for parameter in model.parameters()), macs=total)
