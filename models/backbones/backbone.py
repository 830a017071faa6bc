"""What every backbone gives: `Backbone(module, num_features, preprocessing)`.

The module maps images [N, 3, H, W] to pooled features [N, num_features]; its parts are reached by name for hooks.
"""

from dataclasses import dataclass

from torch import nn

from models.preprocessing import IMAGENET, Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A network without classifier, the number of pooled features it gives and the input it expects."""

    module: nn.Module
    num_features: int
    preprocessing: Preprocessing = IMAGENET
