"""Fonts for names in any script: a font of this machine that has the letters, else spellings that every font has.

text, font = legible("Größe", 12)
"""

import unicodedata
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# By file name, as Pillow looks for them where Linux, macOS and Windows keep fonts; the wide ones first.
_FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "segoeui.ttf",
    "arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "PingFang.ttc",
    "msgothic.ttc",
    "malgun.ttf",
)
_NO_LETTER = "\U0010ffff"


def legible(text: str, size: int) -> tuple[str, Font]:
    """The text, and the first font that has all of its letters. Where none has, Pillow's own font, with letters without
    their accents or as escapes."""
    text = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
    for font in _fonts(size):
        if all(_has(font, letter) for letter in text):
            return text, font
    own = ImageFont.load_default(size)
    return "".join(letter if letter.isascii() else _plain(letter) for letter in text), own


@cache
def _fonts(size: int) -> tuple[Font, ...]:
    """Pillow's own font, which knows little more than ASCII, and those of the machine."""
    found: list[Font] = [ImageFont.load_default(size)]
    for name in _FILES:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


@cache
def _has(font: Font, letter: str) -> bool:
    if letter.isascii():
        return True
    mask, missing = font.getmask(letter), font.getmask(_NO_LETTER)
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def _plain(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base or _escaped(letter)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
