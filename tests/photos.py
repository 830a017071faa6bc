"""Small real picture files and tars for the tests of the data package."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def jpeg(seed: int, height: int = 24, width: int = 32, **options: object) -> bytes:
    """A JPEG whose smooth content depends on `seed`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, height, width)).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def pixels(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3], smooth, so that JPEG keeps it well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def natural_photo(seed: int, height: int, width: int) -> Image.Image:
    """As photos are: things with sharp edges before one another, and detail at every scale, the finer the fainter."""
    generator = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, dtype=np.uint8)
    for turn in range(60):
        centre = [int(share * length) for share, length in zip(generator.uniform(size=2), (width, height), strict=True)]
        axes = [int(share * min(height, width)) for share in generator.uniform(0.01, 0.2, 2)]
        cv2.ellipse(picture, centre, axes, 7 * turn, 0, 360, generator.integers(30, 226, 3).tolist(), -1)
    cells = 2
    while cells < min(1024, max(height, width)):
        detail = generator.normal(0, 45 * cells**-0.5, (cells, cells, 3)).astype(np.float32)
        picture = cv2.add(picture, cv2.resize(detail, (width, height)), dtype=cv2.CV_8U)
        cells *= 2
    return Image.fromarray(picture)


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A plain tar with the members in the order given."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def class_folders(root: Path, *, classes: int = 3, per_class: int = 8) -> Path:
    """root/<class>/<number>.jpg; returns root."""
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(per_class):
            (folder / f"{number:03d}.jpg").write_bytes(jpeg(100 * label + number))
    return root
