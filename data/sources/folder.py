"""Importer for class folders: PATH/<class>/**/*.jpg, or PATH/train/<class>/..., PATH/val/<class>/... with splits.

Use: `source = read_folder(Path("photos"), task="species")`
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from data.errors import DataError
from data.index.labels import order_classes
from data.names import as_text, class_name
from data.sources.cells import one_spelling
from data.sources.source import SPLIT_NAMES, Record, Source, make_keys
from data.walk import IMAGE_SUFFIXES, Found, visible_folders, walk


def read_folder(path: Path, *, task: str, case: str | None = None) -> Source:
    """One class per folder, named like it; images may lie deeper. When every folder in `path` is named like a split
    (train, val, test, ...), class folders are looked for inside those. case: see `one_spelling`. DataError when there
    are no images."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    folders, passed = visible_folders(path)
    if not folders:
        raise DataError(f"{path}: holds no class folders (expected {path}/<class>/<image>.jpg)")
    published = all(folder.name.lower() in SPLIT_NAMES for folder in folders)
    spellings: dict[str, set[str]] = {}  # class -> names of its folders
    labelled: list[tuple[str, str, str]] = []  # split, class, image
    for split, root in (
        [(SPLIT_NAMES[folder.name.lower()], folder) for folder in folders] if published else [("", path)]
    ):
        classes, beside = visible_folders(root)
        if published:
            passed.add(beside, at=root.name)
        for folder in classes:
            name, below = class_name(folder.name), walk(folder, within=path)
            place = folder.relative_to(path).as_posix()
            spellings.setdefault(name, set()).add(folder.name)
            labelled += [(split, name, f"{place}/{image}") for image in below.images]
            passed.add(replace(below, images=[]), at=place)
    if not labelled:
        raise DataError(f"{path}: holds no images ({', '.join(IMAGE_SUFFIXES)}) in class folders")
    merged = one_spelling(Counter(name for _, name, _ in labelled), case=case, where=str(path))
    labelled = [(split, merged.get(name, name), image) for split, name, image in labelled]
    names = order_classes(spellings.keys() - merged.keys())
    number = {name: position for position, name in enumerate(names)}
    keys = make_keys([image for _, _, image in labelled])
    records = [
        Record(key, (number[name],), split, str(path / image))
        for key, (split, name, image) in zip(keys, labelled, strict=True)
    ]
    return Source({task: names}, records, _notes(passed, spellings))


def _notes(passed: Found, spellings: dict[str, set[str]]) -> tuple[str, ...]:
    loose = passed.images
    outside = [f"{len(loose)} images lie in no class folder, as {as_text(loose[0])}"] if loose else []
    same = [
        f"{len(folders)} folders have one name in two spellings and are one class: {name}"
        for name, folders in spellings.items()
        if len(folders) > 1
    ]
    return (*passed.notes(), *outside, *same)
