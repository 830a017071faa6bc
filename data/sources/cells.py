"""The cells of a column of labels, as tables write them: gaps, class names, and whole numbers with or without a point.

Use: `names, gaps = read_labels(["1.0", "", "NA"], [5, 1, 1], is_json=False, missing=MISSING_WORDS)` is ["1", "", ""]
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from data.errors import BadSample, DataError
from data.index.labels import check_json_label, parse_text_label

# How tools write a gap in a table.
MISSING_WORDS = ("nan", "NaN", "NA", "null")
EMPTY = "empty"
CASES = ("merge", "keep")
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_SIGNS = {"-1", "1"}


class BadCell(BadSample):
    """A cell that is no class; `place` is its number in the column."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place


def read_labels(
    cells: Sequence[object], counts: Sequence[int], *, is_json: bool, missing: Sequence[str]
) -> tuple[list[str], Counter[str]]:
    """The class name of every cell, "" where the label is missing, and how many rows have each kind of gap.

    cells: the different texts, or JSON values, of a column; counts: rows of each. missing: words that are no label. In
    a column of whole numbers alone 1.0 is the class 1, because tools turn a column of numbers with gaps into decimals;
    -1 and 1 alone are two classes. Raises BadCell for what is not one class.
    """
    gaps = [_gap(cell, missing) for cell in cells]
    whole = [_whole_number(cell, is_json=is_json) for cell, gap in zip(cells, gaps, strict=True) if not gap]
    numbers = iter(whole if all(whole) else [])
    names = []
    for place, (cell, gap) in enumerate(zip(cells, gaps, strict=True)):
        try:
            names.append("" if gap else next(numbers, "") or _class_name(cell, is_json=is_json))
        except BadSample as error:
            raise BadCell(place, error.reason) from error
    if set(filter(None, names)) != _SIGNS:
        for place, (cell, name) in enumerate(zip(cells, names, strict=True)):
            if re.fullmatch(r"-\d+", name) and not (is_json and isinstance(cell, str)):
                reason = (
                    f"{name} is negative; leave a missing label empty, or say --missing={name}; a class needs a name"
                )
                raise BadCell(place, reason)
    rows = Counter[str]()
    for gap, count in zip(gaps, counts, strict=True):
        rows[gap] += count
    del rows[""]
    return names, rows


def one_spelling(counts: Mapping[str, int], *, case: str | None, where: str) -> dict[str, str]:
    """name -> the name of its class, for names that differ only in case or blanks from others.

    counts: photos of each name. case: "merge" makes them one class, in the commonest spelling, "keep" leaves them.
    DataError where there are such names and `case` is None; where: which column or folder, for its message."""
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    merged = {}
    for names in alike.values():
        names.sort(key=lambda name: (-counts[name], name))
        if len(names) > 1 and case is None:
            listed = " and ".join(f"{name!r} ({counts[name]:,})" for name in names)
            raise DataError(
                f"{where}: {listed} differ only in case or blanks; --case merge makes them one class, --case keep "
                "leaves them apart"
            )
        if case == "merge":
            merged.update(dict.fromkeys(names[1:], names[0]))
    return merged


def _gap(cell: object, missing: Sequence[str]) -> str:
    """How the cell says that the label is missing; "" where it does not."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return EMPTY
    if isinstance(cell, float) and math.isnan(cell):
        return "NaN"
    text = str(cell).strip()
    return repr(text) if text in missing else ""


def _whole_number(cell: object, *, is_json: bool) -> str:
    """The digits of a whole number; "" for all else. Text in JSON is a name, whatever it looks like."""
    if is_json and isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, bool) or (is_json and not isinstance(cell, int)):
        return ""
    match = _WHOLE.fullmatch(str(cell).strip())
    return match[1] if match else ""


def _class_name(cell: object, *, is_json: bool) -> str:
    if isinstance(cell, bool):
        return str(cell).lower()
    if not is_json and _COMMA.fullmatch(text := str(cell).strip()):
        raise BadSample(f"label {text} is a decimal number: regression is not supported, only classes")
    label = check_json_label(cell) if is_json else parse_text_label(str(cell))
    return str(cell).strip() if isinstance(label, int) else str(label).strip()
