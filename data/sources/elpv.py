"""Importer for ELPV (Deitsch et al. 2019): 2,624 photos of solar cells, from the PyPI package `elpv-dataset`.

Use: `source = read_elpv(None)` for the installed package, or the path of a folder with labels.csv

Experts gave each cell a defect probability. Tasks: `level`, the four probabilities (1508, 295, 106 and 715 cells);
`type`, mono- or polycrystalline; `functional`, which calls a cell defective when the probability is above one half:
1,803 functional (0 and 1/3), 821 defective, so always saying functional is right for 0.687 of them.
"""

import importlib.util
from pathlib import Path

from data.errors import DataError
from data.sources.source import Record, Source, make_keys

TASKS = {
    "level": ("none", "possible", "likely", "certain"),  # defect probability 0, 1/3, 2/3, 1
    "type": ("mono", "poly"),
    "functional": ("functional", "defective"),
}


def read_elpv(path: Path | None) -> Source:
    """`path` is a folder with labels.csv and images/ (None: the installed package). DataError names a bad line."""
    folder = path if path is not None else _installed_folder()
    listing = folder / "labels.csv"
    if not listing.is_file():
        raise DataError(f"{listing}: no such file (install the package with: pip install elpv-dataset)")
    names, labels = [], []
    for number, line in enumerate(listing.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            name, probability, kind = line.split()
            level = round(float(probability) * 3)
            if abs(level / 3 - float(probability)) > 0.01 or not 0 <= level <= 3:
                raise ValueError(f"defect probability {probability} is none of 0, 1/3, 2/3, 1")
            labels.append((level, TASKS["type"].index(kind), int(level >= 2)))
        except ValueError as error:
            raise DataError(f"{listing}: line {number} is not 'image probability mono|poly' ({error})") from error
        names.append(name)
    if not names:
        raise DataError(f"{listing}: lists no images")
    keys = make_keys(names)
    records = [Record(key, label, "", str(folder / name)) for key, label, name in zip(keys, labels, names, strict=True)]
    return Source(dict(TASKS), records)


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the package elpv-dataset is not installed: pip install elpv-dataset, or give elpv:FOLDER")
    return Path(spec.submodule_search_locations[0]) / "data"
