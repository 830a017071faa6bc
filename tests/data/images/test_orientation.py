"""How an image lies is read by one rule, by training and by the predict.py of an export, wherever a file says it."""

import io
import runpy
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.errors import BadSample
from data.images.augment import AugmentParams, centre_square
from data.images.decode import decode_image, image_size
from data.images.orientation import orientation_of
from data.images.transform import render_bytes
from data.loading.eval_loader import eval_batches
from data.loading.image_sets import FileImages
from models.export.output_folder import example_text
from tests.photos import pixels

SIZE = 24
FORMATS = {"I": 4, "H": 3, "B": 1, "i": 9, "h": 8, "b": 6}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation=%s/></x:xmpmeta>'


def tiff(value: int, *, order: str = "<", form: str = "H", count: int = 1, kind: int | None = None) -> bytes:
    """An EXIF block's content: two entries, the second of which is the orientation."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    maker = struct.pack(order + "HHII", 0x010F, 2, 4, 0x61626300)
    entry = struct.pack(order + "HHI", 0x0112, FORMATS[form] if kind is None else kind, count)
    entry += struct.pack(order + form, value).ljust(4, b"\0")
    return start + struct.pack(order + "H", 2) + maker + entry + bytes(4)


def segment(content: bytes, marker: int = 0xE1) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def in_jpeg(*segments: bytes) -> bytes:
    """The segments behind the usual first one."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(2, 30, 44)).save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    return data[:20] + b"".join(segments) + data[20:]


def exif_segment(content: bytes) -> bytes:
    return segment(b"Exif\0\0" + content)


