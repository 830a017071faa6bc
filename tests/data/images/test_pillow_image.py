"""TIFF, AVIF and HEIC become the right upright pixels, or a reason that says what to do."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from data.errors import BadSample
from data.images import pillow_image
from data.images.decode import decode_image, image_size
from data.images.pillow_image import NO_AVIF, NO_HEIF, could_be_read_now, kind_of
from data.images.transform import resize_image
from tests.conftest import rank_environment
from tests.heif_stand_in import heic, install_stand_in
from tests.photos import pixels


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, bits: int, *, photometric: int = 1, orientation: int = 1) -> bytes:
    """By hand, little-endian and uncompressed. values: [H, W] or [H, W, C] of the type that holds them."""
    height, width, channels = (*values.shape, 1)[:3]
    kinds = {"i": 2, "f": 3}
    entries = [
        (256, width), (257, height), (258, bits), (259, 1), (262, photometric), (274, orientation), (277, channels),
        (278, height), (339, kinds.get(values.dtype.kind, 1)),
    ]  # fmt: skip
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(273, start + 2 * channels), (279, len(data))]
    directory = struct.pack("<H", len(entries))
    for tag, value in sorted(entries):
        if tag == 258 and channels > 2:
            directory += struct.pack("<HHII", tag, 3, channels, start)
        else:
            directory += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    each = struct.pack(f"<{channels}H", *[bits] * channels)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + each + data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_every_orientation_is_turned_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels(2, 24, 40))
    options = {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {"compression": "tiff_lzw"}
    data = encoded(stored, kind, exif=exif, **options)
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    shown = decode_image(data)
    assert shown.shape == upright.shape
    assert image_size(data) == upright.shape[:2]
    assert np.abs(shown.astype(int) - upright).mean() < (0.01 if kind == "TIFF" else 2)
    height, width = upright.shape[0] // 2, upright.shape[1] // 2
    small = np.asarray(Image.fromarray(upright).resize((width, height), Image.Resampling.BOX))
    assert np.abs(resize_image(data, height=height, width=width).astype(int) - small).mean() < 4


def test_a_tiff_that_lies_as_its_xmp_says_has_the_size_of_its_pixels() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[700] = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    info.tagtype[700] = 1
    data = encoded(Image.fromarray(pixels(2, 24, 40)), "TIFF", tiffinfo=info)
    assert image_size(data) == decode_image(data).shape[:2]


GREY = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(GREY, 8), GREY),
        (tiff(255 - GREY, 8, photometric=0), GREY),
        (tiff(GREY.astype(np.uint16) * 257, 16), GREY),
        (tiff(65535 - GREY.astype(np.uint16) * 257, 16, photometric=0), GREY),
        (tiff(np.stack([GREY] * 3, axis=2).astype(np.uint16) * 257, 16, photometric=2), GREY),
        (encoded(Image.fromarray(GREY > 127), "TIFF", compression="group4"), (GREY > 127) * 255),
    ],
    ids=["grey", "white is zero", "16 bits", "16 bits, white is zero", "16 bits rgb", "fax"],
)
def test_a_tiff_of_any_depth_has_its_greys(data: bytes, expected: np.ndarray) -> None:
    shown = decode_image(data)
    assert shown.shape == (8, 8, 3)
    assert np.abs(shown.astype(int) - expected[:, :, None]).max() <= 1


def test_12_bits_are_scaled_by_their_own_white() -> None:
    rows = np.array([[0, 4095, 2048, 1024]], dtype=np.uint16)
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in rows.reshape(-1, 2).astype(int).tolist()
    )
    data = tiff(np.frombuffer(packed, np.uint8).reshape(1, -1), 12)
    data = data.replace(struct.pack("<HHII", 256, 3, 1, 6), struct.pack("<HHII", 256, 3, 1, 4))
    assert decode_image(data)[0, :, 0].tolist() == [0, 255, 128, 64]


def test_a_cmyk_tiff_becomes_rgb() -> None:
    image = Image.fromarray(pixels(6, 24, 32))
    shown = decode_image(encoded(image.convert("CMYK"), "TIFF"))
    assert np.abs(shown.astype(int) - np.asarray(image)).mean() < 2


@pytest.mark.parametrize(
    "values", [GREY.astype(np.float32), GREY.astype(np.uint32), GREY.astype(np.int16)], ids=["f32", "u32", "i16"]
)
def test_numbers_whose_white_is_unknown_are_refused_in_words(values: np.ndarray) -> None:
    with pytest.raises(BadSample, match="convert it to 8 or 16 bits"):
        decode_image(tiff(values, 8 * values.itemsize))


def test_of_several_pages_the_first_counts() -> None:
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("white", "black")]
    assert (decode_image(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == 255).all()


def test_transparency_is_laid_on_white() -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (200, 0, 0, 255)
    for data in (encoded(Image.fromarray(clear), "TIFF"), encoded(Image.fromarray(clear), "AVIF", quality=100)):
        shown = decode_image(data).astype(int)
        assert np.abs(shown[:3] - (200, 0, 0)).max() < 8
        assert np.abs(shown[5:] - 255).max() < 8


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {})])
def test_a_file_cut_short_is_a_bad_sample(kind: str, options: dict[str, str], share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind, **options)
    with pytest.raises(BadSample):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_a_pixel_bomb_is_refused_before_decoding(kind: str) -> None:
    data = encoded(Image.new("RGB", (2000, 600)), kind)
    with pytest.raises(BadSample, match="2000x600 is larger than the limit of 1,000,000 pixels"):
        decode_image(data, max_pixels=1_000_000)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (heic(b""), "HEIF"),
        (heic(b"", b"mif1", b"mif1heic"), "HEIF"),
        (heic(b"", b"mif1", b"mif1avif"), "AVIF"),
        (heic(b"", b"avif", b"avif"), "AVIF"),
        (heic(b"", b"mp42", b"isommp42"), ""),
        (b"II*\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"", ""),
    ],
)
def test_the_kind_is_read_from_the_first_bytes(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


def test_a_heic_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(pillow_image, "_has_heif", lambda: False)
    for read in (decode_image, image_size):
        with pytest.raises(BadSample, match=r"install pillow-heif \(pip install 'slimheads\[heif\]'\) or convert it"):
            read(heic(b"..."))
    assert not could_be_read_now(NO_HEIF)


def test_an_avif_that_this_pillow_cannot_read_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (8, 8)), "AVIF")
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    with pytest.raises(BadSample, match=r"install Pillow 11\.3 or newer"):
        decode_image(data)
    assert not could_be_read_now(NO_AVIF)
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", True)
    assert could_be_read_now(NO_AVIF)


def test_a_heic_is_opened_by_its_package_and_not_turned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    stored = pixels(3, 24, 40)
    data = heic(encoded(Image.fromarray(stored), "PNG"))
    assert image_size(data) == (24, 40)
    assert (decode_image(data) == stored).all()
    assert could_be_read_now(NO_HEIF)


def test_what_is_never_read_is_never_loaded() -> None:
    """A data set of JPEGs pays nothing for the others."""
    code = "import sys, data.images.decode; print('PIL.AvifImagePlugin' in sys.modules, 'pillow_heif' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=rank_environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
