"""What the config offers, each seen in what a short run does: precision, clipping, optimizers, freezing, schedules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data.loading.batch import Batch
from models.parameter_groups import parameter_groups
from models.preprocessing import Normalise
from models.student import Student, build_student
from tests.small_run import STEPS, Outcome, small_config, train_small
from train.config.loading import load_config
from train.distributed.comm import SingleProcess
from train.distributed.gradient_buckets import GradientBuckets
from train.distributed.preemption import StopSignal
from train.loop.step_sync import StepTotals
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.loop.trainer import is_better
from train.losses.objective import Objective, label_term
from train.setup.optimizer import optimizer_from

CPU = torch.device("cpu")


def train(shards: Path, folder: Path, *overrides: str) -> Outcome:
    outcome = train_small(shards, folder, *overrides)
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


def weights_of(outcome: Outcome, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(outcome.run / name / "model.safetensors")


def steps_of(outcome: Outcome) -> list[dict[str, Any]]:
    return [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]


@pytest.fixture(scope="module")
def plain(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return train(tiny_shards, tmp_path_factory.mktemp("plain"))


def difference(ours: Outcome, theirs: Outcome) -> float:
    one, other = weights_of(ours), weights_of(theirs)
    names = [name for name, tensor in one.items() if tensor.is_floating_point()]
    flat, reference = (torch.cat([weights[name].flatten() for name in names]) for weights in (one, other))
    return float((flat - reference).norm() / reference.norm())


@pytest.mark.parametrize(("precision", "error"), [("bf16", 0.1), ("fp16", 0.02)])
def test_half_precision_has_nearly_the_losses_and_gradients_of_single(
    precision: str, error: float, tiny_shards: Path, tmp_path: Path
) -> None:
    """At a rate of nothing, so that every step sees the same weights; fp16 first has to find its loss scale."""
    still = ["optimizer.lr=1e-20", "schedule.epochs=3", "data.val="]
    single = steps_of(train(tiny_shards, tmp_path / "single", *still))
    outcome = train(tiny_shards, tmp_path / "half", *still, f"precision={precision}")
    half = steps_of(outcome)
    good = [(one, other) for one, other in zip(half, single, strict=True) if not one["skipped_updates"]]
    assert len(good) >= (5 if precision == "fp16" else 9)
    for one, other in good:
        assert one["loss"] == pytest.approx(other["loss"], rel=error)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=error)
    assert any(one["loss"] != other["loss"] for one, other in good)
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in weights_of(outcome).values())


def test_a_saved_loss_scale_goes_on(tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in fp16 that is stopped and continued ends with the bits of one that was not."""
    whole = train(tiny_shards, tmp_path / "whole", "precision=fp16")
    calls = iter(range(1000))
    monkeypatch.setattr(StopSignal, "requested", lambda self: next(calls) >= 2)
    assert train_small(tiny_shards, tmp_path / "cut", "precision=fp16").exit_code == 75
    monkeypatch.undo()
    continued = train(tiny_shards, tmp_path / "cut", "precision=fp16")
    assert difference(continued, whole) == 0


def test_clipping_bounds_the_update(tiny_shards: Path, tmp_path: Path) -> None:
    """Without momentum and decay, one step is at most lr x clip_norm long."""
    overrides = ["optimizer.momentum=0", "optimizer.weight_decay=0", "schedule.decay=constant", "schedule.epochs=1"]
    once = [*overrides, "batch_size=33", "data.val="]
    start = train(tiny_shards, tmp_path / "start", *once, "optimizer.lr=1e-20")
    clipped = train(tiny_shards, tmp_path / "clipped", *once, "optimizer.lr=0.1", "optimizer.clip_norm=0.01")
    free = train(tiny_shards, tmp_path / "free", *once, "optimizer.lr=0.1")
    lengths = []
    for outcome in (clipped, free):
        before, after = weights_of(start), weights_of(outcome)
        trained = [name for name in before if "running" not in name and "num_batches" not in name]
        lengths.append(torch.cat([(after[name] - before[name]).flatten() for name in trained]).norm().item())
    assert lengths[0] == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert lengths[1] == pytest.approx(0.1 * steps_of(free)[0]["gradient_norm"], rel=1e-3)
    assert steps_of(clipped)[0]["gradient_norm"] == pytest.approx(steps_of(free)[0]["gradient_norm"])


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adams_first_step_has_the_size_of_the_rate(kind: str, tiny_shards: Path, tmp_path: Path) -> None:
    """Adam's first update is lr x sign(gradient); AdamW takes lr x decay x weight off besides."""
    once = ["schedule.decay=constant", "schedule.epochs=1", "batch_size=33", "data.val=", f"optimizer.kind={kind}"]
    start = weights_of(train(tiny_shards, tmp_path / "start", *once, "optimizer.lr=1e-20"))
    after = weights_of(train(tiny_shards, tmp_path / "after", *once, "optimizer.lr=1e-3", "optimizer.weight_decay=0.5"))
    weight = "heads.classifiers.task_colour.weight"
    step = after[weight] - start[weight] * (1 - 1e-3 * 0.5 if kind == "adamw" else 1)
    torch.testing.assert_close(step.abs(), torch.full_like(step, 1e-3), rtol=0.02, atol=1e-6)


