"""Files that one process at a time may hold, so that two do not write the same folder.

with FileLock(folder / ".lock") as lock: lock.acquire() or sys.exit("another process is writing it")
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType


class FileLock:
    """Makes the file where it is missing. The lock ends with `close` or the process, however that ends; dropping the
    object does not end it.

    It is a POSIX lock (lockf), which belongs to this process alone. An flock would be shared by the processes that this
    one forks, which outlive a kill by seconds and would refuse the next call. The price: threads of one process do not
    exclude each other, and the process loses the lock as soon as it closes any other handle of the same file.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be opened for writing."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def acquire(self, *, wait: bool = False) -> bool:
        """Whether this process holds the lock now; with `wait`, after the other process has let go.

        Raises OSError where the file system has no locks.
        """
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):  # POSIX leaves it to the system which of the two says "held"
            return False
        return True

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of this file; asked without taking it, and without leave to write.

    Not for a file that this process itself has locked, see FileLock.
    """
    if not path.exists():
        return False
    question = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
    with path.open("rb") as file:
        kind, *_ = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, question.ljust(32, b"\0"))[:28])
    return bool(kind != fcntl.F_UNLCK)
