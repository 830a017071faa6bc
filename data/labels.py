"""Labels as other tools write them, turned into class numbers; what is not a class is refused in words.

Use: `raw = parse_json_labels(b'{"age": "young", "gender": 1}'); names = infer_classes([raw]); to_numbers(raw, names)`
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from data.errors import BadSample, DataError

# A label as written: class number, class name, or None for missing.
RawLabel = int | str | None

MISSING = -1
_LARGEST_INFERRED = 100_000
_LONGEST_NAME = 80  # of a task: parts of file names are made of it
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, half characters, ends of lines and paragraphs
_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")


def parse_text_label(text: str) -> RawLabel:
    """One label from a `.cls` file or a CSV cell. Raises BadSample for lists and decimal numbers."""
    text = text.strip()
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        raise BadSample(f"label {text} is a decimal number: regression is not supported, only classes")
    if text[0] in "[{(":
        raise BadSample(f"label {text[:40]} is a list: several labels per task are not supported, only one class")
    return text


def parse_json_labels(data: bytes) -> dict[str, RawLabel]:
    """A flat object of task -> class name, class number or null. Raises BadSample for anything else."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BadSample(f"label file is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise BadSample("label file must be a JSON object of task -> class")
    return {task: check_json_label(task, value) for task, value in content.items()}


def check_json_label(task: str, value: object) -> RawLabel:
    """A JSON value as a label. Raises BadSample for floats, lists, objects and true/false."""
    if isinstance(value, bool):
        raise BadSample(f"task {task!r}: label {str(value).lower()} is neither a class name nor a class number")
    if isinstance(value, float):
        raise BadSample(f"task {task!r}: label {value} is a float: regression is not supported, only classes")
    if isinstance(value, list | dict):
        raise BadSample(f"task {task!r}: label is a {_KINDS[type(value)]}: several labels per task are not supported")
    assert value is None or isinstance(value, int | str)
    return value


_KINDS = {list: "list", dict: "nested object"}


def infer_classes(samples: Iterable[Mapping[str, RawLabel]]) -> dict[str, tuple[str, ...]]:
    """Class names per task from all labels: sorted names, or "0" to the largest number. Raises DataError."""
    seen: dict[str, set[int | str]] = {}
    for labels in samples:
        for task, value in labels.items():
            values = seen.setdefault(task, set())
            if value is not None:
                values.add(value)
    tasks = {task: _class_names(task, values) for task, values in seen.items() if values}
    if not tasks:
        raise DataError("no sample has a usable label; give .cls or .json members beside the images")
    return tasks


def _class_names(task: str, values: set[int | str]) -> tuple[str, ...]:
    numbers = {value for value in values if isinstance(value, int)}
    names = {value for value in values if isinstance(value, str)}
    if numbers and names:
        raise DataError(
            f"task {task!r} mixes class numbers ({min(numbers)}) and class names ({min(names)!r}); "
            "say which name has which number with --classes"
        )
    if names:
        return tuple(sorted(names))
    if max(numbers) > _LARGEST_INFERRED:
        raise DataError(f"task {task!r} has the class number {max(numbers)}; name its classes with --classes")
    return tuple(str(number) for number in range(max(max(numbers), 0) + 1))


def check_names(tasks: Mapping[str, Sequence[str]]) -> None:
    """Names of tasks and classes that tables and files could not hold are refused while they can still be changed. Any
    other name is served, by quoting it where need be. Raises DataError."""
    for task, classes in tasks.items():
        if not task.strip():
            raise DataError(f"a task is called {task!r}; give it a name")
        if unprintable := [character for character in task if unicodedata.category(character) in _UNPRINTABLE]:
            raise DataError(f"task {task!r}: its name holds {unprintable[0]!r}, which tables cannot show; rename it")
        if len(task) > _LONGEST_NAME:
            raise DataError(f"task {task[:40]!r}...: its name has {len(task)} characters; {_LONGEST_NAME} are allowed")
        if any(not name.strip() for name in classes):
            raise DataError(
                f"task {task!r} has a class without a name; a missing label is left out of the sample, or null"
            )


def to_numbers(labels: Mapping[str, RawLabel], positions: Mapping[str, Mapping[str, int]]) -> list[int]:
    """Class numbers in the order of `positions` (task -> class name -> number), -1 = missing. Raises BadSample."""
    return [_to_number(task, labels.get(task), numbers) for task, numbers in positions.items()]


def _to_number(task: str, value: RawLabel, numbers: Mapping[str, int]) -> int:
    if value is None:
        return MISSING
    if isinstance(value, str):
        if value not in numbers:
            raise BadSample(f"task {task!r}: unknown class {value!r}")
        return numbers[value]
    if value < 0:
        raise BadSample(f"task {task!r}: label {value} is negative; leave a missing label out instead")
    if value >= len(numbers):
        raise BadSample(f"task {task!r}: label {value} is out of range, there are {len(numbers)} classes")
    return value


def class_positions(tasks: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """task -> class name -> class number."""
    return {task: {name: number for number, name in enumerate(names)} for task, names in tasks.items()}
