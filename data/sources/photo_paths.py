"""The photo of each cell of a table: as programs and people write paths, and wherever the photos lie.

Use: `paths, notes = find_photos(table, "image", images=None)`; paths[code] is the file of the cell number `code`
"""

import os
import re
from pathlib import Path

from data.errors import DataError
from data.names import are_plain_paths, on_disk
from data.tables import Table
from data.walk import IMAGE_SUFFIXES, is_hidden

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_CHECKED = 200  # cells of which the files are looked for at once
_MOST_FOLDERS = 2000  # that are searched for photos
_DEPTH = 4


def find_photos(table: Table, name: str, *, images: Path | None) -> tuple[list[str], list[str]]:
    """(path of each different cell of the column, notes). images: the folder that paths start from (None: the table's).

    A photo that is not found keeps the path that the cell says, so that its sample is named as bad. DataError when no
    photo is found at all, with where they lie instead if they lie below the table's folder."""
    column = table.columns[name]
    cells = [str(cell) if isinstance(cell, str | int) and not isinstance(cell, bool) else "" for cell in column.values]
    if "" in cells or any(not cell.strip() for cell in cells):
        row = min(column.first_row(code) for code, cell in enumerate(cells) if not cell.strip())
        raise DataError(f"{table.where(row)} names no photo")
    cells = [cell.removeprefix("file://") for cell in cells]
    if any("://" in cell for cell in cells) and any(map(_ADDRESS.match, cells)):
        code = next(code for code, cell in enumerate(cells) if _ADDRESS.match(cell))
        raise DataError(
            f"{table.where(column.first_row(code))} names a web address ({cells[code][:80]}); download the photos "
            "first (wget -x -i LIST keeps their folders) and name the files"
        )
    root = str(images or table.path.parent)
    finder = _Finder(root)
    checked = cells[:: max(1, len(cells) // _CHECKED)]
    found = sum(finder.find(cell) is not None for cell in checked)
    plain = are_plain_paths(cells) and not any(cell[0] in "~ " or cell[-1] == " " for cell in cells)
    if found == len(checked) and plain and not finder.searched:
        return [f"{root}/{cell}" for cell in cells], []
    if found or images is not None:
        paths = [finder.find(cell) for cell in cells]
        if any(paths):
            notes = (
                [f"{table.path}: its photos were found by their names without an extension"] if finder.searched else []
            )
            return [path or finder.plain(cell) for path, cell in zip(paths, cells, strict=True)], notes
    elif (elsewhere := _search(table.path.parent, checked[:3])) is not None:
        folder, cut = elsewhere
        finder = _Finder(str(folder))
        paths = [finder.find(_cut(cell, cut)) for cell in cells]
        notes = [f"{table.path}: its photos were found in {folder}; --images names another folder"]
        return [path or finder.plain(_cut(cell, cut)) for path, cell in zip(paths, cells, strict=True)], notes
    raise DataError(
        f"{table.path}: none of its {len(cells):,} photos is there, the first would be {finder.plain(cells[0])}; say "
        "where they lie with --images DIR"
    )


def names_photos(table: Table, name: str, *, images: Path | None) -> bool:
    """Whether the cells of a column, by a few of them, are names of photos that are there."""
    cells = [str(cell) for cell in table.columns[name].values[:3] if cell is not None and str(cell).strip()]
    root = images or table.path.parent
    finder = _Finder(str(root))
    return bool(cells) and (all(finder.find(cell) is not None for cell in cells) or _search(root, cells) is not None)


class _Finder:
    """Looks for photos below a folder; `searched` says whether one was found under another name than its cell's."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.searched = False
        self._listings: dict[str, dict[str, list[str]]] = {}

    def plain(self, cell: str) -> str:
        return os.path.join(self.root, cell.strip())

    def find(self, cell: str) -> str | None:
        spellings = dict.fromkeys((cell.strip(), cell, cell.replace("\\", "/").strip(), on_disk(cell)))
        if cell.startswith("~"):
            spellings[os.path.expanduser(cell.strip())] = None
        for name in spellings:
            path = os.path.join(self.root, name)
            if os.path.isfile(path):
                return os.path.normpath(path)  # two ways to write a path are one photo
        return self._without_extension(cell.replace("\\", "/").strip())

    def _without_extension(self, cell: str) -> str | None:
        """The one photo that is called like the cell, whatever the case of its name and its extension."""
        folder, name = os.path.split(os.path.join(self.root, cell))
        listing = self._listing(folder)
        found = listing.get(name.lower(), [])
        if len(found) > 1:
            raise DataError(f"{os.path.join(folder, name)}: is it {' or '.join(sorted(found))}? Name it in full")
        if not found:
            return None
        self.searched = True
        return os.path.join(folder, found[0])

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """name in lower case, with and without its extension -> names of photos."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                names = []
            for name in names:
                stem, extension = os.path.splitext(name)
                if extension.lower() in IMAGE_SUFFIXES and not is_hidden(name):
                    for key in {name.lower(), stem.lower()}:
                        listing.setdefault(key, []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]


def _cut(cell: str, parts: int) -> str:
    """A path less its first parts, so that those of another machine are found here."""
    return "/".join([part for part in re.split(r"[/\\]", cell.strip()) if part][parts:])


def _search(root: Path, cells: list[str]) -> tuple[Path, int] | None:
    """A folder in `root`, nearest first, where all cells are found without so many of their first parts."""
    depth = min(len([part for part in re.split(r"[/\\]", cell.strip()) if part]) for cell in cells)
    folders, number = [root], 0
    while number < len(folders) < _MOST_FOLDERS:
        folder = folders[number]
        number += 1
        if len(folder.relative_to(root).parts) < _DEPTH:
            try:
                folders += sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
            except OSError:
                continue
    for cut in range(depth):
        for folder in folders:
            finder = _Finder(str(folder))
            if all(finder.find(_cut(cell, cut)) is not None for cell in cells):
                return folder, cut
    return None
