"""Hosts that run other code, versions or settings than rank 0's are named before anything is written."""

import copy
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, rank_environment
from tests.launch.worker.test_job import SECRET, free_port
from tests.small_run import small_config
from train.distributed.consistency import compare, fingerprints

RANK: dict[str, Any] = {"host": "a", **fingerprints({"seed": 0, "optimizer": {"lr": 0.1}})}


def other(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RANK), "host": "b", **changes}


def test_equal_ranks_have_no_difference() -> None:
    assert compare([RANK, other(), other()]) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code": "123"}, "rank 1 on b runs other code than rank 0 on a: update both to the same"),
        (
            {"versions": {**RANK["versions"], "torch": "2.13.0"}},
            f"rank 1 on b has torch 2.13.0, rank 0 on a has {RANK['versions']['torch']}",
        ),
        ({"config": {**RANK["config"], "seed": "1"}}, "rank 1 on b has seed 1, rank 0 on a has 0"),
        ({"config": {"seed": "0"}}, 'rank 1 on b has optimizer None, rank 0 on a has {"lr": 0.1}'),
    ],
)
def test_what_differs_is_named_with_its_host(changes: dict[str, Any], words: str) -> None:
    assert compare([RANK, other(**changes)]) == words


def test_a_long_list_is_cut() -> None:
    ranks = [RANK, *(other(code="1") for _ in range(9))]
    assert compare(ranks).endswith("; and 5 more")


@pytest.fixture
def other_code(tmp_path: Path) -> Path:
    """A copy of the code with one line more."""
    copied = tmp_path / "copy"
    for folder in ("data", "models", "prune", "train", "launch"):
        shutil.copytree(REPOSITORY / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "train/optim/ema.py").write_text((copied / "train/optim/ema.py").read_text() + "\n")
    return copied


COMMANDS = {
    "training": ["train/main.py", "--config", "{config}", "seed={index}"],
    "caching": ["-m", "train.cache_teacher", "--config", "{config}", "--views", "2", "seed={index}"],
    "evaluation": ["-m", "train.evaluate", "--model", "{model}", "--data", "none", "--tta", "{index}"],
}


@pytest.mark.parametrize(
    ("command", "difference"),
    [("training", "seed 1, {0} 0"), ("caching", "seed 1, {0} 0"), ("evaluation", '--tta "2", {0} "1"')],
)
def test_a_worker_with_other_code_and_another_setting_stops_every_command(
    command: str, difference: str, other_code: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    config, port = small_config(tiny_shards, tmp_path), free_port()
    model = tmp_path / "model"  # is there, and not read
    model.mkdir()
    for name in ("model.json", "model.safetensors"):
        (model / name).touch()
    workers = []
    for index, folder in enumerate((REPOSITORY, other_code)):
        variables = {"RANK": str(index), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        setting = index + (command == "evaluation")
        words = [word.format(config=config, model=model, index=setting) for word in COMMANDS[command]]
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "launch.worker", "--folder", str(tmp_path), "--", "python", *words],
                env={**rank_environment(variables), "SLIMHEADS_SECRET": SECRET, "PYTHONPATH": str(folder)},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [worker.communicate(timeout=90)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [2, 2], outputs
    host = socket.gethostname()
    assert f"rank 1 on {host} runs other code than rank 0 on {host}" in outputs[0]
    assert f"rank 1 on {host} has {difference.format(f'rank 0 on {host} has')}" in outputs[0]
    assert not (tmp_path / "run/checkpoints").exists()
