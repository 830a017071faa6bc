"""Checkpoints are whole or not there: cut, changed, killed or written to a full disk, an older good one remains."""

import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tests.conftest import rank_environment
from train.checkpoint.run_folder import RunFolder
from train.checkpoint.store import CheckpointStore, digest, flatten_optimizer, restore_optimizer
from train.errors import CheckpointError
from train.tracking.jsonl import cut_lines

TENSORS = {
    "model.weight": torch.arange(2000.0).view(40, 50),
    "model.count": torch.tensor(7),
    "half": torch.ones(3).half(),
}
DTYPES = {name: tensor.dtype for name, tensor in TENSORS.items()}
STATE = {"progress": {"step": 3, "best": float("nan")}, "wandb_id": "abc"}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this: what a full disk does to a write, also for the super-user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_is_loaded_bit_for_bit(store: CheckpointStore) -> None:
    store.save(TENSORS, STATE, step=3)
    tensors, state = store.load(3)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert all(tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    assert digest(tensors) == digest(TENSORS)
    assert str(state) == str(STATE)


def test_the_newest_are_kept(store: CheckpointStore) -> None:
    for step in (1, 5, 10, 200):
        store.save(TENSORS, STATE, step=step)
    assert store.steps() == [200, 10]
    assert len(os.listdir(store.directory)) == 2
    assert store.newest_good() == (200, [])


def test_a_folder_without_checkpoints_has_none(store: CheckpointStore) -> None:
    assert store.newest_good() == (None, [])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_a_cut_checkpoint_falls_back_to_the_one_before(store: CheckpointStore, share: float) -> None:
    store.save(TENSORS, STATE, step=1)
    path = store.save(TENSORS, STATE, step=2)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(CheckpointError, match=path.name):
        store.load(2)
    step, problems = store.newest_good()
    assert step == 1
    assert [path.name in problem for problem in problems] == [True]


def test_a_flipped_bit_is_seen(store: CheckpointStore) -> None:
    store.save(TENSORS, STATE, step=1)
    path = store.save(TENSORS, STATE, step=2)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.weight.*damaged"):
        store.load(2)
    assert store.newest_good()[0] == 1


def test_a_flipped_bit_of_the_header_is_seen(store: CheckpointStore) -> None:
    """The state, the checksums, names, types and shapes; also where a shape or a type stays possible."""
    store.save(TENSORS, STATE, step=1)
    path = store.path(1)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    unseen = []
    for position in range(8, 8 + length):
        content = bytearray(whole)
        content[position] ^= 1 << position % 4  # what makes another digit of a digit
        path.write_bytes(content)
        try:
            tensors, state = store.load(1)
        except CheckpointError:
            continue
        same = str(state) == str(STATE) and digest(tensors) == digest(TENSORS)
        if not same or {name: tensor.dtype for name, tensor in tensors.items()} != DTYPES:
            unseen.append(whole[position - 10 : position + 10])
    assert unseen == []


def test_a_checkpoint_of_before_its_header_was_checked_is_loaded(store: CheckpointStore) -> None:
    store.save(TENSORS, STATE, step=1)
    with safe_open(store.path(1), framework="pt") as file:
        metadata = file.metadata()
    del metadata["described"]
    save_file(TENSORS, store.path(2), metadata=metadata)
    assert store.newest_good() == (2, [])


def test_what_a_killed_save_left_goes_and_nothing_else(store: CheckpointStore) -> None:
    store.save(TENSORS, STATE, step=1)
    """Also of an older version, whose names had no process in them."""
    of_ours = f".step-0000000003.safetensors.{os.getppid()}.tmp"
    for name in ("step-0000000002.part", of_ours, "notes.part", "step-2.part"):
        (store.directory / name).write_bytes(b"x")
    store.remove_partial()
    assert sorted(os.listdir(store.directory)) == ["notes.part", "step-0000000001.safetensors", "step-2.part"]


def test_what_an_older_version_left_unfinished_in_a_run_goes(tmp_path: Path) -> None:
    for name in ("config.part", "result.part", "metrics.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    folder = RunFolder(tmp_path)
    folder.save_config({})
    folder.save_result({})
    cut_lines(folder.metrics, before_step=1)
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "metrics.jsonl", "result.json"]


def test_a_killed_first_save_is_no_run(tmp_path: Path) -> None:
    """Its config may still be put right."""
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-0000000002.part").write_bytes(b"x")
    assert not folder.holds_checkpoints()
    CheckpointStore(folder.checkpoints).save(TENSORS, STATE, step=2)
    assert folder.holds_checkpoints()


def test_a_foreign_file_is_refused_by_its_format(store: CheckpointStore) -> None:
    store.directory.mkdir()
    save_file(TENSORS, store.path(4), metadata={"format": "slimheads-checkpoint/9"})
    with pytest.raises(CheckpointError, match="slimheads-checkpoint/9"):
        store.load(4)


@pytest.mark.parametrize("num_bytes", [0, 100, 5000])
def test_a_full_disk_leaves_the_older_checkpoints_and_no_rubbish(store: CheckpointStore, num_bytes: int) -> None:
    store.save(TENSORS, STATE, step=1)
    with largest_file(num_bytes), pytest.raises(OSError, match="File too large"):
        store.save(TENSORS, STATE, step=2)
    assert os.listdir(store.directory) == [store.path(1).name]
    assert store.newest_good() == (1, [])
    store.save(TENSORS, STATE, step=2)
    assert store.newest_good() == (2, [])


def test_killed_while_saving_there_is_always_a_good_one(store: CheckpointStore) -> None:
    """A process saves without pause until it is killed; every file that bears a checkpoint's name is whole."""
    code = (
        "import sys, torch, itertools; from train.checkpoint.store import CheckpointStore\n"
        "store = CheckpointStore(sys.argv[1], keep=3); tensors = {'w': torch.zeros(500_000)}\n"
        "for step in itertools.count(1): store.save(tensors, {}, step=step); print(step, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store.directory)], env=rank_environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in itertools.islice(process.stdout, 5):
        assert line.strip().isdigit()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(store.steps()) >= 3
    for step in store.steps():
        store.load(step)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1))
    return model.to(memory_format=torch.channels_last)


