"""What a photo's hash survives, and what has none."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data.errors import BadSample
from data.images.near_pairs import find_pairs
from data.images.photo_hash import CROPS, PhotoHashes, crop_hashes, thumbnail_of_bytes, thumbnail_of_pixels
from tests.photos import jpeg, natural_photo

HEIGHT, WIDTH, COUNT = 240, 320, 12


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image) -> bytes:
    """Lying on its side, with the EXIF entry that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=92)


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 50": lambda image: encoded(image, quality=50),
    "quality 95": lambda image: encoded(image, quality=95),
    "PNG": lambda image: encoded(image, "PNG"),
    "WebP": lambda image: encoded(image, "WEBP", quality=70),
    "half the size": lambda image: encoded(half(image)),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.3)),
    "less contrast": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.6)),
    "grey": lambda image: encoded(image.convert("L")),
    "CMYK": lambda image: encoded(image.convert("CMYK")),
    "5 % cut off a corner": lambda image: encoded(image.crop((WIDTH // 20, HEIGHT // 20, WIDTH, HEIGHT))),
    "3 % cut off every edge": lambda image: encoded(
        image.crop((round(0.03 * WIDTH), round(0.03 * HEIGHT), round(0.97 * WIDTH), round(0.97 * HEIGHT)))
    ),
    "turned, as EXIF says": turned,
    "cut, halved and quality 60": lambda image: encoded(
        half(image.crop((0, 0, WIDTH - WIDTH // 20, HEIGHT - HEIGHT // 20))), quality=60
    ),
}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [natural_photo(seed, HEIGHT, WIDTH) for seed in range(COUNT)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_photo_pairs_with_what_it_was_made_from_and_with_nothing_else(change, photos):
    originals = [thumbnail_of_bytes(encoded(photo, quality=92)) for photo in photos]
    changed = [thumbnail_of_bytes(CHANGES[change](photo)) for photo in photos]
    pairs, distances = find_pairs(PhotoHashes.of(np.stack(originals + changed)))
    assert pairs.tolist() == [[number, COUNT + number] for number in range(COUNT)]
    assert distances.max() <= 8


def test_pixels_that_were_decoded_anyway_give_nearly_the_same_thumbnail(photos):
    for photo in photos:
        from_bytes = thumbnail_of_bytes(encoded(photo, quality=95)).astype(int)
        assert np.abs(from_bytes - thumbnail_of_pixels(np.asarray(photo))).mean() < 3
        assert np.abs(from_bytes - thumbnail_of_pixels(np.asarray(photo.convert("L")))).mean() < 3


def test_the_hash_of_a_crop_follows_from_the_thumbnail_of_the_whole(photos):
    for crop, (top, bottom, left, right) in enumerate(CROPS):
        for photo in photos:
            box = (left * WIDTH, top * HEIGHT, (1 - right) * WIDTH, (1 - bottom) * HEIGHT)
            part = thumbnail_of_pixels(np.asarray(photo.crop(tuple(map(round, box)))))
            derived = crop_hashes(thumbnail_of_pixels(np.asarray(photo))[None], crop)
            assert np.bitwise_count(derived ^ crop_hashes(part[None], 0)) <= 8


def test_blank_and_dark_photos_have_no_structure_and_pair_with_none():
    generator = np.random.default_rng(0)
    night = [generator.integers(0, 12, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(5)]
    blank = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (0, 200, 255)]
    hashes = PhotoHashes.of(np.stack([thumbnail_of_pixels(pixels) for pixels in night + blank]))
    assert not hashes.structured.any()
    assert len(find_pairs(hashes)[0]) == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 700), (16, 16), (700, 9)])
def test_photos_of_any_shape_have_a_thumbnail(height, width):
    data = jpeg(0, height, width)
    assert thumbnail_of_bytes(data).shape == (16, 16)
    assert cv2.countNonZero(thumbnail_of_bytes(data)) > 0


def test_what_does_not_decode_or_is_too_large_is_a_bad_sample():
    for data in (b"", b"no photo", jpeg(0)[:300]):
        with pytest.raises(BadSample):
            thumbnail_of_bytes(data)
    with pytest.raises(BadSample, match="larger than the limit"):
        thumbnail_of_bytes(jpeg(0), max_pixels=100)