def xmp_segment(content: bytes) -> bytes:
    return segment(b"http://ns.adobe.com/xap/1.0/\0" + content)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def in_png(*chunks: bytes, late: bool = False) -> bytes:
    """The chunks before the pixels, or behind them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(2, 30, 44)).save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IEND") - 4 if late else data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def profile(content: bytes) -> bytes:
    """As ImageMagick writes EXIF into a PNG."""
    digits = content.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"\nexif\n{len(content):8}\n{lines}\n".encode()


def in_webp(exif: bytes = b"", xmp: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(2, 30, 44)).save(buffer, "WEBP", lossless=True, exif=exif, xmp=xmp)
    return buffer.getvalue()


def unannounced_webp() -> bytes:
    data = bytearray(in_webp(tiff(6)))
    data[20] &= ~8
    return bytes(data)


RAW = b"Raw profile type exif\0"
ADOBE = b"XML:com.adobe.xmp\0"
CASES = {
    "jpeg": (in_jpeg(exif_segment(tiff(6))), 6),
    "jpeg, big endian": (in_jpeg(exif_segment(tiff(8, order=">"))), 8),
    "jpeg, LONG": (in_jpeg(exif_segment(tiff(6, form="I"))), 6),
    "jpeg, LONG, big endian": (in_jpeg(exif_segment(tiff(6, form="I", order=">"))), 6),
    "jpeg, BYTE": (in_jpeg(exif_segment(tiff(5, form="B", order=">"))), 5),
    "jpeg, signed": (in_jpeg(exif_segment(tiff(7, form="h"))), 7),
    "jpeg, negative": (in_jpeg(exif_segment(tiff(-6, form="h"))), 1),
    "jpeg, text": (in_jpeg(exif_segment(tiff(0x36, form="B", kind=2))), 1),
    "jpeg, two numbers": (in_jpeg(exif_segment(tiff(6, count=2))), 6),
    "jpeg, three numbers elsewhere": (in_jpeg(exif_segment(tiff(38, form="I", kind=3, count=3) + b"\5\0\6\0\7\0")), 5),
    "jpeg, three numbers nowhere": (in_jpeg(exif_segment(tiff(999, form="I", kind=3, count=3))), 1),
    "jpeg, no number": (in_jpeg(exif_segment(tiff(6, count=0))), 1),
    "jpeg, out of range": (in_jpeg(exif_segment(tiff(9))), 1),
    "jpeg, far behind": (
        in_jpeg(segment(bytes(60_000), 0xE2), segment(b"note", 0xFE), segment(b"?" * 300), exif_segment(tiff(6))),
        6,
    ),
    "jpeg, padded": (in_jpeg(b"\xff\xff\xff", exif_segment(tiff(6))), 6),
    "jpeg, another one's word twice": (in_jpeg(exif_segment(b"Exif\0\0" + tiff(6))), 6),
    "jpeg, two blocks": (in_jpeg(exif_segment(tiff(6)), exif_segment(tiff(3))), 6),
    "jpeg, xmp": (in_jpeg(xmp_segment(XMP % b'"6"')), 6),
    "jpeg, xmp as an element": (in_jpeg(xmp_segment(b"<tiff:Orientation> 8 </tiff:Orientation>")), 8),
    "jpeg, xmp in single quotes": (in_jpeg(xmp_segment(XMP % b" '3'")), 3),
    "jpeg, xmp out of range": (in_jpeg(xmp_segment(XMP % b'"66"')), 1),
    "jpeg, exif before xmp": (in_jpeg(xmp_segment(XMP % b'"6"'), exif_segment(tiff(3))), 3),
    "jpeg, xmp where exif is broken": (in_jpeg(exif_segment(b"II*\0\xff\xff\xff\xff"), xmp_segment(XMP % b'"6"')), 6),
    "png": (in_png(chunk(b"eXIf", tiff(6, order=">"))), 6),
    "png, late": (in_png(chunk(b"eXIf", tiff(8)), late=True), 8),
    "png, with JPEG's word": (in_png(chunk(b"eXIf", b"Exif\0\0" + tiff(6))), 6),
    "png, packed profile": (in_png(chunk(b"zTXt", RAW + b"\0" + zlib.compress(profile(tiff(6))))), 6),
    "png, plain profile": (in_png(chunk(b"tEXt", RAW + profile(b"Exif\0\0" + tiff(6)))), 6),
    "png, late profile": (in_png(chunk(b"tEXt", RAW + profile(tiff(6))), late=True), 6),
    "png, profile of no digits": (in_png(chunk(b"tEXt", RAW + b"\nexif\n4\nwxyz")), 1),
    "png, xmp": (in_png(chunk(b"iTXt", ADOBE + b"\0\0\0\0" + XMP % b'"6"')), 6),
    "png, packed xmp": (in_png(chunk(b"iTXt", ADOBE + b"\1\0\0\0" + zlib.compress(XMP % b'"6"'))), 6),
    "png, late xmp": (in_png(chunk(b"iTXt", ADOBE + b"\0\0\0\0" + XMP % b'"6"'), late=True), 6),
    "webp": (in_webp(exif=tiff(6)), 6),
    "webp, with JPEG's word": (in_webp(exif=b"Exif\0\0" + tiff(6)), 6),
    "webp, xmp": (in_webp(xmp=XMP % b'"6"'), 6),
    "webp, unannounced": (unannounced_webp(), 1),
    "nothing said": (in_jpeg(), 1),
}
# Behind a first block that cannot be read Pillow itself opens no JPEG any more.
GARBAGE = [b"", b"Exif\0\0", b"II*\0\xff\xff\xff\xff", b"garbage!garbage!", tiff(6)[:-7], tiff(6, kind=999)]
ODD = {
    **{f"jpeg {number}": in_jpeg(exif_segment(block)) for number, block in enumerate(GARBAGE)},
    **{f"png {number}": in_png(chunk(b"eXIf", block)) for number, block in enumerate(GARBAGE)},
    **{f"webp {number}": in_webp(exif=block) for number, block in enumerate(GARBAGE)},
    "bad zlib": in_png(chunk(b"zTXt", RAW + b"\0" + b"no zlib")),
    "xmp of other bytes": in_jpeg(xmp_segment(bytes(range(256)))),
}


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The predict.py of an export, as a module."""
    path = tmp_path_factory.mktemp("export") / "predict.py"
    path.write_text(example_text())
    assert "import data" not in path.read_text()
    assert "from data" not in path.read_text()
    return runpy.run_path(str(path))


def seen_by_evaluation(data: bytes) -> np.ndarray:
    height, width = image_size(data)
    out = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    centre = AugmentParams(*centre_square(height, width))
    render_bytes(data, centre, height=height, width=width, size=SIZE, max_pixels=10**6, out=out)
    return out


