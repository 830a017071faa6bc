"""What every backbone gives: `Backbone(module, num_features, preprocessing)`.

The module maps images [N, 3, H, W] to pooled features [N, num_features]; its parts are reached by name for hooks.
"""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Preprocessing:
    """What is subtracted from and divided out of RGB pixels that were scaled to 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Backbone:
    """A network without classifier, the number of pooled features it gives and the input it expects."""

    module: nn.Module
    num_features: int
    preprocessing: Preprocessing = IMAGENET
