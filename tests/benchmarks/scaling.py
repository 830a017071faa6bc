"""What the start of N ranks costs, on one host: requests to the rendezvous, seconds, open files; for docs/SCALING.md.

The numbers at 2, 4 and 8 ranks show how each grows; the seconds are those of ranks that share this machine's cores.
"""

import os
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from launch.coordinator import rendezvous as guarded
from launch.coordinator.rendezvous import Rendezvous
from launch.coordinator.slots import assign
from tests.benchmarks.figure import Figure

_REPOSITORY = Path(__file__).resolve().parents[2]
_CLIENTS = 8
_RANK = """
import os, sys, time
from train.distributed.comm import start
print("up", flush=True); sys.stdin.readline()
import horovod.torch
before = len(os.listdir("/proc/self/fd"))
begin = time.monotonic()
comm = start()
print(time.monotonic() - begin, len(os.listdir("/proc/self/fd")) - before, flush=True)
sys.stdin.readline()
"""


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    figures = []
    for size in (2, 4) if quick else (2, 4, 8):
        requests, seconds, files = _start_ranks(size)
        note = f"{size} ranks on {len(os.sched_getaffinity(0))} cores"
        figures += [
            Figure(f"rendezvous_requests_{size}", float(requests), note=f"{note}; polls included"),
            Figure(f"rendezvous_seconds_{size}", seconds, note=note),
            Figure(f"rank_open_files_{size}", float(files), note=f"{note}; opened by Horovod in one rank"),
        ]
    rate = _requests_per_second(200 if quick else 2000)
    figures.append(Figure("rendezvous_requests_per_second", rate, note=f"GET over loopback, {_CLIENTS} clients"))
    return figures


def _start_ranks(size: int) -> tuple[int, float, int]:
    """(requests to the rendezvous, seconds of the slowest rank, most files that Horovod opened in a rank)."""
    (slots,) = assign([("host", size)])
    counter = _Counter()
    with Rendezvous("127.0.0.1", slots, hosts={"127.0.0.1"}) as rendezvous, counter:
        ranks = []
        for slot in slots:
            variables = {
                **{f"HOROVOD_{name.upper()}": str(value) for name, value in vars(slot).items()},
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
                "HOROVOD_GLOO_RENDEZVOUS_PORT": str(rendezvous.port),
                "HOROVOD_GLOO_RENDEZVOUS_SECRET": rendezvous.secret,
                "HOROVOD_GLOO_IFACE": "lo",
                "HOROVOD_CONTROLLER": "gloo",
                "HOROVOD_CPU_OPERATIONS": "gloo",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(_REPOSITORY),
            }
            pipe = subprocess.PIPE
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-c", _RANK], env={**os.environ, **variables}, stdin=pipe, stdout=pipe, text=True
                )
            )
        try:
            for rank in ranks:
                assert rank.stdout is not None
                rank.stdout.readline()
            for rank in ranks:
                _go_on(rank)
            told = [rank.stdout.readline().split() for rank in ranks if rank.stdout is not None]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    return counter.count, max(float(seconds) for seconds, _ in told), max(int(files) for _, files in told)


def _go_on(rank: subprocess.Popen[str]) -> None:
    assert rank.stdin is not None
    rank.stdin.write("\n")
    rank.stdin.flush()


class _Counter:
    """Counts the requests that the rendezvous looks at."""

    def __init__(self) -> None:
        self.count = 0
        self._check = guarded._Handler._allowed
        self._counting = threading.Lock()

    def __enter__(self) -> None:
        def counted(handler: guarded._Handler) -> bool:
            with self._counting:
                self.count += 1
            return self._check(handler)

        guarded._Handler._allowed = counted  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        guarded._Handler._allowed = self._check  # type: ignore[method-assign]


def _requests_per_second(count: int) -> float:
    (slots,) = assign([("host", 2)])
    with Rendezvous("127.0.0.1", slots, hosts={"127.0.0.1"}) as rendezvous:

        def ask() -> None:
            for _ in range(count // _CLIENTS):
                connection = HTTPConnection("127.0.0.1", rendezvous.port, timeout=30)
                connection.request("GET", "/global/0", headers={"Authorization": f"Bearer {rendezvous.secret}"})
                connection.getresponse().read()
                connection.close()

        clients = [threading.Thread(target=ask) for _ in range(_CLIENTS)]
        begin = time.monotonic()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return count / (time.monotonic() - begin)
