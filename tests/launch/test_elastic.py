"""An elastic job shrinks when a worker is lost or leaves, grows when one comes, and trains each sample once."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, end_process_tree, rank_environment
from tests.end_to_end.test_ranks import STEPS, outcome_of, write_config
from tests.launch.worker.test_job import SECRET, free_port
from train.config.loading import parse_config
from train.errors import ConfigError
from train.main import main

EPOCHS = 16


class Worker:
    """`python -m launch.worker` with one rank and its output in a file."""

    def __init__(self, config: Path, log: Path, *, index: int, port: int) -> None:
        variables = {
            "RANK": str(index),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "SLIMHEADS_SECRET": SECRET,
        }
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "launch.worker", "--grow-after", "0.5", "--"),
                    *("python", "train/main.py", "--config", str(config)),
                ],
                env=rank_environment(variables),
                cwd=REPOSITORY,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()


def wait_for(condition: Callable[[], bool], first: Worker, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, first.log.read_text()[-3000:]
        assert first.process.poll() is None, first.log.read_text()[-3000:]
        time.sleep(0.01)


def steps_of(run: Path, rank: int) -> int:
    trace = run / f"trace-rank{rank}.jsonl"
    return trace.read_bytes().count(b"\n") if trace.exists() else 0


@pytest.mark.timeout(600)  # seven starts; a busy machine takes long
def test_a_lost_a_returned_and_a_leaving_worker_change_no_sample(tiny_shards: Path, tmp_path: Path) -> None:
    settings = {
        "elastic": {"min_ranks": 1, "max_ranks": 2},
        "schedule": {"epochs": EPOCHS, "warmup_epochs": 1},
        "optimizer": {"lr": 0.01},
        "checkpoint": {"every_steps": 2},
    }
    config, port, run = write_config(tmp_path, tiny_shards, **settings), free_port(), tmp_path / "run"
    first = Worker(config, tmp_path / "log-0", index=0, port=port)
    workers = [first, Worker(config, tmp_path / "log-1", index=1, port=port)]
    try:
        wait_for(lambda: steps_of(run, 1) >= 5, first)
        workers[1].process.kill()
        wait_for(lambda: first.logged("start 2: 1 rank on 1 node"), first)
        wait_for(lambda: first.logged("continues after step"), first)
        workers.append(Worker(config, tmp_path / "log-2", index=1, port=port))
        wait_for(lambda: first.logged("start 3: 2 ranks on 1 node"), first)
        before = steps_of(run, 1)
        wait_for(lambda: steps_of(run, 1) > before + 2, first)
        workers[2].process.terminate()
        assert workers[2].process.wait(30) == 75
        assert first.process.wait(200) == 0, first.log.read_text()[-3000:]
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                end_process_tree(worker.process)
    assert first.logged("a worker came: the ranks save and start again with it")
    assert first.logged("start 4: 1 rank on 1 node")
    ours = outcome_of(run, 2)
    assert sorted(ours.trace) == list(range(EPOCHS * STEPS))
    whole = tmp_path / "whole"
    assert main(["--config", str(config), f"run.dir={whole}"]) == 0
    theirs = outcome_of(whole, 1)
    assert ours.trace == theirs.trace  # the same samples in the same rows of every step
    for name, tensor in ours.weights.items():
        torch.testing.assert_close(tensor, theirs.weights[name], rtol=1e-2, atol=1e-3)


CONFIG = (
    "run: {{dir: a}}\ndata: {{train: b, lanes: 8}}\nmodel: {{backbone: c}}\nbatch_size: {batch}\nelastic: {elastic}\n"
)


@pytest.mark.parametrize(
    ("elastic", "message"),
    [
        ("{min_ranks: 3, max_ranks: 2}", "min_ranks 3 is more than max_ranks 2"),
        ("{min_ranks: 1}", "key 'elastic.max_ranks' is required"),
        ("{max_ranks: 9}", "elastic.max_ranks 9 is more than data.lanes 8"),
        ("{max_ranks: 8}", "elastic.max_ranks 8 is more than batch_size 7"),
        ("{max_rank: 2}", "unknown key 'elastic.max_rank'; did you mean 'max_ranks'?"),
    ],
)
def test_bounds_that_cannot_be_are_refused_before_the_start(elastic: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        parse_config(CONFIG.format(batch=7, elastic=elastic))


# In place of a training: what `--ranks`, the config and workers that come do to a job is the launcher's alone.
RANK = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(75))
time.sleep(3)
"""


def launch(folder: Path, elastic: dict[str, int], *num_ranks: int) -> list[tuple[int, str]]:
    """(exit code, output) of workers with so many ranks each."""
    config = write_config(folder, folder, elastic=elastic)
    (folder / "main.py").write_text(RANK)
    port, workers = free_port(), []
    for index, ranks in enumerate(num_ranks):
        variables = {"RANK": str(index), "WORLD_SIZE": str(len(num_ranks)), "MASTER_ADDR": "127.0.0.1"}
        workers.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "launch.worker", "--ranks", str(ranks), "--grow-after", "0.5", "--"),
                    *("python", str(folder / "main.py"), "--config", str(config)),
                ],
                env=rank_environment({**variables, "MASTER_PORT": str(port), "SLIMHEADS_SECRET": SECRET}),
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                end_process_tree(worker)
    return [(worker.returncode, output) for worker, output in zip(workers, outputs, strict=True)]


def test_a_worker_that_does_not_fit_waits_and_restarts_nothing(tmp_path: Path) -> None:
    (code, output), (other, _) = launch(tmp_path, {"min_ranks": 1, "max_ranks": 3}, 2, 2)
    assert (code, other) == (0, 0), output
    assert output.count("worker: start ") == 1
    assert "no room within elastic.max_ranks for worker 1" in output


def test_fewer_ranks_than_min_ranks_are_refused_once_all_workers_are_here(tmp_path: Path) -> None:
    results = launch(tmp_path, {"min_ranks": 4, "max_ranks": 4}, 1, 1)
    assert [code for code, _ in results] == [2, 2], results
    assert "elastic.min_ranks is 4, but the workers bring 1, 1 ranks" in results[0][1]
    assert "start 1" not in results[0][1]


def test_a_worker_with_more_ranks_than_max_ranks_is_refused(tmp_path: Path) -> None:
    ((code, output),) = launch(tmp_path, {"min_ranks": 1, "max_ranks": 3}, 4)
    assert code == 2
    assert "worker: exit 2: --ranks 4 is more than elastic.max_ranks 3" in output
    assert "Traceback" not in output
