"""Two Horovod ranks against two torch DDP ranks, Gloo on loopback, same model and batch, one thread a rank.

Pairs of processes live at the same time: ours, DDP, and for the record ours with a single bucket and Horovod's own
DistributedOptimizer with its default settings. They take turns, a few steps each; whoever waits is stopped (SIGSTOP),
because Horovod's background thread polls even when there is nothing to do and would slow the others. A pair's time is
that of its slower rank.
"""

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio
from tests.benchmarks.rank import BATCH, KINDS, SIZE

_REPOSITORY = Path(__file__).resolve().parents[2]
_STEPS = 4  # in a row
_START_SECONDS = 120
_RATIOS = (  # figure, way, target
    ("step_vs_ddp", "DDP", 1.05),
    ("step_vs_ddp_without_buffers", "DDP without buffers", None),
    ("step_vs_one_bucket", "one bucket", None),
    ("step_vs_distributed_optimizer", "DistributedOptimizer", None),
)


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    rounds = 3 if quick else 40
    with Pairs(folder) as pairs:
        seconds = {way: np.empty(rounds) for way in pairs.ways}
        for number in range(rounds):
            order = pairs.ways[number % len(pairs.ways) :] + pairs.ways[: number % len(pairs.ways)]
            for way in order:
                seconds[way][number] = pairs.seconds_per_step(way)
    figures = []
    for name, way, target in _RATIOS:
        ratio, interval = median_ratio(seconds["ours"], seconds[way])
        note = f"{np.median(seconds['ours']) * 1e3:.1f} against {np.median(seconds[way]) * 1e3:.1f} ms ({way})"
        if target is not None:
            note += f"; {SIZE} px, {BATCH} samples a rank, {rounds} pairs of {_STEPS} steps"
        figures.append(Figure(name, ratio, target=target, interval=interval, note=note))
    return figures


class Pairs:
    """The running pairs, all stopped but the one that works."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._launchers: list[subprocess.Popen[bytes]] = []
        self._pids: dict[str, list[int]] = {}
        self._ranks: dict[str, list[Connection]] = {}
        self._kind_of: dict[str, str] = {}

    @property
    def ways(self) -> list[str]:
        return list(self._kind_of)

    def __enter__(self) -> "Pairs":
        try:
            for kind in KINDS:
                self._start(kind)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def seconds_per_step(self, way: str) -> float:
        """Wall-clock seconds of the slower rank."""
        kind = self._kind_of[way]
        self._signal(kind, signal.SIGCONT)
        for rank in self._ranks[kind]:
            rank.send((way, _STEPS))
        try:
            seconds = max(rank.recv() for rank in self._ranks[kind])
        except EOFError as error:
            raise RuntimeError(f"a {kind} rank died:\n{self._log_of(kind)}") from error
        self._signal(kind, signal.SIGSTOP)
        return seconds

    def _start(self, kind: str) -> None:
        address = str(self._folder / f"{kind}.socket")
        worker = [sys.executable, "-m", "tests.benchmarks.rank", kind, address]
        environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), "OMP_NUM_THREADS": "1"}
        # A stopped pair must not find its neighbour late when it goes on.
        environment["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "600"
        if kind == "ddp":
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2"}
            commands = [(worker, {**environment, "RANK": str(rank)}) for rank in range(2)]
        else:
            horovodrun = str(Path(sys.executable).with_name("horovodrun"))
            commands = [([horovodrun, "-np", "2", "--gloo", "--network-interface", "lo", *worker], environment)]
        with socket.socket(socket.AF_UNIX) as listener, (self._folder / f"{kind}.log").open("wb") as log:
            listener.bind(address)
            listener.listen()
            listener.settimeout(_START_SECONDS)
            for command, variables in commands:
                self._launchers.append(
                    subprocess.Popen(command, env=variables, cwd=_REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
                )
            self._ranks[kind], self._pids[kind] = [], []
            for _ in range(2):
                rank = self._accept(listener, kind)
                _, _, pid, ways = rank.recv()
                self._ranks[kind].append(rank)
                self._pids[kind].append(pid)
                self._kind_of |= dict.fromkeys(ways, kind)
        self._signal(kind, signal.SIGSTOP)

    def _accept(self, listener: socket.socket, kind: str) -> Connection:
        try:
            return Connection(listener.accept()[0].detach())
        except TimeoutError as error:
            raise RuntimeError(f"the {kind} ranks did not start:\n{self._log_of(kind)}") from error

    def _log_of(self, kind: str) -> str:
        return (self._folder / f"{kind}.log").read_text()[-3000:]

    def _signal(self, kind: str, number: signal.Signals) -> None:
        for pid in self._pids[kind]:
            os.kill(pid, number)

    def _end(self) -> None:
        trees = [psutil.Process(launcher.pid) for launcher in self._launchers if launcher.poll() is None]
        for process in [child for tree in trees for child in tree.children(recursive=True)] + trees:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for launcher in self._launchers:
            launcher.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
