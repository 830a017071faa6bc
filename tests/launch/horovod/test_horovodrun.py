"""Under horovodrun a rank that is killed, stuck or gone early ends the job in time; what stays is a good checkpoint."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY, end_process_tree, rank_environment
from tests.small_run import small_config
from train.checkpoint.store import CheckpointStore

WATCHDOG_SECONDS = 6.0

# Rank 1 watches its own trace and, at the step that the test asks for, goes.
RANK = """
import os, signal, sys, threading, time
from pathlib import Path
from train.main import main

def go(trace, number):
    while not (trace.exists() and '"step": 6,' in trace.read_text()):
        time.sleep(0.01)
    if number:
        os.kill(os.getpid(), number)
    else:
        os._exit(0)

if __name__ == "__main__":
    if os.environ["HOROVOD_RANK"] == "1":
        threading.Thread(target=go, args=(Path(sys.argv[1]), int(sys.argv[2])), daemon=True).start()
    sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("number", "other_rank", "seconds"),
    [
        (signal.SIGKILL, "rank 0: exit 77: another rank or a loader process was lost", 15),
        (signal.SIGSTOP, "rank 0: exit 76: a step did not finish in time", WATCHDOG_SECONDS + 20),
        (0, "rank 0: exit 77: another rank or a loader process was lost", 15),
    ],
    ids=["killed", "stuck", "gone early"],
)
def test_the_job_ends_in_time_and_its_checkpoint_is_good(
    number: int, other_rank: str, seconds: float, tiny_shards: Path, tmp_path: Path
) -> None:
    config, run = small_config(tiny_shards, tmp_path), tmp_path / "run"
    (tmp_path / "rank.py").write_text(RANK)
    trace = run / "trace-rank1.jsonl"
    process = subprocess.Popen(
        [
            *(
                "horovodrun",
                "-np",
                "2",
                "--gloo",
                "--network-interface",
                "lo",
                sys.executable,
                str(tmp_path / "rank.py"),
            ),
            *(str(trace), str(int(number)), "--config", str(config)),
            *("schedule.epochs=2000", f"watchdog_seconds={WATCHDOG_SECONDS}"),
        ],
        env=rank_environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 90
        while not (trace.exists() and '"step": 6,' in trace.read_text()):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            started = psutil.Process(process.pid).children(recursive=True) or started
            time.sleep(0.01)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=seconds + 30)
        assert time.monotonic() - begin < seconds
    finally:
        if process.poll() is None:
            end_process_tree(process)
    assert process.returncode == 1  # horovodrun's own
    assert other_rank in output
    deadline = time.monotonic() + 10  # a loader's process looks for its parent every few seconds
    while left := [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.tmp")] == []
    step, problems = CheckpointStore(run / "checkpoints").newest_good()
    assert problems == []
    assert step is not None
    assert step >= 6


def test_a_wrong_key_is_said_once_and_in_words(run_ranks: Callable, tiny_shards: Path, tmp_path: Path) -> None:
    config = small_config(tiny_shards, tmp_path)
    result = run_ranks(2, ["train/main.py", "--config", str(config), "learning_rate=3"], timeout=90)
    assert result.exit_code == 1  # horovodrun's own
    assert result.output.count("unknown key 'learning_rate'; did you mean 'optimizer.lr'?") == 1
    assert "Process name: 0\nExit code: 2" in result.output
    assert "Traceback" not in result.output
    assert "uncaught exception" not in result.output
