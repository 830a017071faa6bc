"""ResNet-20 and ResNet-56 for CIFAR (He et al. 2016, section 4.2): `cifar_resnet20().module`.

Three stages of 16, 32 and 64 channels; shortcuts take every second pixel and pad channels with zeros (option A), so
they have no parameters. 269,722 and 853,018 parameters with a 10-class linear head.
"""

from torch import Tensor, nn
from torch.nn.functional import pad

from models.backbones.backbone import Backbone


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut around them; a stride of 2 doubles the channels."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.stride = stride
        self.num_new_channels = out_channels - in_channels

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps[:, :, :: self.stride, :: self.stride]
        if self.num_new_channels:
            half = self.num_new_channels // 2
            shortcut = pad(shortcut, (0, 0, 0, 0, half, self.num_new_channels - half))
        maps = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        return self.relu(maps + shortcut)


class CifarResNet(nn.Module):
    """[N, 3, H, W] -> [N, 64]; `layer2` and `layer3` divide the size by 2 each."""

    def __init__(self, *, blocks_per_stage: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.layer1 = _stage(16, 16, stride=1, num_blocks=blocks_per_stage)
        self.layer2 = _stage(16, 32, stride=2, num_blocks=blocks_per_stage)
        self.layer3 = _stage(32, 64, stride=2, num_blocks=blocks_per_stage)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, image: Tensor) -> Tensor:
        return self.pool(self.layer3(self.layer2(self.layer1(self.stem(image)))))


def _stage(in_channels: int, out_channels: int, *, stride: int, num_blocks: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=stride)
    rest = (BasicBlock(out_channels, out_channels, stride=1) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *rest)


def cifar_resnet20() -> Backbone:
    """20 layers."""
    return Backbone(module=CifarResNet(blocks_per_stage=3), num_features=64)


def cifar_resnet56() -> Backbone:
    """56 layers."""
    return Backbone(module=CifarResNet(blocks_per_stage=9), num_features=64)
