"""Image bytes to RGB pixels, the same way for the shard writer and for the training loader.

Use: `pixels = decode_image(jpeg_bytes)`  # uint8 [H, W, 3], upright

JPEG goes through libjpeg-turbo (simplejpeg), everything else and CMYK through Pillow. The accurate DCT is used: on 400
photos of 348x348 the fast one takes 252 instead of 264 us per image and moves pixels by 0.99 grey levels on average
(at most 5), and five per cent of decoding is two per cent of a loader.
"""

from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from data.errors import BadSample
from data.images import MAX_PIXELS
from data.images.orientation import orientation_of
from data.images.pillow_image import load_rgb, open_image, orientation_by_pillow, size_when_loaded
from data.images.resample import Box

WHOLE = 8  # eighths
JPEG_START = b"\xff\xd8"
# libjpeg-turbo's fast interface knows six chroma samplings; JPEGs with another one (4:1:0, say) are legal, too.
_UNUSUAL_SAMPLING = "determine subsampling"
# Orientations, after EXIF, whose stored rows are the image's columns; then those that run from the right, or up.
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


@dataclass(frozen=True)
class Decoded:
    """Pixels as they lie in the file, uint8 [H, W, 3].

    A JPEG may be decoded at `eighths` / 8 of its size, exactly: pixel i covers 8 / eighths of the file's pixels from
    8 / eighths * i on, and the last one may reach over the edge. height, width: of the whole upright image.
    """

    pixels: np.ndarray
    height: int
    width: int
    orientation: int = 1
    eighths: int = WHOLE

    def box(self, upright: Box) -> Box:
        """Where a box of the whole upright image lies in `pixels`."""
        top, left, height, width = upright
        if self.orientation in _UPSIDE_DOWN:
            top = self.height - top - height
        if self.orientation in _MIRRORED:
            left = self.width - left - width
        box = (left, top, width, height) if self.orientation in _TRANSPOSED else (top, left, height, width)
        return Box(*(length * self.eighths / WHOLE for length in box))

    def upright(self, part: np.ndarray) -> np.ndarray:
        """A view of a part of the pixels, [h, w, 3], that shows it upright."""
        if self.orientation in _TRANSPOSED:
            part = part.transpose(1, 0, 2)
        down = -1 if self.orientation in _UPSIDE_DOWN else 1
        across = -1 if self.orientation in _MIRRORED else 1
        return part[::down, ::across]

    @property
    def is_transposed(self) -> bool:
        return self.orientation in _TRANSPOSED


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode to upright RGB, uint8 [H, W, 3], contiguous.

    Transparency is composited on white, of an animation the first frame is taken, 16 bits are scaled to 8. Raises
    BadSample when the bytes do not decode, are cut short, or hold more than `max_pixels` pixels (checked before
    decoding).
    """
    decoded = decode_stored(data, max_pixels=max_pixels)
    return np.ascontiguousarray(decoded.upright(decoded.pixels))


def decode_stored(data: bytes, *, eighths: int = WHOLE, max_pixels: int = MAX_PIXELS) -> Decoded:
    """As decode_image, without turning the image, and a JPEG at `eighths` (1 to 4, or 8) of its size.

    (5 to 7 cost more than the whole: a photo of 348x348 takes 261 us whole, 401 us at 6/8, 333 us at 5/8, 197 at 4/8.)
    """
    if data[:2] != JPEG_START:
        return _decode_with_pillow(data, max_pixels)
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > max_pixels:
            raise BadSample(_too_large(height, width, max_pixels))
        if colorspace == "CMYK" or colorspace == "YCCK":
            return _decode_with_pillow(data, max_pixels)
        if max(height, width) < WHOLE:  # two scales of so small an image may be of one size
            eighths = WHOLE
        pixels = simplejpeg.decode_jpeg(
            data, min_height=-(-height * eighths // WHOLE), min_width=-(-width * eighths // WHOLE)
        )
    except ValueError as error:
        if _UNUSUAL_SAMPLING in str(error):
            return _decode_with_pillow(data, max_pixels)
        raise BadSample(f"JPEG does not decode: {error}") from error
    return _stored(pixels, (height, width), orientation_of(data), eighths)


def decode_small(data: bytes, *, side: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The whole upright image for a look at it: no smaller than `side` pixels either way where it was not before, and
    otherwise as small, and a JPEG as grey (uint8 [h, w] instead of [h, w, 3]), as makes decoding quick. Raises
    BadSample."""
    if data[:2] == JPEG_START:
        height, width, _ = _header(data)
        if height * width > max_pixels:
            raise BadSample(_too_large(height, width, max_pixels))
        eighths = next((some for some in (1, 2, 4) if min(height, width) * some >= WHOLE * side), WHOLE)
        least = {"min_height": -(-height * eighths // WHOLE), "min_width": -(-width * eighths // WHOLE)}
        try:
            grey = simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, **least)  # [h, w, 1]
        except ValueError:
            pass  # CMYK, an unusual sampling, or broken, which decode_image says
        else:
            turned = _stored(grey, (height, width), orientation_of(data), eighths).upright(grey)
            return np.ascontiguousarray(turned[..., 0])
    return decode_image(data, max_pixels=max_pixels)


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels of the upright image, from the header. Raises BadSample."""
    height, width, orientation = _header(data)
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def _header(data: bytes) -> tuple[int, int, int]:
    """Height and width as the pixels are decoded, and their orientation."""
    if data[:2] == JPEG_START:
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return height, width, orientation_of(data)
        except ValueError as error:
            if _UNUSUAL_SAMPLING not in str(error):
                raise BadSample(f"JPEG header does not decode: {error}") from error
    with open_image(data) as image:
        return *size_when_loaded(image), _orientation(data, image)


def _orientation(data: bytes, image: Image.Image) -> int:
    """Only one of the two can say anything: they are for different formats."""
    return max(orientation_of(data), orientation_by_pillow(image))


def _stored(pixels: np.ndarray, size: tuple[int, int], orientation: int, eighths: int = WHOLE) -> Decoded:
    height, width = size[::-1] if orientation in _TRANSPOSED else size
    return Decoded(pixels, height, width, orientation, eighths)


def _too_large(height: int, width: int, max_pixels: int) -> str:
    return f"image of {width}x{height} is larger than the limit of {max_pixels:,} pixels"


def _decode_with_pillow(data: bytes, max_pixels: int) -> Decoded:
    with open_image(data) as image:
        if image.height * image.width > max_pixels:
            raise BadSample(_too_large(image.height, image.width, max_pixels))
        orientation = _orientation(data, image)
        pixels = load_rgb(image)
    return _stored(pixels, pixels.shape[:2], orientation)
