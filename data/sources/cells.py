"""The cells of a column of labels, as tables write them: gaps, class names, and whole numbers with or without a point.

Use: `names, gaps = read_labels(["1.0", "", "NA"], is_json=False, missing=MISSING_WORDS)` is ["1", "", ""]
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from data.errors import BadSample
from data.index.labels import check_json_label, parse_text_label

# How tools write a gap in a table.
MISSING_WORDS = ("nan", "NaN", "NA", "null")
EMPTY = "empty"
_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")


class BadCell(BadSample):
    """A cell that is no class; `place` is its number in the column."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place


def read_labels(cells: Sequence[object], *, is_json: bool, missing: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """The class name of every cell, "" where the label is missing, and how often each kind of gap was met.

    cells: texts, or JSON values. missing: words that are no label. In a column of whole numbers alone 1.0 is the class
    1, because tools turn a column of numbers with gaps into decimals. Raises BadCell for what is not one class.
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
        if not gap and re.fullmatch(r"-\d+", names[-1]) and not (is_json and isinstance(cell, str)):
            reason = f"{names[-1]} is negative; leave a missing label empty, or say --missing={names[-1]}"
            raise BadCell(place, reason)
    return names, Counter(filter(None, gaps))


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
    label = check_json_label(cell) if is_json else parse_text_label(str(cell))
    return str(cell).strip() if isinstance(label, int) else str(label).strip()
