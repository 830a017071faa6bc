"""A network as it is used: branches that only training needs (RepVGG, MobileOne, FastViT, ...) become one layer.

network = fused(model)
"""

from copy import deepcopy
from typing import TypeVar

from timm.utils.model import reparameterize_model
from torch import nn

# The methods by which timm's networks offer it.
_WAYS = ("fuse", "reparameterize", "switch_to_deploy")

Network = TypeVar("Network", bound=nn.Module)


def is_fusible(model: nn.Module) -> bool:
    return any(hasattr(module, way) for module in model.modules() for way in _WAYS)


def fused(model: Network) -> Network:
    """A copy in eval mode that computes the same up to float sums; weights are joined in float64. The model itself
    where no layer can be fused."""
    if not is_fusible(model):
        return model
    network = deepcopy(model).eval().double()
    reparameterize_model(network, inplace=True)
    return network.float()
