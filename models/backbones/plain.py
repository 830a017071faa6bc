"""Plain convolutional food-11 networks for 256x256 images: six [conv 3x3, norm, ReLU, max pool] blocks, then flatten.

`food11_big().module` is the network to compress, `food11_standard().module` the standard convolutions at about 1 MB.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.errors import ModelError


class PlainNet(nn.Module):
    """[N, 3, 256, 256] -> [N, widths[-1] * 16]: the last 4x4 map is flattened, so the image size is fixed."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
                for before, after in zip([3, *widths], widths, strict=False)
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-2:] != (256, 256):
            height, width = image.shape[-2:]
            raise ModelError(
                f"this backbone takes 256x256 images, not {height}x{width}; set image_size and eval_size to 256"
            )
        maps: Tensor = self.blocks(image)
        return maps.flatten(1)


def food11_big() -> Backbone:
    """1,615,627 parameters with an 11-class linear head."""
    return Backbone(module=PlainNet((32, 64, 128, 256, 256, 256)), num_features=4096)


def food11_standard() -> Backbone:
    """277,611 parameters with an 11-class linear head."""
    return Backbone(module=PlainNet((16, 32, 32, 64, 128, 128)), num_features=2048)
