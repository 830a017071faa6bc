"""Kill it anywhere: the same command continues, and ends with the very bits of the run that was not disturbed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import REPOSITORY, end_process_tree, rank_environment

NUM_SAMPLES, BATCH, EPOCHS, STEPS = 33, 9, 5, 4


def write_config(folder: Path, shards: Path) -> Path:
    """Everything with a state is on: momentum, EMA, dropout, batch norm, augmentation, mid-epoch checkpoints."""
    config = {
        "run": {"dir": str(folder / "run")},
        "data": {
            "train": str(shards / "train"),
            "val": str(shards / "val"),
            "image_size": 32,
            "lanes": 9,
            "window": 4,
            "workers": 0,
        },
        "augment": {"policy": "strong"},
        "model": {
            "backbone": "cifar_resnet20",
            "head": {"kind": "multi-embedding", "width": 16, "dropout": 0.3},
        },
        "optimizer": {"lr": 0.02},
        "schedule": {"epochs": EPOCHS, "warmup_epochs": 1},
        "ema": {"decay": 0.9},
        "batch_size": BATCH,
        "trace_samples": True,
        "tracking": {"wandb": {"mode": "disabled"}, "log_every": 3},
        "checkpoint": {"every_steps": 3},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start(num_ranks: int, config: Path, *overrides: str) -> subprocess.Popen[str]:
    launcher = ["horovodrun", "-np", str(num_ranks), "--gloo", "--network-interface", "lo"] if num_ranks > 1 else []
    command = [*launcher, sys.executable, "train/main.py", "--config", str(config), *overrides]
    return subprocess.Popen(
        command,
        env=rank_environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> str:
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        end_process_tree(process)
        pytest.fail(f"did not end within {timeout} s:\n{process.communicate()[0][-4000:]}")


def wait_for_step(run: Path, rank: int, step: int, process: subprocess.Popen[str]) -> None:
    """Until a rank's trace holds a step."""
    trace = run / f"trace-rank{rank}.jsonl"
    deadline = time.monotonic() + 90
    while not (trace.exists() and f'"step": {step},' in trace.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            end_process_tree(process) if process.poll() is None else None
            pytest.fail(f"step {step} was not reached:\n{process.communicate()[0][-4000:]}")
        time.sleep(0.005)


def process_of_rank(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The Python process of a rank (horovodrun starts each through a shell)."""
    for child in psutil.Process(launcher.pid).children(recursive=True):
        is_rank = "train/main.py" in child.cmdline() and child.environ().get("HOROVOD_RANK") == str(rank)
        if is_rank and not any("python" in grandchild.name() for grandchild in child.children()):
            return child
    raise AssertionError(f"rank {rank} not found")


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of the final weights, of the training state and of the ledger of samples."""
    newest = max((run / "checkpoints").glob("step-*.safetensors"))
    # W&B's id is drawn anew for every run; everything else in a checkpoint must repeat.
    from train.checkpoint.store import CheckpointStore, digest

    tensors, values = CheckpointStore(run / "checkpoints").load(int(newest.stem.removeprefix("step-")))
    traces = b"".join(path.read_bytes() for path in sorted(run.glob("trace-rank*.jsonl")))
    return {
        "last": hashlib.sha256((run / "last/model.safetensors").read_bytes()).hexdigest(),
        "best": hashlib.sha256((run / "best/model.safetensors").read_bytes()).hexdigest(),
        "state": digest(tensors),
        "progress": json.dumps(values["progress"], sort_keys=True),
        "trace": hashlib.sha256(traces).hexdigest(),
        "losses": losses(run),
    }


def losses(run: Path) -> str:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_second", "seconds_left")
    return json.dumps([{key: value for key, value in line.items() if key not in timed} for line in lines])


@pytest.fixture(scope="module")
def undisturbed(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three ranks, because with two ranks a + b hides an order of summation that depends on timing."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(3, write_config(folder, tiny_shards))
    output = finish(process)
    assert process.returncode == 0, output
    return fingerprint(folder / "run")


@pytest.mark.parametrize(("victim", "step"), [(0, 9), (1, 1), (2, 13)])
def test_a_rank_killed_mid_epoch_leaves_no_mark(
    victim: int, step: int, undisturbed: dict[str, str], tiny_shards: Path, tmp_path: Path
) -> None:
    """Rank 2 dies in epoch 2, rank 1 before the first checkpoint, rank 0 (the one that writes) after two."""
    config = write_config(tmp_path, tiny_shards)
    process = start(3, config)
    wait_for_step(tmp_path / "run", victim, step, process)
    process_of_rank(process, victim).send_signal(signal.SIGKILL)
    killed = time.monotonic()
    finish(process, timeout=30)
    assert process.returncode != 0
    assert time.monotonic() - killed < 15
    assert not (tmp_path / "run/result.json").exists()
    again = start(3, config)
    output = finish(again)
    assert again.returncode == 0, output
    assert ("continues after step" in output) == (step > 3)
    assert fingerprint(tmp_path / "run") == undisturbed


def test_another_number_of_ranks_continues_with_exactly_the_remaining_samples(
    tiny_shards: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    config = write_config(tmp_path, tiny_shards)
    process = start(2, config)
    wait_for_step(tmp_path / "run", 0, 9, process)
    end_process_tree(process)
    process.communicate()
    again = start(1, config)
    output = finish(again)
    assert again.returncode == 0, output
    assert "continues after step 9" in output
    consumed: dict[int, list[str]] = {}
    for trace in (tmp_path / "run").glob("trace-rank*.jsonl"):
        for line in map(json.loads, trace.read_text().splitlines()):
            consumed.setdefault(line["step"], []).extend(line["keys"])
    assert sorted(consumed) == list(range(EPOCHS * STEPS))
    for epoch in range(EPOCHS):
        keys = [key for step in range(epoch * STEPS, (epoch + 1) * STEPS) for key in consumed[step]]
        assert len(keys) == len(set(keys)) == NUM_SAMPLES


def test_a_finished_run_says_so(tiny_shards: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_shards)
    overrides = ["schedule={epochs: 1}"]
    first = start(1, config, *overrides)
    output = finish(first)
    assert first.returncode == 0, output
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run/last").iterdir())
    second = start(1, config, *overrides)
    output = finish(second)
    assert second.returncode == 0
    assert "this run is finished" in output
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run/last").iterdir()) == before


def test_sigterm_saves_at_the_agreed_step_and_continues_to_the_same_bits(tiny_shards: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_shards)
    whole = start(1, config, f"run.dir={tmp_path}/whole")
    assert finish(whole)
    process = start(1, config)
    wait_for_step(tmp_path / "run", 0, 6, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 75, output
    assert "stopped by a signal, saved" in output
    again = start(1, config)
    output = finish(again)
    assert "continues after step" in output
    ours, theirs = fingerprint(tmp_path / "run"), fingerprint(tmp_path / "whole")
    # The stop adds a log line of its own; weights, state and ledger are the same.
    for part in ("last", "best", "state", "trace"):
        assert ours[part] == theirs[part]


def test_a_checkpoint_cut_in_half_falls_back_to_the_one_before(tiny_shards: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_shards)
    whole = start(1, config, f"run.dir={tmp_path}/whole")
    finish(whole)
    process = start(1, config)
    wait_for_step(tmp_path / "run", 0, 9, process)
    end_process_tree(process)
    process.communicate()
    steps = sorted((tmp_path / "run/checkpoints").glob("step-*.safetensors"))
    os.truncate(steps[-1], steps[-1].stat().st_size // 2)
    again = start(1, config)
    output = finish(again)
    assert again.returncode == 0, output
    assert f"not used: {steps[-1]}" in output
    assert fingerprint(tmp_path / "run")["state"] == fingerprint(tmp_path / "whole")["state"]


def test_other_shards_than_the_run_began_with_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_shards)
    process = start(1, config)
    wait_for_step(tmp_path / "run", 0, 9, process)
    end_process_tree(process)
    process.communicate()
    overrides = [f"data.train={tiny_shards}/val"]
    refused = start(1, config, *overrides)
    output = finish(refused)
    assert refused.returncode == 2
    assert "data.train" in output  # the path changed
    # The same path with other content: only the shards themselves can tell.
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    saved["data"]["train"] = str(tiny_shards / "val")
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(saved))
    refused = start(1, config, *overrides)
    output = finish(refused)
    assert refused.returncode == 2
    assert "the training shards are not the ones that the run began with" in output
