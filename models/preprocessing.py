"""How pixels become what a network takes: normalisation and precision.

normalise = Normalise(mean, std); images = normalise(pixels)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Preprocessing:
    """What is subtracted from and divided out of RGB pixels that were scaled to 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Normalise(nn.Module):
    """uint8 [N, H, W, 3] -> float [N, 3, H, W] with mean and std (of 0..1) taken out; memory stays channels_last."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255))

    def forward(self, image: Tensor) -> Tensor:
        batch, height, width, channels = image.shape
        # Whole rows of pixels at a time: a stretch of three numbers, as one pixel is, would not fill a vector register.
        rows = image.reshape(batch * height, width * channels)
        pixels = _empty_floats(rows).copy_(rows).sub_(self.mean.repeat(width)).mul_(self.scale.repeat(width))
        return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _empty_floats(like: Tensor) -> Tensor:
    if like.device.type == "cpu":
        # NumPy asks the kernel for huge pages; with torch's small ones, touching them costs more than the arithmetic.
        return torch.from_numpy(np.empty(like.shape, dtype=np.float32))
    return torch.empty_like(like, dtype=torch.float32)
