"""Evaluation sees what Pillow's bilinear resize of the whole upright photo shows, whatever the decoder did."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from data.images.augment import POLICIES, AugmentParams, centre_square
from data.images.decode import Decoded, decode_image, decode_stored, image_size
from data.images.resample import Box, resample
from data.images.transform import ImageTransform, render_bytes, render_snapped, resize_image
from data.shards.writer import recode_image
from tests.benchmarks.pixel_levels import levels_apart, pillows_square
from tests.photos import natural_photo

SIZES = (32, 64, 96, 128, 160, 224)
# Half of what is promised from 64 pixels on; a box beside its place is 2 to 9 levels away.
LEVELS = 1.0


def centred(height: int, width: int) -> AugmentParams:
    return AugmentParams(*centre_square(height, width))


def encoded(photo: Image.Image, kind: str, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    photo.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


JPEG: dict[str, object] = {"quality": 90}
PROGRESSIVE: dict[str, object] = {"quality": 90, "progressive": True}
PNG: dict[str, object] = {"compress_level": 1}


@pytest.mark.parametrize(
    ("height", "width", "orientation", "kind", "options"),
    [
        (300, 401, 1, "JPEG", JPEG),
        (348, 348, 2, "JPEG", JPEG),
        (348, 465, 3, "JPEG", PROGRESSIVE),
        (465, 348, 4, "JPEG", JPEG),
        (433, 650, 5, "JPEG", JPEG),
        (523, 399, 6, "JPEG", JPEG),
        (701, 933, 7, "JPEG", JPEG),
        (933, 702, 8, "JPEG", JPEG),
        (348, 465, 8, "PNG", PNG),
        (701, 523, 6, "WEBP", {"quality": 90, "method": 0}),
        (1201, 901, 5, "PNG", PNG),
        (1501, 1127, 6, "JPEG", JPEG),
    ],
)
def test_evaluation_sees_what_pillow_shows(
    height: int, width: int, orientation: int, kind: str, options: dict[str, object]
) -> None:
    data = encoded(natural_photo(height, height, width), kind, orientation, **options)
    apart = {size: levels_apart(data, size) for size in SIZES}
    assert max(apart.values()) <= LEVELS, apart


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_of_4000_pixels_too(orientation: int) -> None:
    photo = natural_photo(9, 753, 1001).resize((4000, 3009), Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", orientation, **JPEG)
    assert max(levels_apart(data, size) for size in (64, 224)) <= LEVELS


def test_cmyk_too() -> None:
    data = encoded(natural_photo(4, 500, 423).convert("CMYK"), "JPEG", 7, **JPEG)
    assert max(levels_apart(data, size) for size in SIZES) <= LEVELS


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("render", [render_bytes, render_snapped])
def test_a_box_lies_where_it_lies_however_the_photo_is_stored(render: Callable[..., None], orientation: int) -> None:
    """At an eighth, in a photo whose sides are no multiples of eight, close to the edge that is rounded up."""
    data = encoded(natural_photo(3, 701, 523), "JPEG", orientation, **JPEG)
    height, width = image_size(data)
    view = AugmentParams(height - 411, width - 413, 411, 413)
    out = np.empty((24, 24, 3), dtype=np.uint8)
    render(data, view, height=height, width=width, size=24, max_pixels=10**7, out=out)
    box = Image.fromarray(decode_image(data)).crop((view.left, view.top, width, height))
    expected = np.asarray(box.resize((24, 24), Image.Resampling.BILINEAR))
    # A snapped box lies up to half of a decoded pixel, three tenths of a new one, beside its place.
    assert np.abs(out - expected.astype(float)).mean() <= (LEVELS if render is render_bytes else 6)


def test_a_snapped_box_is_the_box_that_is_rendered() -> None:
    data = encoded(natural_photo(3, 348, 465), "JPEG", 6, **JPEG)
    height, width = image_size(data)
    view = AugmentParams(height=200, width=211, top=77, left=101)
    out = np.empty((70, 70, 3), dtype=np.uint8)
    render_snapped(data, view, height=height, width=width, size=70, max_pixels=10**7, out=out)
    upright = np.ascontiguousarray(decode_stored(data, eighths=3).pixels.transpose(1, 0, 2)[:, ::-1])
    # 3/8 of 348 is 130.5: the rounded-up column of the file is the first column of this image.
    top, left = round(77 * 3 / 8), 131 - round((348 - 101) * 3 / 8)
    bottom, right = round(277 * 3 / 8), 131 - round((348 - 312) * 3 / 8)
    part = Image.fromarray(upright[top:bottom, left:right])
    assert np.abs(out - np.asarray(part.resize((70, 70), Image.Resampling.BILINEAR)).astype(float)).mean() < LEVELS


def test_random_crops_decode_no_more_than_they_need_and_evaluation_twice_that(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def decode(data: bytes, *, eighths: int, max_pixels: int) -> Decoded:
        asked.append(eighths)
        return decode_stored(data, eighths=eighths, max_pixels=max_pixels)

    monkeypatch.setattr("data.images.transform.decode_stored", decode)
    data = encoded(natural_photo(3, 400, 400), "JPEG", 1, **JPEG)
    for size in (50, 51, 100, 101, 150, 151, 200, 201):
        for render in (render_bytes, render_snapped):
            out = np.empty((size, size, 3), dtype=np.uint8)
            render(data, centred(400, 400), height=400, width=400, size=size, max_pixels=10**6, out=out)
    assert asked[0::2] == [2, 4, 4, 8, 8, 8, 8, 8]
    assert asked[1::2] == [1, 2, 2, 3, 3, 4, 4, 8]


@pytest.mark.parametrize(("policy", "exact"), [("none", True), ("standard", False)])
def test_without_random_crops_training_sees_evaluations_pixels(policy: str, exact: bool) -> None:
    data = encoded(natural_photo(3, 348, 465), "JPEG", 1, **JPEG)
    made, evaluated = (np.empty((96, 96, 3), dtype=np.uint8) for _ in range(2))
    ImageTransform(size=96, operations=POLICIES[policy]).make(data, shard="a", key="b", view=0, out=made)
    render_bytes(data, centred(348, 465), height=348, width=465, size=96, max_pixels=10**6, out=evaluated)
    assert np.array_equal(made, evaluated) == exact


@pytest.mark.parametrize("length", range(1, 20))
def test_pictures_of_few_pixels_are_rendered(length: int) -> None:
    """Below eight pixels two of the decoder's scales give one size."""
    data = encoded(natural_photo(1, length, 3), "JPEG", 6, quality=95)
    height, width = image_size(data)
    for size in (1, 2, 24):
        out = np.empty((size, size, 3), dtype=np.uint8)
        render_bytes(data, centred(height, width), height=height, width=width, size=size, max_pixels=999, out=out)
        # One or two new pixels of three old ones are all edge, where the two filters differ.
        assert np.abs(out - pillows_square(data, size).astype(float)).mean() < (1 if size == 24 else 8)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_shard_stores_the_whole_photo_smaller(orientation: int) -> None:
    data = encoded(natural_photo(3, 349, 475), "JPEG", orientation, **JPEG)
    height, width = image_size(data)
    small = resize_image(data, height=height // 5, width=width // 5)
    whole = Image.fromarray(decode_image(data))
    expected = np.asarray(whole.resize((width // 5, height // 5), Image.Resampling.BILINEAR))
    assert np.abs(small - expected.astype(float)).mean() <= LEVELS
    suffix, stored = recode_image(data, resize=70, encode=None, quality=100)
    assert suffix == "jpg"
    assert decode_image(stored).shape == ((70, 95, 3) if orientation < 5 else (95, 70, 3))


@pytest.mark.parametrize(("ratio", "offset"), [(1.0, 0.0), (1.3, 0.0), (2.0, 0.375), (2.9, 0.5), (4.6, 0.125), (25, 0)])
def test_resampling_moves_nothing(ratio: float, offset: float) -> None:
    """A ramp of grey stays the ramp that it is: its steps grow by the ratio and begin where the box does."""
    size = 20
    ramp = np.tile(np.arange(size * ratio + 20, dtype=np.float64) * 250 / (size * ratio + 20), (40, 1))
    image = np.repeat(np.rint(ramp).astype(np.uint8)[:, :, None], 3, axis=2)
    out = resample(image, Box(5, 7 + offset, 20, size * ratio), height=size, width=size)
    places = 7 + offset + (np.arange(size) + 0.5) * ratio - 0.5
    expected = places * 250 / (size * ratio + 20)
    inner = slice(2, -2)  # at the ends of the box there is no ramp any more
    assert np.abs(out[:, inner].astype(float) - expected[None, inner, None]).max() <= 1
    assert abs((out[:, inner].astype(float) - expected[None, inner, None]).mean()) <= 0.3
