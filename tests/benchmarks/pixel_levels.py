"""How far evaluation's pixels are from Pillow's bilinear resize of the whole photo, in grey levels.

figure = jpeg_grid_levels(index, num_photos=200)
"""

import io

import numpy as np
from PIL import Image, ImageOps

from data.images import MAX_PIXELS
from data.images.augment import AugmentParams, centre_square
from data.images.decode import image_size
from data.images.transform import render_bytes
from data.index import Index
from data.shards.shard_reader import ShardReader
from tests.benchmarks.figure import Figure

_SIZES = (64, 96, 128, 160, 224)


def jpeg_grid_levels(index: Index, *, num_photos: int) -> Figure:
    """The worst size's mean distance over photos evenly spaced in the set."""
    reader = ShardReader(index)
    places = [(shard, sample) for shard, one in enumerate(index.shards) for sample in range(one.count)]
    photos = [reader.read(*place) for place in places[:: max(1, len(places) // num_photos)][:num_photos]]
    means = {size: float(np.mean([levels_apart(photo, size) for photo in photos])) for size in _SIZES}
    note = ", ".join(f"{mean:.2f} at {size}" for size, mean in means.items())
    return Figure("jpeg_grid_levels", max(means.values()), target=2.0, note=f"{note} px, {len(photos)} photos")


def levels_apart(photo: bytes, size: int) -> float:
    """Mean absolute difference of the centre squares."""
    height, width = image_size(photo)
    ours = np.empty((size, size, 3), dtype=np.uint8)
    centre = AugmentParams(*centre_square(height, width))
    render_bytes(photo, centre, height=height, width=width, size=size, max_pixels=MAX_PIXELS, out=ours)
    return float(np.abs(ours - pillows_square(photo, size).astype(float)).mean())


def pillows_square(photo: bytes, size: int) -> np.ndarray:
    """The centre square of the whole upright photo, uint8 [size, size, 3]."""
    with Image.open(io.BytesIO(photo)) as file:
        upright = ImageOps.exif_transpose(file).convert("RGB")
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    square = upright.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
