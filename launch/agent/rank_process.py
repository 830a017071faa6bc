"""One rank as a child process: it dies with its worker, its output goes to a file of its own, without secrets.

process = RankProcess(command, environment, rank=3, log=path, headline="start 1", on_end=report)
process.signal(signal.SIGUSR1)
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_DIE_WITH_PARENT = str(Path(__file__).with_name("die_with_parent.py"))
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8  # characters; hiding shorter values would hide half of every line
_KEPT_LINES = 100  # the stacks of all threads
_DRAIN_SECONDS = 2.0
_JOB_SECRETS = ("SLIMHEADS_SECRET", "SLIMHEADS_SECRET_FILE")
_LEAST_GLOO_SECONDS = 60  # a slow folder may delay one rank's start
_PAIRS_PER_SECOND = 200  # of ranks; a fifth of what the rendezvous manages, see docs/SCALING.md


class RankProcess:
    """Starts at once. Everything that the rank started ends with it.

    The console gets what rank 0 prints and, of every other rank that fails, the last lines of its stderr with its rank.
    on_end(code) is called from a thread of its own; code is negative for a signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        rank: int,
        log: Path,
        headline: str,
        on_end: Callable[[int], None],
    ) -> None:
        self.rank, self.runs = rank, True
        self._secrets = secret_values(environment)
        self._last_lines: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self._log = log.open("ab", buffering=0)
        self._log.write(f"=== {headline}\n".encode())
        self._on_end = on_end
        die_with_parent = [sys.executable, "-I", "-S", _DIE_WITH_PARENT, str(os.getpid())]
        self._process = subprocess.Popen(
            [*die_with_parent, *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pumps = [
            threading.Thread(target=self._pump, args=(self._process.stdout, sys.stdout.buffer), daemon=True),
            threading.Thread(target=self._pump, args=(self._process.stderr, sys.stderr.buffer), daemon=True),
        ]
        for pump in self._pumps:
            pump.start()
        threading.Thread(target=self._wait, name=f"rank {rank}", daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """With everything that it started."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        # Not reaped yet: as long as it is not, no other process group can have its number.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        self.runs = False
        code = self._process.wait()
        for pump in self._pumps:
            pump.join(_DRAIN_SECONDS)
        if not any(pump.is_alive() for pump in self._pumps):
            self._log.close()
        if code != 0 and self.rank != 0:
            for line in self._last_lines:
                _write(sys.stderr.buffer, f"[rank {self.rank}] ".encode() + line)
        self._on_end(code)

    def _pump(self, pipe: IO[bytes], console: IO[bytes]) -> None:
        is_stderr = console is sys.stderr.buffer
        for line in pipe:
            for secret in self._secrets:
                line = line.replace(secret, b"***")
            with contextlib.suppress(OSError):  # a full disk must not stop the rank
                self._log.write(line)
            if self.rank == 0:
                _write(console, line)
            elif is_stderr:
                self._last_lines.append(line)


def secret_values(environment: Mapping[str, str]) -> list[bytes]:
    """What must not appear in a log: the values of variables whose names say so."""
    return [
        value.encode()
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]


def _write(console: IO[bytes], line: bytes) -> None:
    with contextlib.suppress(OSError):
        console.write(line)
        console.flush()


def rank_variables(
    inherited: Mapping[str, str], slot: Mapping[str, Any], *, rendezvous: tuple[str, int, str], interface: str
) -> dict[str, str]:
    """The environment of a rank. slot: the fields of a Slot. rendezvous: (address, port, secret) of Horovod's server.

    A Gloo timeout that the user set stays; the job's own secret does not.
    """
    address, port, secret = rendezvous
    seconds = _LEAST_GLOO_SECONDS + slot["size"] ** 2 // _PAIRS_PER_SECOND
    return {
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(seconds),
        **{name: value for name, value in inherited.items() if name not in _JOB_SECRETS},
        "HOROVOD_RANK": str(slot["rank"]),
        "HOROVOD_SIZE": str(slot["size"]),
        "HOROVOD_LOCAL_RANK": str(slot["local_rank"]),
        "HOROVOD_LOCAL_SIZE": str(slot["local_size"]),
        "HOROVOD_CROSS_RANK": str(slot["cross_rank"]),
        "HOROVOD_CROSS_SIZE": str(slot["cross_size"]),
        "HOROVOD_HOSTNAME": slot["hostname"],
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_RENDEZVOUS_SECRET": secret,
        "HOROVOD_GLOO_IFACE": interface,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "NCCL_SOCKET_IFNAME": interface,
        "PYTHONUNBUFFERED": "1",
        # The stacks of a rank that is ended because it is stuck.
        "PYTHONFAULTHANDLER": "1",
    }
