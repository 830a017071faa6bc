"""Kill it at random, again and again: the worker starts its ranks anew, and the run ends as if nothing had happened."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY, end_process_tree, rank_environment
from tests.end_to_end.test_resume import fingerprint, write_config

RANKS = 3  # two can not show an order of summation that depends on timing
EPOCHS = 14
CHECKPOINTS = 3  # at most, before a kill; there are two in an epoch


def start_worker(config: Path, log: Path, *, epochs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "launch.worker", "--ranks", str(RANKS), "--restarts", "1000", "--"]
    with log.open("a") as output:
        return subprocess.Popen(
            [*command, "python", "train/main.py", "--config", str(config), f"schedule.epochs={epochs}"],
            env=rank_environment(),
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def ranks_of(worker: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children() if worker.poll() is None else []


def run_to_the_end(worker: subprocess.Popen[str], log: Path, seconds: float = 200) -> None:
    try:
        assert worker.wait(seconds) == 0, log.read_text()[-3000:]
    except subprocess.TimeoutExpired:
        end_process_tree(worker)
        pytest.fail(log.read_text()[-3000:])


def undisturbed(shards: Path, folder: Path, *, epochs: int) -> dict[str, str]:
    folder.mkdir()
    config = write_config(folder, shards)
    log = folder / "log"
    run_to_the_end(start_worker(config, log, epochs=epochs), log)
    return fingerprint(folder / "run")


def wait_for_checkpoints(run: Path, count: int, worker: subprocess.Popen[str], log: Path) -> None:
    """Until there are so many new ones, or the worker is gone."""
    seen = newest_checkpoint(run)
    deadline = time.monotonic() + 90
    while count > 0 and worker.poll() is None:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        newest = newest_checkpoint(run)
        if newest != seen:
            seen, count = newest, count - 1
        time.sleep(0.005)


def newest_checkpoint(run: Path) -> str:
    return max((path.name for path in run.glob("checkpoints/step-*")), default="")


def end_after_kills(shards: Path, folder: Path, *, num_kills: int, epochs: int, seed: int) -> dict[str, str]:
    """Every fourth kill takes the worker itself; the same command then continues."""
    folder.mkdir()
    config, log = write_config(folder, shards), folder / "log"
    draw = random.Random(seed)
    worker = start_worker(config, log, epochs=epochs)
    killed: set[int] = set()
    try:
        for number in range(num_kills):
            deadline = time.monotonic() + 60
            while not (ranks := [rank for rank in ranks_of(worker) if rank.pid not in killed]):
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                if worker.poll() is not None:  # it saw a crash loop, or was killed below
                    assert not (folder / "run/result.json").exists(), f"the run ended after {number} kills"
                    worker = start_worker(config, log, epochs=epochs)
                time.sleep(0.02)
            killed |= {rank.pid for rank in ranks}
            # Every third kill falls into the start; the others into a step, a save or an evaluation.
            if number % 3 != 1:
                wait_for_checkpoints(folder / "run", draw.randint(1, CHECKPOINTS), worker, log)
            time.sleep(draw.uniform(0, 2.0 if number % 3 == 1 else 0.2))
            victim = worker.pid if number % 4 == 3 else draw.choice(ranks).pid
            with contextlib.suppress(ProcessLookupError):  # the worker gave up in this moment
                os.kill(victim, signal.SIGKILL)
            if victim == worker.pid:
                worker.wait()
        if worker.poll() is not None:
            worker = start_worker(config, log, epochs=epochs)
        run_to_the_end(worker, log)
    finally:
        if worker.poll() is None:
            end_process_tree(worker)
    return fingerprint(folder / "run")


@pytest.mark.timeout(600)  # six starts of three ranks; a busy machine takes long
def test_a_few_kills_leave_no_mark(tiny_shards: Path, tmp_path: Path) -> None:
    whole = undisturbed(tiny_shards, tmp_path / "whole", epochs=EPOCHS)
    ended = end_after_kills(tiny_shards, tmp_path / "killed", num_kills=4, epochs=EPOCHS, seed=6)
    assert ended == whole
    assert [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.tmp")] == []


@pytest.mark.soak
def test_twenty_five_kills_leave_no_mark(tiny_shards: Path, tmp_path: Path) -> None:
    whole = undisturbed(tiny_shards, tmp_path / "whole", epochs=10 * EPOCHS)
    ended = end_after_kills(tiny_shards, tmp_path / "killed", num_kills=25, epochs=10 * EPOCHS, seed=25)
    assert ended == whole
    assert [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.tmp")] == []
