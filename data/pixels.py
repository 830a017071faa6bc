"""How the bytes of a photo become a view of it: uint8 [size, size, 3].

pixels = Pixels(size=224, operations=POLICIES["standard"], seed=0)
pixels.make(jpeg, shard="000000.tar", key="cat_7", view=3, out=out)
"""

from dataclasses import dataclass

import numpy as np

from data.augment import Operations, View, centre_square, draw_view, render, view_key
from data.decode import decode_image, image_size


@dataclass(frozen=True)
class Pixels:
    """How a sample's bytes become pixels: uint8 [size, size, 3]."""

    size: int
    operations: Operations
    seed: int = 0
    max_pixels: int = 64_000_000

    def make(self, data: bytes, *, shard: str, key: str, view: int, out: np.ndarray) -> None:
        """Decode, augment as the `view`-th view and write one sample into `out`. Raises BadSample."""
        height, width = image_size(data)
        random_key = view_key(self.seed, shard, key, view)
        drawn = draw_view(self.operations, height=height, width=width, key=random_key)
        render_bytes(data, drawn, height=height, width=width, size=self.size, max_pixels=self.max_pixels, out=out)


def render_bytes(
    data: bytes, view: View, *, height: int, width: int, size: int, max_pixels: int, out: np.ndarray
) -> None:
    """Decode only as finely as the view's crop needs, then render it into `out` (uint8 [size, size, 3])."""
    scale = min(1.0, size / min(view.height, view.width))
    min_height, min_width = int(np.ceil(height * scale)), int(np.ceil(width * scale))
    image = decode_image(data, min_height=min_height, min_width=min_width, max_pixels=max_pixels)
    if image.shape[:2] != (height, width):
        view = _scaled(view, image.shape[0] / height, image.shape[1] / width, image.shape[0], image.shape[1])
    render(image, view, size, out)


def _scaled(view: View, vertical: float, horizontal: float, height: int, width: int) -> View:
    """The same view on an image that was decoded smaller."""
    top, left = min(int(view.top * vertical), height - 1), min(int(view.left * horizontal), width - 1)
    box = dict(
        top=top,
        left=left,
        height=max(1, min(round(view.height * vertical), height - top)),
        width=max(1, min(round(view.width * horizontal), width - left)),
    )
    return View(**{**view.__dict__, **box})


def centre_view(height: int, width: int) -> View:
    """The view that evaluation takes: the largest centred square."""
    return View(*centre_square(height, width))
