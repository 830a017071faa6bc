"""How a picture lies in its file: 1 (upright) to 8, as EXIF numbers it.

    orientation_of(data)  # 6: to be turned clockwise by a quarter

One rule, for training, evaluation and the predict.py of an export, which is given this very text. These places are
asked in turn, the first block of each, and the first that says 1 to 8 counts:
  - EXIF: an APP1 segment of a JPEG before its pixels, the eXIf chunk of a PNG (behind its pixels, too), the EXIF chunk
    of a WebP that announces one. Entry 0x0112 of the first directory, the first of its whole numbers of any width.
  - the text "Raw profile type exif" of a PNG, in which some writers keep their EXIF as hexadecimal digits
  - XMP: `tiff:Orientation`, where those formats keep it
What cannot be read says nothing, and a picture of which nothing is said is upright. TIFF, AVIF and HEIC are turned by
their libraries, or as these say (data.images.pillow_image).
"""

import re
import struct
import zlib
from collections.abc import Iterator

_ENTRY = 0x0112
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # EXIF's numbers of types -> those of struct
_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))  # markers of a JPEG, the byte behind 0xFF
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TEXT_BYTES = 1 << 20  # a compressed text is read no further


def orientation_of(data: bytes) -> int:
    """1 to 8, from the bytes of a JPEG, PNG or WebP; 1 for all others."""
    blocks: dict[str, bytes] = {}
    for place, block in _blocks(data):
        blocks.setdefault(place, block)
    for place, read in (("exif", _exif), ("profile", _profile), ("xmp", _xmp)):
        if place in blocks and 1 <= (said := read(blocks[place])) <= 8:
            return said
    return 1


def _blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(exif, profile or xmp; its bytes), in the order of the file."""
    if data[:2] == b"\xff\xd8":
        return _of_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _of_png(data)
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        return _of_webp(data)
    return iter(())


def _exif(block: bytes) -> int:
    """0 where it says nothing."""
    tiff = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # some writers put it before themselves twice
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or tiff[2:4] not in (b"*\0", b"\0*"):
        return 0
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, directory)
        for start in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            tag, kind, count, place = struct.unpack_from(order + "HHII", tiff, start)
            if tag == _ENTRY and count >= 1 and kind in _WHOLE_NUMBERS:
                form = order + _WHOLE_NUMBERS[kind]
                fits = count * struct.calcsize(form) <= 4  # else they stand elsewhere
                return int(struct.unpack_from(form, tiff, start + 8 if fits else place)[0])
    except struct.error:  # cut short
        return 0
    return 0


def _profile(chunk: bytes) -> int:
    """Hexadecimal digits behind an empty line, the profile's name and its length."""
    try:
        return _exif(bytes.fromhex(b"".join(_text(chunk).split(b"\n")[3:]).decode("latin-1")))
    except ValueError:
        return 0


def _xmp(block: bytes) -> int:
    """Of a PNG, that is a chunk of text."""
    found = _IN_XMP.search(_text(block) if block[:4] in _TEXTS else block)
    return int(found[1]) if found else 0


def _of_jpeg(data: bytes) -> Iterator[tuple[str, bytes]]:
    position = 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in (0xDA, 0xD9):  # pixels follow, or nothing
            return
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        end = position + 2 + ((data[position + 2] << 8) | data[position + 3])
        if marker == 0xE1:
            if data.startswith(b"Exif\0\0", position + 4):
                yield "exif", data[position + 4 : end]
            elif data.startswith(_XMP_SEGMENT, position + 4):
                yield "xmp", data[position + 4 + len(_XMP_SEGMENT) : end]
        position = max(end, position + 4)


def _of_png(data: bytes) -> Iterator[tuple[str, bytes]]:
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if kind == b"eXIf":
            yield "exif", data[start : start + length]
        elif kind in _TEXTS:
            keyword, _, content = data[start : start + length].partition(b"\0")
            if place := {b"Raw profile type exif": "profile", b"XML:com.adobe.xmp": "xmp"}.get(keyword):
                yield place, kind + content
        position = start + length + 4


def _of_webp(data: bytes) -> Iterator[tuple[str, bytes]]:
    announced = data[20] if len(data) > 20 else 0
    position = 30
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        if kind == b"EXIF" and announced & 8:
            yield "exif", data[start : start + length]
        elif kind == b"XMP " and announced & 4:
            yield "xmp", data[start : start + length]
        position = start + length + length % 2


def _text(chunk: bytes) -> bytes:
    """Of a PNG's chunk: its kind and what stands behind its keyword."""
    kind, content = chunk[:4], chunk[4:]
    packed = kind == b"zTXt" or (kind == b"iTXt" and content[:1] == b"\1")
    if kind == b"zTXt":
        content = content[1:]  # how it is packed; there is one way
    elif kind == b"iTXt":
        content = content[2:].split(b"\0", 2)[-1]  # behind two flags, a language and the keyword in it
    if not packed:
        return content
    try:
        return zlib.decompressobj().decompress(content, _TEXT_BYTES)
    except zlib.error:
        return b""
