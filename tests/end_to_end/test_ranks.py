"""One, two and three real Horovod ranks train the same: same batches, each sample once, same parameters."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

NUM_SAMPLES, BATCH, EPOCHS = 33, 10, 2
STEPS = 4  # per epoch, the last with three samples


@dataclass(frozen=True)
class Outcome:
    trace: dict[int, list[tuple[int, str]]]  # step -> (row, key), in row order
    num_keys: list[list[int]]  # per rank, per step
    weights: dict[str, torch.Tensor]


def write_config(folder: Path, shards: Path, **changes: object) -> Path:
    """A tiny run without batch norm, dropout or stochastic depth, where the ranks must agree up to rounding."""
    config = {
        "run": {"dir": str(folder / "run")},
        "data": {"train": str(shards / "train"), "image_size": 32, "lanes": 8, "window": 4, "workers": 0},
        "augment": {"policy": "strong"},
        "tasks": {"colour": {"class_weights": [1.0, 2.0, 0.5]}, "tone": {"weight": 0.5}},
        "model": {"backbone": "test_convnext", "head": {"kind": "multi-fc"}},
        "optimizer": {"lr": 0.05, "clip_norm": 5.0},
        "schedule": {"epochs": EPOCHS, "warmup_epochs": 1},
        "batch_size": BATCH,
        "trace_samples": True,
        "tracking": {"wandb": {"mode": "disabled"}, "log_every": 3},
        "checkpoint": {"every_steps": None},
        **changes,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def outcome_of(run: Path, num_ranks: int) -> Outcome:
    trace: dict[int, list[tuple[int, str]]] = {}
    num_keys = []
    for rank in range(num_ranks):
        lines = [json.loads(line) for line in (run / f"trace-rank{rank}.jsonl").read_text().splitlines()]
        num_keys.append([len(line["keys"]) for line in lines])
        for line in lines:
            trace.setdefault(line["step"], []).extend(zip(line["rows"], line["keys"], strict=True))
    return Outcome(
        {step: sorted(rows) for step, rows in trace.items()}, num_keys, load_file(run / "last/model.safetensors")
    )


@pytest.fixture(scope="module")
def one_rank(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    from train.main import main

    folder = tmp_path_factory.mktemp("one")
    assert main(["--config", str(write_config(folder, tiny_shards))]) == 0
    return outcome_of(folder / "run", 1)


def test_one_rank_takes_every_sample_once_per_epoch(one_rank: Outcome) -> None:
    assert sorted(one_rank.trace) == list(range(EPOCHS * STEPS))
    for epoch in range(EPOCHS):
        keys = [key for step in range(epoch * STEPS, (epoch + 1) * STEPS) for _, key in one_rank.trace[step]]
        assert len(keys) == len(set(keys)) == NUM_SAMPLES


@pytest.mark.parametrize(("num_ranks", "overrides"), [(2, ["data.workers=1"]), (3, ["micro_batch=2"])])
def test_more_ranks_give_the_same_batches_and_parameters(
    num_ranks: int,
    overrides: list[str],
    one_rank: Outcome,
    tiny_shards: Path,
    tmp_path: Path,
    run_ranks: Callable,
) -> None:
    config = write_config(tmp_path, tiny_shards)
    result = run_ranks(num_ranks, ["train/main.py", "--config", str(config), *overrides])
    assert result.exit_code == 0, result.output
    outcome = outcome_of(tmp_path / "run", num_ranks)
    assert outcome.trace == one_rank.trace
    assert all(sum(counts) < EPOCHS * NUM_SAMPLES for counts in outcome.num_keys)  # each reads only its part
    assert_close(outcome.weights, one_rank.weights)


def test_three_workers_and_micro_batches_change_nothing(one_rank: Outcome, tiny_shards: Path, tmp_path: Path) -> None:
    from train.main import main

    config = write_config(tmp_path, tiny_shards)
    assert main(["--config", str(config), "data.workers=3", "micro_batch=4"]) == 0
    outcome = outcome_of(tmp_path / "run", 1)
    assert outcome.trace == one_rank.trace
    assert_close(outcome.weights, one_rank.weights)


def test_more_ranks_than_shards_and_single_samples_on_a_rank_with_batch_norm(
    tiny_shards: Path, tmp_path: Path, run_ranks: Callable
) -> None:
    """Batches of three over three ranks: one sample each, or none; the norms must neither raise nor drift apart."""
    model = {"backbone": "cifar_resnet20", "head": {"kind": "multi-embedding", "width": 8}}
    data = {"train": str(tiny_shards / "val"), "image_size": 32, "lanes": 3, "workers": 0}
    config = write_config(tmp_path, tiny_shards, model=model, data=data, batch_size=5)
    result = run_ranks(3, ["train/main.py", "--config", str(config)])
    assert result.exit_code == 0, result.output
    outcome = outcome_of(tmp_path / "run", 3)
    assert any(count < 2 for counts in outcome.num_keys for count in counts)
    assert all(torch.isfinite(tensor).all() for tensor in outcome.weights.values() if tensor.is_floating_point())


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
