"""How soon a job notices that a rank died or is stuck, and is back at work after a kill; two ranks, real runs.

death_seconds: from the kill of a rank to the end of the job. stuck_overrun_seconds: from the moment at which the
watchdog should act on a stopped rank to the end of the job. restart_seconds: from the kill to the first step after it.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from data.shards.external_tars import index_tars
from tests.benchmarks.figure import Figure
from tests.conftest import TINY_TASKS, write_tiny_tar

_REPOSITORY = Path(__file__).resolve().parents[2]
_WATCHDOG_SECONDS = 5.0
_PATIENCE = 180.0


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    rounds = 1 if quick else 3
    shards = folder / "shards"
    shards.mkdir()
    write_tiny_tar(shards / "all-000.tar", first_sample=0, num_samples=33)
    index_tars([shards / "all-000.tar"], tasks=TINY_TASKS, cls_task="class")
    seconds: dict[str, list[float]] = {"death": [], "stuck": [], "restart": []}
    for number in range(rounds):
        seconds["death"].append(_seconds_to_the_end(folder / f"death-{number}", shards, signal.SIGKILL))
        seconds["stuck"].append(_seconds_to_the_end(folder / f"stuck-{number}", shards, signal.SIGSTOP))
        seconds["restart"].append(_seconds_to_the_next_step(folder / f"restart-{number}", shards))
    overrun = max(seconds["stuck"]) - _WATCHDOG_SECONDS
    note = f"the longest of {rounds}; two ranks on {len(os.sched_getaffinity(0))} cores"
    median = statistics.median(seconds["restart"])
    return [
        Figure("death_seconds", max(seconds["death"]), target=5.0, note=note),
        Figure("stuck_overrun_seconds", overrun, target=5.0, note=f"{note}; watchdog_seconds {_WATCHDOG_SECONDS:g}"),
        Figure("restart_seconds", max(seconds["restart"]), target=30.0, note=f"{note}; median {median:.1f}"),
    ]


def _seconds_to_the_end(folder: Path, shards: Path, number: signal.Signals) -> float:
    worker = _start(folder, shards)
    try:
        _wait_for(lambda: _num_steps(folder) >= 8, folder)
        _rank(worker, 1).send_signal(number)
        begin = time.monotonic()
        worker.wait(_PATIENCE)
        return time.monotonic() - begin
    finally:
        _end(worker)


def _seconds_to_the_next_step(folder: Path, shards: Path) -> float:
    worker = _start(folder, shards, "--restarts", "1")
    try:
        _wait_for(lambda: _num_steps(folder) >= 8, folder)
        _rank(worker, 1).kill()
        begin = time.monotonic()
        log = folder / "run/logs/rank-1.log"
        _wait_for(lambda: log.read_text().count("=== start") == 2, folder)
        # The new ranks first cut off what will be done again; the first line after that is the first new step.
        _wait_for(lambda: "continues after" in _console(folder), folder)
        kept = _num_steps(folder)
        _wait_for(lambda: _num_steps(folder) > kept, folder)
        return time.monotonic() - begin
    finally:
        _end(worker)


def _start(folder: Path, shards: Path, *options: str) -> subprocess.Popen[bytes]:
    folder.mkdir()
    config = {
        "run": {"dir": str(folder / "run")},
        "data": {"train": str(shards), "image_size": 24, "lanes": 6, "window": 4, "workers": 0},
        "model": {"backbone": "food11_student"},
        "schedule": {"epochs": 100_000, "warmup_epochs": 0},
        "batch_size": 11,
        "checkpoint": {"every_steps": 5, "every_epochs": 100_000},
        "tracking": {"wandb": {"mode": "disabled"}},
        "watchdog_seconds": _WATCHDOG_SECONDS,
        "trace_samples": True,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    python = Path(sys.executable)
    return subprocess.Popen(
        [
            *(python, "-m", "launch.worker", "--ranks", "2", *options, "--"),
            *(python, "train/main.py", "--config", folder / "config.yaml"),
        ],
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "OMP_NUM_THREADS": "1"},
        cwd=_REPOSITORY,
        stdout=(folder / "log").open("wb"),
        stderr=subprocess.STDOUT,
    )


def _num_steps(folder: Path) -> int:
    trace = folder / "run/trace-rank1.jsonl"
    return trace.read_bytes().count(b"\n") if trace.exists() else 0


def _console(folder: Path) -> str:
    return (folder / "log").read_text()


def _ranks(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children()


def _rank(worker: subprocess.Popen[bytes], rank: int) -> psutil.Process:
    return next(child for child in _ranks(worker) if child.environ()["HOROVOD_RANK"] == str(rank))


def _wait_for(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the run did not get on:\n{_console(folder)[-3000:]}")
        time.sleep(0.01)


def _end(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        worker.kill()  # its ranks die with it
        worker.wait()
