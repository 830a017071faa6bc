"""What pydantic found wrong, in a line: `first_wrong_value(error)` is "bytes: should be greater than 0, not 0"."""

from pydantic import ValidationError

_LONGEST = 60  # characters of a value that is quoted


def first_wrong_value(error: ValidationError) -> str:
    """The first key that is wrong, what it should be and what it is."""
    item = error.errors()[0]
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {item['msg'].removeprefix('Input ')}, not {repr(item['input'])[:_LONGEST]}"