def test_frozen_parts_keep_their_bits_and_statistics(tiny_shards: Path, tmp_path: Path) -> None:
    frozen = weights_of(train(tiny_shards, tmp_path / "a", "model.freeze=[backbone]", "schedule.epochs=1"))
    longer = weights_of(train(tiny_shards, tmp_path / "b", "model.freeze=[backbone]"))
    for name, tensor in longer.items():
        assert torch.equal(tensor, frozen[name]) == name.startswith("backbone."), name


def test_a_multiplier_slows_its_part_alone(tiny_shards: Path, tmp_path: Path) -> None:
    once = ["schedule.decay=constant", "schedule.epochs=1", "batch_size=33", "data.val=", "optimizer.weight_decay=0"]
    start = weights_of(train(tiny_shards, tmp_path / "start", *once, "optimizer.lr=1e-20"))
    full = weights_of(train(tiny_shards, tmp_path / "full", *once))
    slow = weights_of(train(tiny_shards, tmp_path / "slow", *once, "model.lr_multipliers={backbone: 0.1}"))
    for name in start:
        if start[name].is_floating_point() and "running" not in name:
            factor = 0.1 if name.startswith("backbone.") else 1.0
            torch.testing.assert_close(
                slow[name] - start[name], factor * (full[name] - start[name]), rtol=0.02, atol=1e-6
            )


def test_norms_and_biases_without_decay() -> None:
    model = build_student(backbone="food11_student", head={"kind": "multi-fc"}, tasks={"a": 2})
    groups = parameter_groups(model, lr=0.1, weight_decay=0.5, norm_bias_decay=False)
    decays = {parameter.ndim > 1: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {True: 0.5, False: 0.0}


def test_stepped_decay_and_warmup_are_what_the_optimizer_gets(tiny_shards: Path, tmp_path: Path) -> None:
    schedule = (
        "schedule={epochs: 4, warmup_epochs: 1, warmup_factor: 0.4, decay: steps, milestones: [2, 3], gamma: 0.5}"
    )
    outcome = train(tiny_shards, tmp_path, schedule, "optimizer.lr=0.01")
    rates = [line["lr"] for line in steps_of(outcome)]
    assert rates == pytest.approx([0.004, 0.006, 0.008, *[0.01] * STEPS, *[0.005] * STEPS, *[0.0025] * STEPS])


def test_patience_ends_a_run_that_no_longer_improves(tiny_shards: Path, tmp_path: Path) -> None:
    """At a rate of nothing the first evaluation stays the best; two more are waited for."""
    quiet = ["optimizer.lr=1e-20", "model.freeze=[backbone]", "schedule.epochs=50", "schedule.patience=2"]
    outcome = train(tiny_shards, tmp_path, *quiet)
    evaluations = [line["epoch"] for line in outcome.lines("metrics.jsonl") if line["kind"] == "evaluation"]
    assert evaluations == [0, 1, 2]
    assert json.loads((outcome.run / "result.json").read_text())["step"] == 3 * STEPS
    (outcome.run / "result.json").unlink()  # as if killed just before it was written
    again = train(tiny_shards, tmp_path, *quiet)
    assert json.loads((again.run / "result.json").read_text())["step"] == 3 * STEPS


@pytest.mark.parametrize(
    ("new", "old", "monitor", "better"),
    [
        (0.6, 0.5, "mean_top1", True),
        (0.5, 0.5, "mean_top1", False),
        (0.4, 0.5, "age.loss", True),
        (0.6, 0.5, "age.loss", False),
        (float("nan"), 0.5, "mean_top1", False),
        (float("nan"), 0.5, "age.loss", False),
        (0.5, float("nan"), "age.loss", True),
        (0.5, float("nan"), "mean_top1", True),
        (float("nan"), float("nan"), "mean_top1", False),
    ],
)
def test_what_is_better(new: float, old: float, monitor: str, better: bool) -> None:
    assert is_better(new, old, monitor) is better


def test_the_best_model_is_the_moving_average_that_was_measured(
    tiny_shards: Path, tmp_path: Path, plain: Outcome
) -> None:
    outcome = train(tiny_shards, tmp_path, "ema.decay=0.99")
    assert json.loads((outcome.run / "last/model.json").read_text())["ema"] is True
    assert difference(outcome, plain) > 1e-3


def test_training_at_one_size_and_testing_at_another(tiny_shards: Path, tmp_path: Path, plain: Outcome) -> None:
    outcome = train(tiny_shards, tmp_path, "data.eval_size=40")
    assert difference(outcome, plain) == 0
    preprocessing = json.loads((outcome.run / "last/model.json").read_text())["preprocessing"]
    assert (preprocessing["train_size"], preprocessing["eval_size"]) == (24, 40)
    losses = [
        [line["colour.loss"] for line in run.lines("metrics.jsonl") if line["kind"] == "evaluation"]
        for run in (outcome, plain)
    ]
    assert losses[0] != losses[1]


def test_fine_tuning_starts_from_the_saved_model(tiny_shards: Path, tmp_path: Path, plain: Outcome) -> None:
    overrides = ["model.backbone=", f"model.artifact={plain.run}/last", "optimizer.lr=1e-20", "schedule.epochs=1"]
    tuned = weights_of(train(tiny_shards, tmp_path, *overrides))
    for name, tensor in weights_of(plain).items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(tuned[name], tensor), name


def batch_of(labels: list[int], *, seed: int = 0) -> Batch:
    label = torch.tensor(labels, dtype=torch.int64)
    image = torch.randint(0, 256, (len(labels), 24, 24, 3), generator=torch.Generator().manual_seed(seed)).byte()
    rows = torch.arange(len(labels))
    return Batch(
        0, 0, image, {"a": label}, {"a": label >= 0}, [str(row) for row in rows], torch.stack([rows, rows], 1), rows, []
    )


class Doubling(SingleProcess):
    """Two ranks that hold the same."""

    size = 2

    def allreduce_async(self, tensor: torch.Tensor, *, name: str) -> Any:
        return tensor.mul_(2)


@pytest.fixture
def train_step_of() -> Callable[..., TrainStep]:
    def make(*, comm: SingleProcess | None = None, precision: str = "fp32", momentum: float = 0.9) -> TrainStep:
        torch.manual_seed(0)
        model: Student = build_student(backbone="food11_student", head={"kind": "multi-fc"}, tasks={"a": 2}).train()
        objective = Objective([label_term("a")])
        groups = parameter_groups(model, lr=0.1, weight_decay=0.0)
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=momentum, fused=True)
        comm = comm or SingleProcess()
        return TrainStep(
            model=model,
            normalise=Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            objective=objective,
            optimizer=optimizer,
            buckets=GradientBuckets(model, comm),
            metrics=TrainMetrics(objective, ["a"], CPU),
            comm=comm,
            device=CPU,
            learning_rate=lambda step: 0.1,
            precision=precision,
        )

    return make


