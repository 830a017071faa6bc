"""Killing a piece of work at every one of its file operations, in this process.

for place in every_crash(lambda: save(folder)): assert whole(folder), place
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_OPERATIONS = [
    *((os, name) for name in ("replace", "rename", "fsync", "rmdir", "unlink", "mkdir")),
    (tempfile, "mkdtemp"),
    (io, "open"),
]


class Killed(BaseException):
    """Nothing of the work runs on."""


def every_crash(work: Callable[[], object]) -> Iterator[str]:
    """Do the work again and again, killed before its first, second, ... file operation, until it is not killed any
    more; yields the operation after each kill. The work starts from whatever the last kill left."""
    for number in range(1, 1000):
        reached = _killed_at(number, work)
        if reached is None:
            return
        yield f"{reached} ({number})"
    raise AssertionError("the work never ends")


def _killed_at(number: int, work: Callable[[], object]) -> str | None:
    count, reached = 0, None

    def dying(name: str, given: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            nonlocal count, reached
            mode = options.get("mode", arguments[1] if len(arguments) > 1 else "r") if name == "open" else "w"
            if reached is None and "r" in str(mode) and "+" not in str(mode):
                return given(*arguments, **options)
            count += 1
            if count >= number:  # a dead process does not tidy up either
                reached = reached or name
                raise Killed
            return given(*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for module, name in _OPERATIONS:
            patch.setattr(module, name, dying(name, getattr(module, name)))
        with contextlib.suppress(Killed):
            work()
            assert reached is None, "the work went on after it was killed"
    return reached
