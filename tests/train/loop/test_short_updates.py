"""Small batches and batch norm: a short update counts by its share, and lone samples throughout are refused."""

from pathlib import Path

import pytest
import torch

from launch.exit_codes import ExitCode
from models.preprocessing import Normalise
from models.student import Student, build_student
from tests.small_run import train_small
from tests.train.loop.test_train_step import Doubling, batch_of, state_of
from train.distributed.comm import Comm, SingleProcess
from train.distributed.gradient_buckets import GradientBuckets
from train.loop.step_sync import StepTotals
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.losses.objective import Objective, label_term

CPU = torch.device("cpu")
RATE = 0.1


def train_step(
    batch_size: int | None, *, comm: Comm | None = None, momentum: float = 0.0, weight_decay: float = 0.0
) -> TrainStep:
    torch.manual_seed(0)
    model: Student = build_student(backbone="food11_student", head={"kind": "multi-fc"}, tasks={"a": 2}).train()
    objective = Objective([label_term("a")])
    comm = comm or SingleProcess()
    return TrainStep(
        model=model,
        normalise=Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        objective=objective,
        optimizer=torch.optim.SGD(
            model.parameters(), lr=RATE, momentum=momentum, weight_decay=weight_decay, fused=True
        ),
        buckets=GradientBuckets(model, comm),
        metrics=TrainMetrics(objective, ["a"], CPU),
        comm=comm,
        device=CPU,
        learning_rate=lambda step: RATE,
        batch_size=batch_size,
    )


def change(batch_size: int | None, labels: list[int], *, comm: Comm | None = None) -> dict[str, torch.Tensor]:
    """What one update of these samples (on each rank) moves every weight and statistic by."""
    one = train_step(batch_size, comm=comm)
    before = state_of(one)
    everyone = len(labels) * (comm.size if comm else 1)
    one.update(batch_of(labels), StepTotals([float(everyone)], everyone, 0, False), step=0)
    return {name: tensor - before[name] for name, tensor in state_of(one).items()}


@pytest.mark.parametrize("comm", [SingleProcess(), Doubling()], ids=["alone", "two ranks"])
@pytest.mark.parametrize(("per_rank", "weight"), [(10, 1.0), (5, 1.0), (4, 0.4), (2, 0.2)])
def test_an_update_of_less_than_half_a_batch_moves_weights_and_statistics_by_its_share(
    per_rank: int, weight: float, comm: Comm
) -> None:
    labels = [0, 1, 1, 0, 1, 0, 0, 1, 0, 1][:per_rank]
    whole, weighted = change(None, labels, comm=comm), change(10 * comm.size, labels, comm=comm)
    assert any("running_mean" in name for name in whole)
    for name, moved in whole.items():
        assert moved.abs().max() > 0, name
        torch.testing.assert_close(
            weighted[name], weight * moved, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_momentum_carries_no_more_of_a_short_update_and_decay_goes_on_in_full() -> None:
    gradients, moved = [], []
    for batch_size in (None, 10):
        one = train_step(batch_size, momentum=0.9, weight_decay=0.5)
        weight = one.model.get_parameter("backbone.stem.0.weight")
        before = weight.detach().clone()
        one.update(batch_of([0, 1]), StepTotals([2.0], 2, 0, False), step=0)
        gradients.append(one.optimizer.state[weight]["momentum_buffer"] - 0.5 * before)
        moved.append((weight.detach() - before, before))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], 0.2 * gradients[0], rtol=1e-4, atol=1e-7)
    for gradient, (change, before) in zip(gradients, moved, strict=True):
        torch.testing.assert_close(change, -RATE * (gradient + 0.5 * before), rtol=1e-4, atol=1e-7)


def test_a_full_update_has_the_same_bits_as_ever() -> None:
    whole, weighted = change(None, [0, 1, 1, 0]), change(8, [0, 1, 1, 0])
    assert all(torch.equal(moved, weighted[name]) for name, moved in whole.items())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["micro_batch=1"], "micro_batch is 1: the 9 batch norms of the model (such as backbone.stem.1) would see one"),
        (["batch_size=1"], "batch_size is 1, at most one sample for each rank (1): the 9 batch norms"),
        (
            ["batch_size=4", "data.lanes=6", "elastic={max_ranks: 4}"],
            "batch_size is 4, at most one sample for each rank (4): the 9",
        ),
    ],
)
def test_one_sample_at_a_time_is_refused_where_norms_train(
    overrides: list[str], said: str, tiny_shards: Path, tmp_path: Path
) -> None:
    outcome = train_small(tiny_shards, tmp_path, *overrides)
    assert outcome.exit_code == ExitCode.BAD_CONFIG
    assert said in outcome.stderr
    assert "or take a backbone without batch norm" in outcome.stderr
    assert outcome.trained() == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "overrides",
    [
        ["micro_batch=1", "model.freeze=[backbone]"],
        ["batch_size=1", "schedule.epochs=1", "model.freeze=[backbone]", "checkpoint.every_steps=100", "data.val="],
        ["batch_size=4", "schedule.epochs=1", "data.val="],  # 33 samples: one is left alone
    ],
    ids=["frozen norms", "frozen norms, batches of one", "a lone remainder"],
)
def test_frozen_norms_and_a_lone_remainder_are_not(overrides: list[str], tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path, *overrides)
    assert outcome.exit_code == 0, outcome.stderr
