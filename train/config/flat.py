"""Nested sections as dotted keys, as messages and the command line name them.

flat({"schedule": {"epochs": 3}})  # {"schedule.epochs": 3}
"""

from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Empty sections leave no key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
