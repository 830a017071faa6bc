"""Images that Pillow decodes, whatever their kind: opened with care, and turned into 8-bit RGB.

    with open_image(data) as image: height, width = size_when_loaded(image); pixels = load_rgb(image)

HEIC needs the package `pillow-heif`, AVIF a Pillow that was built with it; without them the reason says so. How a JPEG,
PNG or WebP lies in its file is read in data.images.orientation. Pillow turns a TIFF while it loads it, pillow-heif a
HEIC, and of an AVIF Pillow says how it lies: here alone, so that nothing is turned twice.
"""

import importlib.util
import io
import warnings

import numpy as np
from PIL import ExifTags, Image

from data.errors import BadSample

# Our own limit is checked from the header before decoding; Pillow's would warn at one size and raise at another.
Image.MAX_IMAGE_PIXELS = None

# What an image says besides its pixels is not read by Pillow, which would grumble about broken blocks.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Formats whose decoders are memory-safe enough for foreign data. (EPS, for one, would start Ghostscript.)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TRANSPOSED = (5, 6, 7, 8)

NO_HEIF = "HEIC: install pillow-heif (pip install 'slimheads[heif]') or convert it"
NO_AVIF = "AVIF: this Pillow cannot read it; install Pillow 11.3 or newer, or convert it"


def kind_of(data: bytes) -> str:
    """TIFF, AVIF or HEIF, by the first bytes; "" for all others."""
    if data[:4] in _TIFF_STARTS:
        return "TIFF"
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4], "big"), 256)
        brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    return ""


def could_be_read_now(reason: str) -> bool:
    """Whether a reason for which an image was bad, a decoder that was not there, is one no more."""
    return (reason == NO_HEIF and _has_heif()) or (reason == NO_AVIF and _has_avif())


def open_image(data: bytes) -> Image.Image:
    """The header alone is read. Raises BadSample."""
    kind = kind_of(data)
    if kind == "HEIF":
        _require_heif()
    if kind == "AVIF" and not _has_avif():
        raise BadSample(NO_AVIF)
    try:
        return Image.open(io.BytesIO(data), formats=[kind] if kind else _FORMATS)
    except Exception as error:  # Pillow's plugins raise many kinds of errors on broken headers
        if not data:
            raise BadSample("image is empty (0 bytes)") from error
        if data[:2] == b"\xff\xd8":
            raise BadSample("JPEG does not decode: its header is broken or cut short") from error
        if kind == "TIFF":
            raise BadSample("TIFF of unusual pixels, or with a broken header; convert it to PNG or JPEG") from error
        if kind:
            raise BadSample(f"{kind} does not decode: {error}") from error
        raise BadSample(f"not an image that can be read ({_READABLE})") from error


def orientation_by_pillow(image: Image.Image) -> int:
    """1 to 8: how the pixels that `load_rgb` gives lie, as far as Pillow is the one to say it."""
    if image.format != "AVIF":
        return 1
    exif = Image.Exif()  # the container's turn; Pillow's own would look into XMP as well, which does not count there
    try:
        exif.load(image.info.get("exif", b""))
        said = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken block says nothing, as in the other formats
        return 1
    return said if said in range(1, 9) else 1


def size_when_loaded(image: Image.Image) -> tuple[int, int]:
    """(height, width) of what `load_rgb` gives, from the header."""
    if image.format != "TIFF":
        return image.height, image.width
    tags = image.tag_v2  # type: ignore[attr-defined]
    try:
        height, width = int(tags[257]), int(tags[256])
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TRANSPOSED
    except Exception as error:  # many kinds, as in open_image
        raise BadSample(f"TIFF does not decode: {error}") from error
    return (width, height) if turned else (height, width)


def load_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]. Transparency is laid on white, 16 bits are scaled to 8. Raises BadSample."""
    try:
        image.load()
        return np.asarray(_to_rgb(image))
    except BadSample:
        raise
    except Exception as error:  # many kinds, as of headers
        raise BadSample(f"{image.format} does not decode: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.format == "TIFF" and image.mode in ("I", "F"):
        raise BadSample("TIFF of 32-bit or signed numbers, whose white is unknown; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255 instead of scaling
        return _grey_of_16_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer).convert("RGB")
    return image.convert("RGB")


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    bits, zero_is_white = 16, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, zero_is_white = int(tags.get(258, (16,))[0]), tags.get(262) == 0  # 12 bits have this mode, too
    scaled = np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if zero_is_white else grey)


def _has_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def _has_avif() -> bool:
    try:
        from PIL import AvifImagePlugin
    except ImportError:  # before Pillow 11.3
        return False
    return bool(AvifImagePlugin.SUPPORTED)


def _require_heif() -> None:
    if "HEIF" in Image.OPEN:
        return
    if not _has_heif():
        raise BadSample(NO_HEIF)
    import pillow_heif

    pillow_heif.register_heif_opener()