def optimizer_of(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](model.parameters(), lr=0.01, fused=True)


def train_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_restored_optimizer_goes_on_with_the_same_bits(store: CheckpointStore, kind: str) -> None:
    """In channels_last, where a buffer in another memory order would meet the wrong weights."""
    whole = network()
    train_steps(whole, optimizer_of(kind, whole), range(8))
    first = network()
    optimizer = optimizer_of(kind, first)
    train_steps(first, optimizer, range(4))
    store.save({**first.state_dict(), **flatten_optimizer(optimizer, first)}, {}, step=4)
    tensors, _ = store.load(4)
    second = network()
    optimizer = optimizer_of(kind, second)
    second.load_state_dict({name: tensors[name] for name in second.state_dict()})
    restore_optimizer(optimizer, second, tensors)
    train_steps(second, optimizer, range(4, 8))
    assert digest(second.state_dict()) == digest(whole.state_dict())


def test_optimizer_state_finds_its_parameter_in_other_groups() -> None:
    """A learning-rate multiplier that was added regroups the parameters; two of them have the same shape."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    tensors = {name: tensor.clone() for name, tensor in flatten_optimizer(optimizer, model).items()}
    groups = [{"params": [model[1].weight, model[1].bias]}, {"params": [model[0].bias, model[0].weight]}]
    regrouped = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    restore_optimizer(regrouped, model, tensors)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            regrouped.state[parameter]["momentum_buffer"], tensors[f"optimizer.{name}.momentum_buffer"]
        )
    assert digest(flatten_optimizer(regrouped, model)) == digest(tensors)


def test_a_digest_sees_names_and_bits() -> None:
    zero = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert digest(zero) == digest({"b": torch.ones(2), "a": torch.zeros(2)})
    assert digest(zero) != digest({"a": torch.ones(2), "b": torch.zeros(2)})
    assert digest(zero) != digest({"a": -torch.zeros(2), "b": torch.ones(2)})
