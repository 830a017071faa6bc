"""Every kind of image file becomes the right upright RGB image, and a broken one a named reason."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.errors import BadSample
from data.images.decode import decode_image, decode_stored, image_size
from data.images.resample import Box
from tests.photos import jpeg, pixels


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2.0) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.uint8
    assert actual.flags.c_contiguous
    assert np.abs(actual.astype(int) - expected.astype(int)).mean() <= tolerance


def test_jpeg_is_what_pillow_shows():
    data = jpeg(1)
    assert_close(decode_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x010F] = "maker"  # the orientation need not be the first entry
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels(2, 24, 40)), kind, exif=exif, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert_close(decode_image(data), upright)
    assert image_size(data) == upright.shape[:2]


def test_orientation_behind_other_segments_and_in_big_endian_is_found():
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)
    segment = b"Exif\0\0" + tiff
    data = jpeg(3, 16, 32)
    comment = b"\xff\xfe\0\x06note"
    data = data[:2] + comment + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    assert image_size(data) == (32, 16)
    assert decode_image(data).shape == (32, 16, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage!garbage!"])
def test_broken_exif_does_not_lose_the_picture(exif):
    data = jpeg(4)
    data = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert decode_image(data).shape == (24, 32, 3)


@pytest.mark.parametrize("eighths", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_jpeg_decoded_smaller_knows_where_its_pixels_lie(eighths: int, orientation: int) -> None:
    """In an image whose sides are no multiples of eight: the pixel that reaches over the edge is the last one stored,
    which is another edge of the image in every orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.full((163, 325, 3), 40, dtype=np.uint8)
    stored[64:128, 128:192] = 220
    data = encoded(Image.fromarray(stored), "JPEG", exif=exif, quality=95)
    decoded = decode_stored(data, eighths=eighths)
    assert decoded.pixels.shape == (-(-163 * eighths // 8), -(-325 * eighths // 8), 3)
    upright = decode_image(data)
    assert (decoded.height, decoded.width) == upright.shape[:2] == image_size(data)
    rows, columns = np.nonzero(upright[:, :, 0] > 130)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    assert decoded.box(Box(top, left, bottom - top, right - left)) == tuple(
        length * eighths / 8 for length in (64, 128, 64, 64)
    )
    bright = decoded.upright(decoded.pixels)[:, :, 0] > 130
    assert bright.sum() == (8 * eighths) ** 2


def test_grey_and_16_bit_grey_are_scaled_not_clipped():
    grey = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    assert_close(decode_image(encoded(Image.fromarray(grey), "PNG")), np.stack([grey] * 3, axis=2), 0)
    assert_close(decode_image(encoded(Image.fromarray(grey), "JPEG", quality=100)), np.stack([grey] * 3, axis=2))
    wide = grey.astype(np.uint16) * 257
    assert_close(decode_image(encoded(Image.fromarray(wide), "PNG")), np.stack([grey] * 3, axis=2), 0)


def test_cmyk_jpeg_becomes_rgb():
    image = Image.fromarray(pixels(6, 24, 32)).convert("CMYK")
    data = encoded(image, "JPEG", quality=95)
    assert_close(decode_image(data), np.asarray(image.convert("RGB")), 4)
    assert image_size(data) == (24, 32)


def test_transparency_is_laid_on_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2] = (200, 0, 0, 255)
    data = encoded(Image.fromarray(clear, "RGBA"), "PNG")
    decoded = decode_image(data)
    assert (decoded[:2] == (200, 0, 0)).all()
    assert (decoded[2:] == 255).all()


def test_palette_with_a_transparent_colour():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode_image(encoded(image, "PNG", transparency=1))
    assert decoded.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode_image(data) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_a_file_cut_short_is_a_bad_sample(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadSample):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_other_bytes_are_a_bad_sample(data):
    with pytest.raises(BadSample):
        decode_image(data)
    with pytest.raises(BadSample):
        image_size(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixel_bomb_is_refused_before_decoding(kind):
    data = encoded(Image.new("RGB", (3000, 3000)), kind)
    with pytest.raises(BadSample, match="3000x3000 is larger than the limit of 1,000,000 pixels"):
        decode_image(data, max_pixels=1_000_000)
    assert decode_image(data, max_pixels=9_000_000).shape == (3000, 3000, 3)


def test_pillows_own_limit_does_not_decide():
    data = encoded(Image.new("L", (16_000, 12_000)), "PNG")  # 192 megapixels: beyond Pillow's default error limit
    assert image_size(data) == (12_000, 16_000)
    with pytest.raises(BadSample, match="larger than the limit"):
        decode_image(data)


def test_unusual_chroma_sampling_is_decoded():
    data = bytearray(jpeg(7, 32, 32, subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x31  # luma three times as wide as chroma: unknown to the fast interface
    assert image_size(bytes(data)) == (32, 32)
