"""Becomes a command that dies with the process that started it: `python die_with_parent.py PARENT_PID COMMAND...`.

A rank must not outlive its worker, not even one that was killed with SIGKILL. Only the kernel can see to that, and it
has to be asked from inside the new process; a fork hook in a worker with threads could hang.
"""

import ctypes
import os
import resource
import signal
import sys

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    # A stuck rank is ended with SIGABRT, for its stacks; its memory on the disk helps nobody.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