@pytest.mark.parametrize("name", CASES)
def test_both_read_what_the_file_says(name: str, standalone: dict, tmp_path: Path) -> None:
    data, expected = CASES[name]
    assert orientation_of(data) == expected
    assert standalone["orientation_of"](data) == expected
    assert image_size(data) == ((44, 30) if expected >= 5 else (30, 44))
    assert decode_image(data).shape[:2] == image_size(data)
    (tmp_path / "photo").write_bytes(data)
    theirs = standalone["load_photo"](str(tmp_path / "photo"), SIZE)
    assert np.abs(theirs.astype(int) - seen_by_evaluation(data)).mean() < 1  # another turn moves it by tens


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_read_says_nothing(name: str, standalone: dict, tmp_path: Path) -> None:
    data = ODD[name]
    assert orientation_of(data) == 1
    assert decode_image(data).shape == (30, 44, 3)
    (tmp_path / "photo").write_bytes(data)
    theirs = standalone["load_photo"](str(tmp_path / "photo"), SIZE)
    assert np.abs(theirs.astype(int) - seen_by_evaluation(data)).mean() < 1


def test_an_odd_photo_stops_none_of_those_after_it(standalone: dict, tmp_path: Path) -> None:
    """A text that Pillow refuses, and one that unpacks to more than a photo can hold."""
    bomb = zlib.compress(bytes(1 << 24))
    photos = {
        "0.png": in_png(chunk(b"zTXt", RAW + b"\7" + b"another way to pack")),
        "1.png": in_png(chunk(b"zTXt", RAW + b"\0" + bomb)),
        "2.jpg": in_jpeg(segment(b"Exif\0\0MM")) + b"\xff",
        "3.jpg": in_jpeg(exif_segment(tiff(6))),
    }
    for name, data in photos.items():
        (tmp_path / name).write_bytes(data)
    loaded = list(eval_batches(FileImages(tmp_path, list(photos)), sizes=[SIZE], num_views=1, batch_size=1, workers=0))
    assert [batch.key or [bad.key for bad in batch.bad] for batch in loaded] == [[name] for name in photos]
    read = [name for batch in loaded for name in batch.key]
    for name in photos:
        try:
            standalone["load_photo"](str(tmp_path / name), SIZE)
        except Exception:
            assert name not in read
        else:
            assert name in read
    assert "3.jpg" in read


BLOCKS = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda start, directory, rest: start + struct.pack("<I", directory) + rest,
        st.sampled_from([b"II*\0", b"MM\0*", b"Exif\0\0II*\0"]),
        st.one_of(st.integers(0, 60), st.integers(0, 2**32 - 1)),
        st.binary(max_size=80),
    ),
    st.builds(
        lambda at, byte: tiff(6)[:at] + bytes([byte]) + tiff(6)[at + 1 :], st.integers(0, 40), st.integers(0, 255)
    ),
)


@settings(max_examples=80, deadline=None)
@given(block=BLOCKS, place=st.sampled_from(["jpeg", "jpeg xmp", "png", "late png", "profile", "webp"]))
def test_any_block_is_read_or_says_nothing(standalone: dict, block: bytes, place: str) -> None:
    data = {
        "jpeg": lambda: in_jpeg(exif_segment(block)),
        "jpeg xmp": lambda: in_jpeg(xmp_segment(block)),
        "png": lambda: in_png(chunk(b"eXIf", block)),
        "late png": lambda: in_png(chunk(b"eXIf", block), late=True),
        "profile": lambda: in_png(chunk(b"tEXt", RAW + block)),
        "webp": lambda: in_webp(exif=block),
    }[place]()
    said = orientation_of(data)
    assert said in range(1, 9)
    assert standalone["orientation_of"](data) == said
    assert decode_image(data).shape[:2] == image_size(data)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(CASES)),
    at=st.floats(0, 1),
    put=st.binary(min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_any_damage_gives_pixels_or_a_bad_sample(name: str, at: float, put: bytes, cut: float | None) -> None:
    data, _ = CASES[name]
    start = int(at * len(data))
    data = data[:start] + put + data[start + len(put) :]
    data = data if cut is None else data[: int(cut * len(data))]
    try:
        height, width = image_size(data)
        assert decode_image(data, max_pixels=10**6).shape == (height, width, 3)
    except BadSample:
        pass