def state_of(train_step: TrainStep) -> dict[str, torch.Tensor]:
    state = train_step.model.state_dict().items()
    return {name: tensor.clone() for name, tensor in state if tensor.is_floating_point()}


@pytest.mark.parametrize("comm", [SingleProcess(), Doubling()], ids=["alone", "two ranks"])
def test_an_update_without_a_usable_sample_leaves_the_model_as_it_was(
    comm: SingleProcess, train_step_of: Callable
) -> None:
    train_step = train_step_of(comm=comm)
    before = state_of(train_step)
    train_step.update(batch_of([]), StepTotals([0.0], 0, 3, False), step=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(train_step).items())
    train_step.update(batch_of([0, 1, 1]), StepTotals([3.0], 3 * comm.size, 0, False), step=1)
    changed = [name for name, tensor in state_of(train_step).items() if not torch.equal(tensor, before[name])]
    assert any("running_var" in name for name in changed)
    assert any("classifiers" in name for name in changed)


def test_an_update_that_overflows_is_skipped_and_halves_the_scale(train_step_of: Callable) -> None:
    train_step = train_step_of(precision="fp16")
    assert train_step.scale is not None
    train_step.scale.value.fill_(2.0**24)
    with torch.no_grad():
        train_step.model.heads.classifiers.task_a.weight.mul_(1000)
    before = state_of(train_step)
    train_step.update(batch_of([0, 1, 1, 0]), StepTotals([4.0], 4, 0, False), step=0)
    assert train_step.metrics.read(SingleProcess())["skipped_updates"] == 1
    assert train_step.scale.value.item() == 2.0**23
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(train_step).items())


def test_momentum_starts_at_zero_though_the_first_update_is_skipped(tiny_shards: Path, tmp_path: Path) -> None:
    """The fused kernel makes room for momentum in the first step; a skipped one must not leave it unset."""
    config = load_config(small_config(tiny_shards, tmp_path))
    model = build_student(backbone="food11_student", head={"kind": "multi-fc"}, tasks={"a": 2}).train()
    optimizer = optimizer_from(config, model, torch.nn.ModuleList())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    rubbish = [torch.full_like(parameter, 7e8) for parameter in model.parameters()]
    del rubbish  # the allocator hands this memory out next
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
    momenta = [optimizer.state[parameter]["momentum_buffer"] for parameter in model.parameters()]
    assert all(torch.all(momentum == 0) for momentum in momenta)


def test_micro_batches_make_the_same_update(tiny_shards: Path, tmp_path: Path) -> None:
    """With norms on running statistics (a frozen backbone), where how the batch is cut cannot matter."""
    overrides = ["model.freeze=[backbone]", "schedule.epochs=1"]
    whole = train(tiny_shards, tmp_path / "whole", *overrides)
    cut = train(tiny_shards, tmp_path / "cut", *overrides, "micro_batch=4")
    assert difference(cut, whole) < 1e-6
