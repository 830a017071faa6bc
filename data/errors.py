"""The ways in which data can be wrong, and the one in which its supply can end.

`raise DataError(...)` stops the run (exit code 65); `raise BadSample(...)` concerns one sample, which the caller
records by name before it goes on; LoaderLost ends the rank (exit code 77).
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


class LoaderLost(RuntimeError):
    """A loader process is gone, killed or out of memory; the message says what was seen of it."""
