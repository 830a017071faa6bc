"""The CIFAR-10 distillation pair for 32x32 images: convolutions in `features`, then one hidden linear layer.

`cifar10_student().module.features` gives the map that feature losses compare.
"""

from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.errors import ModelError


class CifarNet(nn.Module):
    """[N, 3, 32, 32] -> [N, hidden]; `features` gives the last map, [N, C, 8, 8]."""

    def __init__(self, features: nn.Sequential, *, num_flat: int, num_hidden: int) -> None:
        super().__init__()
        self.features = features
        self.hidden = nn.Sequential(nn.Linear(num_flat, num_hidden), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-2:] != (32, 32):
            height, width = image.shape[-2:]
            raise ModelError(
                f"this backbone takes 32x32 images, not {height}x{width}; set image_size and eval_size to 32"
            )
        return self.hidden(self.features(image).flatten(1))


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]


def cifar10_teacher() -> Backbone:
    """1,186,986 parameters with a 10-class linear head."""
    features = nn.Sequential(
        *_conv(3, 128), *_conv(128, 64), nn.MaxPool2d(2), *_conv(64, 64), *_conv(64, 32), nn.MaxPool2d(2)
    )
    return Backbone(module=CifarNet(features, num_flat=2048, num_hidden=512), num_features=512)


def cifar10_student() -> Backbone:
    """267,738 parameters with a 10-class linear head."""
    features = nn.Sequential(*_conv(3, 16), nn.MaxPool2d(2), *_conv(16, 16), nn.MaxPool2d(2))
    return Backbone(module=CifarNet(features, num_flat=1024, num_hidden=256), num_features=256)
