"""The exit codes of every command and of every rank, in one table.

sys.exit(ExitCode.BAD_CONFIG)
"""

from collections.abc import Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0
    BAD_CONFIG = 2
    BAD_DATA = 65
    EXPLODED = 70
    CANNOT_WRITE = 74
    PREEMPTED = 75
    STUCK = 76
    RANK_LOST = 77
    DIVERGED = 78


MEANING: Mapping[int, str] = {
    ExitCode.DONE: "done",
    ExitCode.BAD_CONFIG: "the config or an argument is wrong",
    ExitCode.BAD_DATA: "the data cannot be used",
    ExitCode.EXPLODED: "the numbers exploded (NaN or infinity); the same again would end the same, change the settings",
    ExitCode.CANNOT_WRITE: "a file cannot be written or read; free the disk and repeat the command, it continues",
    ExitCode.PREEMPTED: "stopped by a signal, saved; the same command continues",
    ExitCode.STUCK: "a step did not finish in time, see the stacks; the same command continues from its checkpoint",
    ExitCode.RANK_LOST: "another rank or a loader process was lost, often for lack of memory; "
    "the same command continues from the last checkpoint",
    ExitCode.DIVERGED: "the ranks no longer do the same work; compare code, versions and data of their hosts",
}

# The same command again would end the same, so that a launcher does not try.
HOPELESS = frozenset(
    {ExitCode.BAD_CONFIG, ExitCode.BAD_DATA, ExitCode.EXPLODED, ExitCode.CANNOT_WRITE, ExitCode.DIVERGED}
)
