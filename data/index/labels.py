"""Labels as other tools write them, turned into class numbers; what is not a class is refused in words.

Use: `raw = parse_json_labels(b'{"age": "young", "gender": 1}'); names = infer_classes([raw]); to_numbers(raw, names)`
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.errors import BadSample, DataError
from data.names import class_name


@dataclass(frozen=True, slots=True)
class NoClass:
    """A value that is no class: an error if its field is a task, and else nobody's concern."""

    reason: str


# A label as written: class number, class name, None for missing, or what cannot be one.
RawLabel = int | str | None | NoClass

MISSING = -1
MINUS_PLUS = ("-1", "1")  # the two classes of a task that is labelled with nothing else
_LARGEST_INFERRED = 100_000
_LONGEST_NAME = 80  # of a task: parts of file names are made of it
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, half characters, ends of lines and paragraphs
_SHOWN = 5
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their numbers: by value where all are numbers, else as text."""
    names = list(names)
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def missing_names(wanted: Iterable[str], known: Iterable[str]) -> str:
    """The names that are not known, as a list for people, of many the first; "" where all are."""
    there = set(known)
    missing = [name for name in wanted if name not in there]
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return ", ".join(map(repr, missing[:_SHOWN])) + more


def parse_text_label(text: str) -> int | str | None:
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
    return class_name(text)


def parse_json_labels(data: bytes) -> dict[str, RawLabel]:
    """A flat object of task -> class name, class number or null; fields of other kinds become NoClass. Raises BadSample
    for anything else."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BadSample(f"label file is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise BadSample("label file must be a JSON object of task -> class")
    labels: dict[str, RawLabel] = {}
    for task, value in content.items():
        try:
            labels[class_name(task)] = check_json_label(value)
        except BadSample as error:
            labels[class_name(task)] = NoClass(f"task {task!r}: {error.reason}")
    if len(labels) < len(content):
        raise BadSample(f"label file has two fields of one name ({', '.join(content)})")
    return labels


def check_json_label(value: object) -> int | str | None:
    """A JSON value as a label; true and false are the classes "true" and "false", and not a number (NaN, as pandas
    writes a gap) is a missing one. Raises BadSample for other floats, lists and objects."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float):
        raise BadSample(f"label {value} is a float: regression is not supported, only classes")
    if isinstance(value, list | dict):
        raise BadSample(f"label is a {_KINDS[type(value)]}: several labels per task are not supported")
    assert value is None or isinstance(value, int | str)
    return class_name(value) if isinstance(value, str) else value


_KINDS = {list: "list", dict: "nested object"}


def infer_classes(samples: Iterable[Mapping[str, RawLabel]]) -> dict[str, tuple[str, ...]]:
    """Class names per task from all labels: names in order, or "0" to the largest number, or "-1" and "1" where these
    two are all. A field that holds no class in any sample is no task. Raises DataError."""
    seen: dict[str, set[int | str]] = {}
    for labels in samples:
        for task, value in labels.items():
            values = seen.setdefault(task, set())
            if value is not None and not isinstance(value, NoClass):
                values.add(value)
    return {task: _class_names(task, values) for task, values in seen.items() if values}


def _class_names(task: str, values: set[int | str]) -> tuple[str, ...]:
    numbers = {value for value in values if isinstance(value, int)}
    names = {value for value in values if isinstance(value, str)}
    if numbers and names:
        raise DataError(
            f"task {task!r} mixes class numbers ({min(numbers)}) and class names ({min(names)!r}); "
            "say which name has which number with --classes"
        )
    if names:
        return order_classes(names)
    if numbers == {-1, 1}:
        return MINUS_PLUS
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
    if isinstance(value, NoClass):
        raise BadSample(value.reason)
    if isinstance(value, str):
        if value not in numbers:
            raise BadSample(f"task {task!r}: unknown class {value!r}")
        return numbers[value]
    if tuple(numbers) == MINUS_PLUS:
        if str(value) not in numbers:
            raise BadSample(f"task {task!r}: label {value} is neither -1 nor 1")
        return numbers[str(value)]
    if value < 0:
        raise BadSample(f"task {task!r}: label {value} is negative; leave a missing label out instead")
    if value >= len(numbers):
        raise BadSample(f"task {task!r}: label {value} is out of range, there are {len(numbers)} classes")
    return value


def class_positions(tasks: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """task -> class name -> class number."""
    return {task: {class_name(name): number for number, name in enumerate(names)} for task, names in tasks.items()}
