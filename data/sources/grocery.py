"""Importer for the Grocery Store data set (Klasson et al. 2019): train.txt, val.txt, test.txt and classes.csv.

Use: `source = read_grocery(Path("GroceryStoreDataset/dataset"))`

Three tasks: `super` (the folder: fruit, packages, vegetables), `coarse` and `fine`, named by classes.csv.
"""

import csv
from pathlib import Path

from data.errors import DataError
from data.sources.source import Record, Source, make_keys

SPLITS = ("train", "val", "test")
SUPER_CLASSES = ("Fruit", "Packages", "Vegetables")


def read_grocery(path: Path) -> Source:
    """The splits that are there. DataError names the line of a listing that does not fit classes.csv."""
    fine, coarse = _read_classes(path / "classes.csv")
    listings = [(split, path / f"{split}.txt") for split in SPLITS if (path / f"{split}.txt").is_file()]
    if not listings:
        raise DataError(f"{path}: has none of train.txt, val.txt, test.txt")
    names, labels, splits = [], [], []
    for split, listing in listings:
        for number, line in enumerate(listing.read_text().splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{listing}: line {number}"
            try:
                name, fine_text, coarse_text = (cell.strip() for cell in line.split(","))
                fine_id, coarse_id = int(fine_text), int(coarse_text)
            except ValueError as error:
                raise DataError(f"{where} is not 'image, fine id, coarse id'") from error
            folder = Path(name).parts[1] if len(Path(name).parts) > 1 else ""
            if folder not in SUPER_CLASSES:
                raise DataError(f"{where}: {name} does not lie in one of {', '.join(SUPER_CLASSES)}")
            if not 0 <= fine_id < len(fine) or not 0 <= coarse_id < len(coarse):
                raise DataError(f"{where}: ids {fine_id}, {coarse_id} are not in classes.csv")
            names.append(name)
            labels.append((SUPER_CLASSES.index(folder), coarse_id, fine_id))
            splits.append(split)
    if not names:
        raise DataError(f"{path}: its listings name no images")
    records = [
        Record(key, label, split, str(path / name))
        for key, label, split, name in zip(make_keys(names), labels, splits, names, strict=True)
    ]
    return Source({"super": SUPER_CLASSES, "coarse": coarse, "fine": fine}, records)


def _read_classes(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(fine, coarse) class names by id."""
    fine: dict[int, str] = {}
    coarse: dict[int, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                fine[int(row["Class ID (int)"])] = row["Class Name (str)"]
                coarse[int(row["Coarse Class ID (int)"])] = row["Coarse Class Name (str)"]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: is not the class list of the Grocery Store data set ({error})") from error
    for ids in (fine, coarse):
        if sorted(ids) != list(range(len(ids))):
            raise DataError(f"{path}: class ids are not 0 to {len(ids) - 1}")
    return tuple(fine[number] for number in range(len(fine))), tuple(coarse[number] for number in range(len(coarse)))
