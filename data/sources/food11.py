"""Importer for food-11 (Singla et al. 2016): training/, validation/, evaluation/ with files named <class>_<id>.jpg.

Use: `source = read_food11(Path("food-11"), task="class")`

Course copies have other folder names (train, valid, test) and a test folder whose files have no class in their names.
"""

import re
from dataclasses import replace
from pathlib import Path

from data.errors import DataError
from data.index.labels import MISSING
from data.sources.source import SPLIT_NAMES, Record, Source, make_keys
from data.walk import Found, walk

CLASSES = (
    "bread",
    "dairy product",
    "dessert",
    "egg",
    "fried food",
    "meat",
    "noodles or pasta",
    "rice",
    "seafood",
    "soup",
    "vegetable or fruit",
)
_LABELLED = re.compile(r"(\d+)_[^/]*")


def read_food11(path: Path, *, task: str) -> Source:
    """All three splits, or those that are there. DataError for a file name that breaks its folder's pattern."""
    folders = [folder for name in SPLIT_NAMES if (folder := path / name).is_dir()]
    if not folders:
        raise DataError(f"{path}: has none of the food-11 folders training/, validation/, evaluation/")
    found: list[tuple[str, int, Path]] = []
    notes = []
    passed = Found()
    for folder in folders:
        split = SPLIT_NAMES[folder.name]
        below = walk(folder, within=path)
        images = [folder / image for image in below.images]
        passed.add(replace(below, images=[]), at=folder.name)
        labels = [_label(image) for image in images]
        if split == "test" and images and set(labels) == {MISSING}:
            notes.append(f"{folder}: its {len(images)} images have no class in their names: labels are missing")
        elif MISSING in labels:
            raise DataError(f"{images[labels.index(MISSING)]}: its name is not <class>_<id>.jpg")
        found += [(split, label, image) for label, image in zip(labels, images, strict=True)]
    if not found:
        raise DataError(f"{path}: its food-11 folders hold no images")
    keys = make_keys([image.relative_to(path).as_posix() for _, _, image in found])
    records = [Record(key, (label,), split, str(image)) for key, (split, label, image) in zip(keys, found, strict=True)]
    return Source({task: CLASSES}, records, (*notes, *passed.notes()))


def _label(image: Path) -> int:
    match = _LABELLED.fullmatch(image.stem)
    if match is None:
        return MISSING
    label = int(match[1])
    if label >= len(CLASSES):
        raise DataError(f"{image}: class {label} is out of range, food-11 has classes 0 to {len(CLASSES) - 1}")
    return label
