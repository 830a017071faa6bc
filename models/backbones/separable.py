"""Small food-11 networks of a spatial 3x3 convolution followed by a pointwise one.

`food11_low_rank().module`; the same layout serves the depthwise and the two-group variants.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.backbones.backbone import Backbone

NUM_POOLED_BLOCKS = 3


class SeparableNet(nn.Module):
    """[N, 3, H, W] -> [N, widths[-1]]; four max pools divide the size by 16.

    Each block is [grouped 3x3, norm, ReLU6, pointwise 1x1], with biases; groups=None means depthwise.
    """

    def __init__(self, widths: Sequence[int], *, groups: int | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]), nn.ReLU6(), nn.MaxPool2d(2)
        )
        self.blocks = nn.Sequential(
            *(
                _block(before, after, groups=groups or before, pool=number < NUM_POOLED_BLOCKS)
                for number, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        return self.pool(self.blocks(self.stem(image)))


def _block(in_channels: int, out_channels: int, *, groups: int, pool: bool) -> nn.Sequential:
    layers = [
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=groups),
        nn.BatchNorm2d(in_channels),
        nn.ReLU6(),
        nn.Conv2d(in_channels, out_channels, 1),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)


def food11_low_rank() -> Backbone:
    """256,779 parameters with an 11-class linear head."""
    return Backbone(module=SeparableNet((16, 32, 64, 128, 256, 256, 256, 256)), num_features=256)


def food11_depthwise() -> Backbone:
    """224,011 parameters with an 11-class linear head: deeper and narrower than the low-rank network."""
    return Backbone(module=SeparableNet((16, 32, 64, 128, 128, 128, 256, 256, 256)), num_features=256)


def food11_grouped() -> Backbone:
    """236,571 parameters with an 11-class linear head: two groups in the 3x3 convolutions."""
    return Backbone(module=SeparableNet((16, 32, 64, 128, 128, 256), groups=2), num_features=256)
