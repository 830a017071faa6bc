"""A network as it is deployed: branches that only training needs become one layer, outputs have places and not keys.

network = TaskOutputs(fused(model))
"""

from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

# The methods by which timm's networks offer it.
_WAYS = ("fuse", "reparameterize", "switch_to_deploy")

Network = TypeVar("Network", bound=nn.Module)


def is_fusible(model: nn.Module) -> bool:
    return any(hasattr(module, way) for module in model.modules() for way in _WAYS)


def fused(model: Network) -> Network:
    """A copy in eval mode without the branches of RepVGG, MobileOne, FastViT and the like: it computes the same up to
    float sums, weights are joined in float64. The model itself where no layer can be fused."""
    if not is_fusible(model):
        return model
    from timm.utils.model import reparameterize_model  # the network is timm's, so timm is loaded

    network = deepcopy(model).eval().double()
    reparameterize_model(network, inplace=True)
    return network.float()


class TaskOutputs(nn.Module):
    """The logits of a student as a tuple in task order: ONNX and ExecuTorch have no dictionaries."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(image).values())
