"""What happens to a picture when it goes into a shard: checked, and, if asked, made smaller or turned into JPEG.

Use: `suffix, data = recode_image(data, resize=256, encode=None, quality=90)`
"""

import io

import numpy as np
import simplejpeg
from PIL import Image

from data.images.decode import MAX_PIXELS, decode_image, image_size
from data.images.transform import resize_photo

# Formats whose bytes are kept as they are; others (BMP, GIF) become PNG.
_KEPT = {"jpg": b"\xff\xd8", "png": b"\x89PNG", "webp": b"RIFF"}


def recode_image(
    data: bytes, *, resize: int | None, encode: str | None, quality: int, max_pixels: int = MAX_PIXELS
) -> tuple[str, bytes]:
    """(member suffix, bytes) to store. Every picture is decoded once, so that what is stored is known to be good.

    `resize` shrinks the short side to that many pixels and never enlarges; `encode="jpeg"` stores every picture as
    JPEG of `quality` with 4:2:0 chroma. A JPEG, PNG or WebP that needs neither keeps its bytes. Raises BadSample.
    """
    height, width = image_size(data)
    shrink = resize is not None and min(height, width) > resize
    suffix = next((suffix for suffix, magic in _KEPT.items() if data.startswith(magic)), None)
    if resize is None or not shrink:
        pixels = decode_image(data, max_pixels=max_pixels)
        if encode is None and suffix is not None:
            return suffix, data
    else:
        scale = resize / min(height, width)
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = resize_photo(data, height=new_height, width=new_width, max_pixels=max_pixels)
    if encode == "jpeg" or suffix == "jpg":
        return "jpg", _to_jpeg(pixels, quality)
    return "png", _to_png(pixels)


def _to_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420")


def _to_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
