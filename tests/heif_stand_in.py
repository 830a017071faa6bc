"""In place of the package pillow-heif, which tests do not install: a HEIC here is a box of one and a PNG behind it.

install_stand_in(monkeypatch); decode_image(heic(png))
"""

import io
import struct
import sys
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageFile

from data.images import pillow_image


def heic(content: bytes, brand: bytes = b"heic", others: bytes = b"mif1heic") -> bytes:
    box = b"ftyp" + brand + bytes(4) + others
    return struct.pack(">I", 4 + len(box)) + box + content


class StandIn(ImageFile.ImageFile):
    """Gives upright pixels and an orientation that is to be left alone, as the package does, which has turned them."""

    format = "HEIF"

    def _open(self) -> None:
        data = self.fp.read()  # type: ignore[union-attr]
        with Image.open(io.BytesIO(data[int.from_bytes(data[:4], "big") :])) as inside:
            inside.load()
            self._mode, self._size, self.im = inside.mode, inside.size, inside.im.copy()
        exif = Image.Exif()
        exif[0x0112] = 6
        self.info["exif"] = exif.tobytes()

    def load(self) -> None:
        return None


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", StandIn, lambda start: start[4:8] == b"ftyp")
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(pillow_image, "_has_heif", lambda: True)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
