"""Importer for class folders: PATH/<class>/**/*.jpg, or PATH/train/<class>/..., PATH/val/<class>/... with splits.

Use: `source = read_folder(Path("photos"), task="species")`
"""

import os
from pathlib import Path

from data.errors import DataError
from data.sources.source import SPLIT_NAMES, Record, Source, is_image_name, make_keys


def read_folder(path: Path, *, task: str) -> Source:
    """One class per folder, named like it; images may lie deeper. When every folder in `path` is named like a split
    (train, val, test, ...), class folders are looked for inside those. DataError when there are no images."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    folders = _visible_folders(path)
    if not folders:
        raise DataError(f"{path}: holds no class folders (expected {path}/<class>/<image>.jpg)")
    published = all(folder.name in SPLIT_NAMES for folder in folders)
    roots = [(SPLIT_NAMES[folder.name], folder) for folder in folders] if published else [("", path)]
    classes = tuple(sorted({folder.name for _, root in roots for folder in _visible_folders(root)}))
    found: list[tuple[str, str, Path]] = []  # split, class, image
    skipped: list[str] = []
    for split, root in roots:
        skipped += [str(file) for file in sorted(root.iterdir()) if file.is_file() and not file.name.startswith(".")]
        for folder in _visible_folders(root):
            images, others = _files_below(folder)
            found += [(split, folder.name, image) for image in images]
            skipped += map(str, others)
    if not found:
        raise DataError(f"{path}: holds no images (.jpg, .jpeg, .png, .webp, .bmp, .gif) in class folders")
    keys = make_keys([image.relative_to(path).as_posix() for _, _, image in found])
    number = {name: position for position, name in enumerate(classes)}
    records = [
        Record(key, (number[name],), split, image) for key, (split, name, image) in zip(keys, found, strict=True)
    ]
    notes = (f"{len(skipped)} files were skipped, as {skipped[0]}: no image, or in no class folder",) if skipped else ()
    return Source({task: classes}, records, notes)


def _visible_folders(path: Path) -> list[Path]:
    hidden = (".", "__MACOSX")
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(hidden))


def _files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """(images, other visible files), each sorted by path."""
    images, others = [], []
    for parent, _, names in os.walk(folder):
        for name in names:
            if is_image_name(name):
                images.append(Path(parent, name))
            elif not name.startswith("."):
                others.append(Path(parent, name))
    return sorted(images), sorted(others)
