"""The 99,060-parameter food-11 student: a ResNet-like stem and four depthwise-pointwise layers.

`food11_student().module`; `layer1` to `layer3` have ResNet18's channel counts, so that features can be aligned.
"""

from torch import Tensor, nn

from models.backbones.backbone import Backbone


class Food11Student(nn.Module):
    """[N, 3, H, W] -> [N, 141]; the stem divides the size by 4, layers 2 to 4 by 2 each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.layer1 = depthwise_pointwise(64, 64, stride=1)
        self.layer2 = depthwise_pointwise(64, 128, stride=2)
        self.layer3 = depthwise_pointwise(128, 256, stride=2)
        self.layer4 = depthwise_pointwise(256, 141, stride=2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        maps = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(image)))))
        return self.pool(maps)


def depthwise_pointwise(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """Depthwise 3x3, norm, ReLU, pointwise 1x1, norm, ReLU; no biases."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def food11_student() -> Backbone:
    """Backbone of 97,498 parameters; 99,060 with an 11-class linear head."""
    return Backbone(module=Food11Student(), num_features=141)
