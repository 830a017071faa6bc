"""The two ways in which data can be wrong.

`raise DataError(...)` stops the run (exit code 65); `raise BadSample(...)` concerns one sample, which the caller
records by name before it goes on.
"""


class DataError(ValueError):
    """The data set as a whole cannot be used: broken index, missing shard, unknown class."""


class BadArgument(DataError):
    """An argument of a command is wrong (exit code 2)."""


class BadSample(Exception):
    """One sample cannot be used; `reason` says why in words fit for a report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
