"""The tars that a command is given, and what to do with other kinds of files that data sets come in.

Use: `tars = find_tars([Path("shards/train")])`
"""

from collections.abc import Sequence
from pathlib import Path

from data.errors import DataError
from data.names import as_text
from data.shards.tar_scan import compressed_error, has_compressed_name
from data.walk import is_hidden

# Suffix -> what to type instead.
_BUILD = "take the photos out of it and build shards: python -m data.build --source folder:PHOTOS --out DIR"
_WAYS_OUT = {
    ".zip": "unpack it and build shards: python -m data.build --source folder:PHOTOS --out DIR",
    ".tfrecord": _BUILD,
    ".tfrecords": _BUILD,
    ".rec": _BUILD,
    ".parquet": _BUILD,
    ".arrow": _BUILD,
    ".beton": _BUILD,
    ".lmdb": _BUILD,
    ".mdb": _BUILD,
    ".h5": _BUILD,
    ".hdf5": _BUILD,
}


def find_tars(paths: Sequence[Path]) -> list[Path]:
    """The tars named or in the named folder; all must lie in one folder, which becomes the shard folder."""
    tars: list[Path] = []
    for path in paths:
        if path.is_dir():
            compressed = sorted(file for file in path.iterdir() if has_compressed_name(file))
            if compressed:
                raise compressed_error(str(compressed[0]), compressed[0].suffix.lstrip("."))
            inside = sorted(file for file in path.glob("*.tar") if not is_hidden(file.name))
            if hidden := [file for file in path.glob("*.tar") if is_hidden(file.name)]:
                print(f"note: {len(hidden)} hidden files are no shards (for example {hidden[0]})")
            if not inside:
                raise DataError(f"{path}: holds no .tar files{_other_kinds(path)}")
            tars += inside
        elif not path.is_file():
            raise DataError(f"{path}: no such file or folder (tars are indexed where they lie: on a local disk)")
        elif has_compressed_name(path):
            raise compressed_error(str(path), path.suffix.lstrip("."))
        elif path.suffix != ".tar":
            raise DataError(f"{path}: is not a .tar file{_way_out(path)}")
        else:
            tars.append(path)
    by_name: dict[str, Path] = {}
    for tar in tars:
        if as_text(tar.name) != tar.name:
            raise DataError(
                f"{as_text(str(tar))}: the name of a shard must be text, it is part of an address; rename it"
            )
        if tar.name in by_name:
            raise DataError(f"two shards are named {tar.name}: {by_name[tar.name]} and {tar}; give each its own name")
        by_name[tar.name] = tar
    folders = sorted({str(tar.parent) for tar in tars})
    if len(folders) > 1:
        raise DataError(f"the tars lie in several folders ({', '.join(folders)}); a split is one folder: move them")
    return sorted(tars, key=lambda tar: tar.name)


def _other_kinds(folder: Path) -> str:
    """About the first file of a kind that is known, or the folders with tars inside."""
    for file in sorted(folder.iterdir()):
        if way_out := _way_out(file):
            return f", but {as_text(file.name)}{way_out}"
    if deeper := sorted({str(tar.parent) for tar in folder.glob("*/*.tar")}):
        return f"; each split is indexed on its own: python -m data.index {as_text(deeper[0])}"
    return ""


def _way_out(file: Path) -> str:
    # `train.tfrecord-00000-of-00010` is a tfrecord, too.
    kind = next((suffix.partition("-")[0] for suffix in file.suffixes if suffix.partition("-")[0] in _WAYS_OUT), "")
    return f": {_WAYS_OUT[kind]}" if kind else ""
