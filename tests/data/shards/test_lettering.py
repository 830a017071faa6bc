"""Names in any script can be read on a contact sheet, with the fonts of this machine or without any."""

import os

import pytest
from PIL import ImageFont

from data.shards import lettering
from data.shards.lettering import legible

NAMES = ["plain", "Größe", "Žluťoučký", "Ελλάδα", "Дерево", "日本", "a\nb", "caf\udcff"]


def has_boxes(text: str, font: lettering.Font) -> bool:
    box = bytes(font.getmask(lettering._NO_LETTER))
    return any(bytes(font.getmask(letter)) == box for letter in text)


@pytest.mark.parametrize("name", NAMES)
def test_no_letter_is_a_box(name: str) -> None:
    text, font = legible(name, 12)
    assert not has_boxes(text, font)


def test_a_font_of_the_machine_keeps_the_letters() -> None:
    if len(lettering._fonts(12)) == 1:
        reason = "none of the fonts that are looked for is installed here"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    assert legible("Größe, Дерево", 12)[0] == "Größe, Дерево"


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("plain", "plain"),
        ("Größe", "Gro\\xdfe"),
        ("Žluťoučký", "Zlutoucky"),
        ("日本", "\\u65e5\\u672c"),
        ("a\nb", "a\\nb"),
        ("caf\udcff", "caf\\udcff"),
    ],
)
def test_without_fonts_letters_are_spelt(name: str, spelt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_fonts", lambda size: (ImageFont.load_default(size),))
    text, font = legible(name, 12)
    assert text == spelt
    assert not has_boxes(text, font)
