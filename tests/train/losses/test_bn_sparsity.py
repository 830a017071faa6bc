"""Sparse training: the penalty reaches every gamma, in full, once, and whatever the precision."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.loading.batch import Batch
from models.errors import ModelError
from models.parameter_groups import freeze_parts
from models.preprocessing import Normalise
from models.student import Student, build_student
from tests.end_to_end.test_ranks import assert_close, outcome_of, write_config
from tests.small_run import STEPS, train_small
from train.distributed.comm import SingleProcess
from train.distributed.gradient_buckets import GradientBuckets
from train.loop.step_sync import StepSync
from train.loop.train_metrics import TrainMetrics
from train.loop.train_step import TrainStep
from train.losses.bn_sparsity import (
    PenalisedNorm,
    ProximalSparsity,
    SubgradientSparsity,
    gamma_report,
    penalised_norms,
    sparsity_factor,
)
from train.losses.objective import Objective, label_term
from train.main import main

CPU = torch.device("cpu")
TASKS = {"colour": 3, "tone": 2}
RATE, STRENGTH = 0.1, 0.02


def small_student(seed: int = 0) -> Student:
    torch.manual_seed(seed)
    student = build_student(
        backbone="food11_student", head={"kind": "multi-embedding", "width": 8}, tasks=TASKS
    ).train()
    with torch.no_grad():
        for norm in penalised_norms(student):
            norm.weight.uniform_(-1, 1)
    return student


def some_batch() -> Batch:
    draw = torch.Generator().manual_seed(3)
    image = torch.randint(256, (8, 32, 32, 3), dtype=torch.uint8, generator=draw)
    label = {task: torch.randint(classes, (8,), generator=draw) for task, classes in TASKS.items()}
    number = torch.arange(8)
    return Batch(
        epoch=0,
        step=0,
        image=image,
        label=label,
        valid={task: column >= 0 for task, column in label.items()},
        key=[f"photo{at}" for at in range(8)],
        index=torch.stack([torch.zeros_like(number), number], dim=1),
        row=number,
        bad=[],
    )


def train(
    student: Student,
    *,
    kind: str,
    strength: float = STRENGTH,
    steps: int = 1,
    precision: str = "fp32",
    momentum: float = 0.0,
    clip_norm: float | None = None,
    micro_batch: int | None = None,
    scales: Sequence[float] = (),
) -> TrainStep:
    """A few updates with the stage of that kind; `scales` set the loss scale before each step."""
    optimizer = torch.optim.SGD(student.parameters(), lr=RATE, momentum=momentum, fused=True)
    objective = Objective([label_term(task) for task in TASKS])
    comm = SingleProcess()
    norms = penalised_norms(student)
    train_step = TrainStep(
        model=student,
        normalise=Normalise((0.5,) * 3, (0.25,) * 3),
        objective=objective,
        optimizer=optimizer,
        buckets=GradientBuckets(student, comm),
        metrics=TrainMetrics(objective, list(TASKS), CPU),
        comm=comm,
        device=CPU,
        learning_rate=lambda step: RATE,
        precision=precision,
        clip_norm=clip_norm,
        micro_batch=micro_batch,
        gradient_hooks=[SubgradientSparsity(norms, strength=lambda _: strength)] if kind == "subgradient" else [],
        update_hooks=([ProximalSparsity(norms, optimizer, strength=lambda _: strength)] if kind == "proximal" else []),
    )
    control = StepSync(objective, comm)
    for step in range(steps):
        if train_step.scale is not None and scales:
            train_step.scale.value.fill_(scales[step])
        batch = some_batch()
        control.start(batch, stop=False)
        train_step.update(batch, control.finish(), step=step)
    return train_step


def gammas(student: nn.Module) -> torch.Tensor:
    return torch.cat([norm.weight.detach().flatten() for norm in penalised_norms(student)])


def pull(kind: str, *, precision: str = "fp32", **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """(start, what the penalty alone changed): the same step with and without it."""
    start = gammas(small_student())
    with_penalty, without = small_student(), small_student()
    train(with_penalty, kind=kind, precision=precision, **options)  # type: ignore[arg-type]
    train(without, kind="none", precision=precision, **options)  # type: ignore[arg-type]
    return start, gammas(with_penalty) - gammas(without)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_subgradient_pulls_every_gamma_by_rate_times_strength(precision: str) -> None:
    """In fp16 the loss is scaled by up to 65,536; a penalty added before the unscaling would all but vanish."""
    start, change = pull("subgradient", precision=precision, scales=[1024.0])
    torch.testing.assert_close(change, -RATE * STRENGTH * start.sign(), rtol=1e-3, atol=1e-6)


def test_clipping_and_micro_batches_leave_the_penalty_whole() -> None:
    start, change = pull("subgradient", clip_norm=1e-3, micro_batch=3)
    torch.testing.assert_close(change, -RATE * STRENGTH * start.sign(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_proximal_step_is_a_soft_threshold_with_exact_zeros(precision: str) -> None:
    strength = 3.0  # rate x strength = 0.3: about a third of the gammas
    without, with_penalty = small_student(), small_student()
    train(without, kind="none", precision=precision, scales=[1024.0])
    train(with_penalty, kind="proximal", strength=strength, precision=precision, scales=[1024.0])
    moved, ours = gammas(without), gammas(with_penalty)
    expected = moved.sign() * (moved.abs() - RATE * strength).clamp(min=0)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)
    zeros = ours == 0
    assert 0.2 < zeros.float().mean() < 0.4
    assert torch.equal(zeros, moved.abs() <= RATE * strength)


def test_the_proximal_step_follows_the_rate_of_each_optimizer_group() -> None:
    slow, fast = nn.Parameter(torch.ones(4)), nn.Parameter(-torch.ones(4))
    optimizer = torch.optim.SGD([{"params": [slow], "lr": 0.01}, {"params": [fast], "lr": 0.1}], lr=1.0)
    optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]
    norms = [PenalisedNorm("slow", slow, 1.0), PenalisedNorm("fast", fast, 2.0)]
    ProximalSparsity(norms, optimizer, strength=lambda step: 1.0 + step)(1)
    torch.testing.assert_close(slow.detach(), torch.full((4,), 1 - 0.01 * 2))
    torch.testing.assert_close(fast.detach(), torch.full((4,), -(1 - 0.1 * 2 * 2)))


@pytest.mark.parametrize("kind", ["subgradient", "proximal"])
def test_a_skipped_update_moves_no_gamma(kind: str) -> None:
    student = small_student()
    before = gammas(student)
    train_step = train(student, kind=kind, precision="fp16", scales=[1e30])
    assert train_step.metrics.read(SingleProcess())["skipped_updates"] == 1  # one update was skipped
    assert torch.equal(gammas(student), before)


def test_many_small_steps_make_many_gammas_near_zero() -> None:
    sparse, plain = small_student(), small_student()
    train(sparse, kind="proximal", strength=0.4, steps=30)
    train(plain, kind="none", steps=30)
    near = [gamma_report(penalised_norms(student))["gamma.near_zero"] for student in (sparse, plain)]
    assert near[0] > 0.5 * len(gammas(sparse)) > 10 * near[1]


def test_only_norms_are_penalised_and_frozen_ones_are_not() -> None:
    student = small_student()
    names = {norm.name for norm in penalised_norms(student)}
    assert names == {
        name for name, module in student.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    }
    freeze_parts(student, ["backbone.stem"])
    assert names - {norm.name for norm in penalised_norms(student)} == {"backbone.stem.1"}


def test_factors_go_by_part_then_kind() -> None:
    student = build_student(backbone="mobilenetv2_050", head={"kind": "multi-embedding", "width": 8}, tasks=TASKS)
    groups = {"hidden": 1.0, "stream": 0.5, "backbone.blocks.1": 0.1, "backbone.blocks.1.0": 2.0, "heads": 0.0}
    factors = {norm.name: norm.factor for norm in penalised_norms(student, groups=groups)}
    assert factors["backbone.blocks.3.0.bn1"] == factors["backbone.blocks.3.0.bn2"] == 1.0
    assert factors["backbone.blocks.3.0.bn3"] == 0.5
    assert factors["backbone.blocks.1.1.bn1"] == 0.1
    assert factors["backbone.blocks.1.0.bn3"] == 2.0
    assert "backbone.bn1" not in factors  # the stem is no kind that was named
    assert not any(name.startswith("heads") for name in factors)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"hiden": 1.0}, "'hiden' is neither a part of the model nor a kind"),
        ({"heads": 0.0}, "no trainable batch norm"),
    ],
)
def test_groups_that_name_nothing_are_refused(groups: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        penalised_norms(small_student(), groups=groups)


@pytest.mark.parametrize(
    ("step", "start", "ramp", "factor"),
    [
        (0, 0, 0, 1.0),
        (19, 2, 0, 0.0),
        (20, 2, 0, 1.0),
        (20, 2, 4, 0.0),
        (40, 2, 4, 0.5),
        (60, 2, 4, 1.0),
        (90, 2, 4, 1.0),
    ],
)
def test_the_ramp_is_a_function_of_the_step(step: int, start: float, ramp: float, factor: float) -> None:
    assert sparsity_factor(step, steps_per_epoch=10, start_epoch=start, ramp_epochs=ramp) == pytest.approx(factor)


def test_the_report_counts_every_gamma_once() -> None:
    weight = nn.Parameter(torch.tensor([0.0, 0.005, -0.009, 0.05, -0.5, 2.0]))
    report = gamma_report([PenalisedNorm("norm", weight, 1.0)])
    assert (report["gamma.count"], report["gamma.near_zero"], report["gamma.near_zero_share"]) == (6, 3, 0.5)
    assert report["gamma.histogram"] == [1, 2, 1, 0, 1, 1]
    assert report["gamma.histogram_edges"] == [0.0, 0.001, 0.01, 0.1, 0.3, 1.0, 2.0]


SPARSE = {
    "subgradient": ["sparsity.kind=subgradient", "sparsity.strength=1.0"],
    "proximal": ["sparsity.kind=proximal", "sparsity.strength=2.0", "sparsity.groups={backbone: 1.0, heads: 0.5}"],
}


UNCHECKED = """
import sys
from train.setup import experiment
from train.main import main
experiment.check_norms = lambda *_, **__: None
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", SPARSE)
def test_two_ranks_train_sparse_as_one_does(
    kind: str, tiny_shards: Path, tmp_path: Path, run_ranks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of one photo keep the norms on their statistics, which would otherwise be those of each rank. They
    are refused for it, so the refusal is switched off."""
    monkeypatch.setattr("train.setup.experiment.check_norms", lambda *_, **__: None)
    model = {"backbone": "food11_student", "head": {"kind": "multi-embedding", "width": 8}}
    plain = ["micro_batch=1", "schedule={epochs: 1}"]
    runs = {}
    for name, overrides in (("one", [*plain, *SPARSE[kind]]), ("without", plain)):
        (tmp_path / name).mkdir()
        config = write_config(tmp_path / name, tiny_shards, model=model)
        assert main(["--config", str(config), *overrides]) == 0
        runs[name] = outcome_of(tmp_path / name / "run", 1).weights
    (tmp_path / "two").mkdir()
    config = write_config(tmp_path / "two", tiny_shards, model=model)
    result = run_ranks(2, ["-c", UNCHECKED, "--config", str(config), *plain, *SPARSE[kind]])
    assert result.exit_code == 0, result.output
    two = outcome_of(tmp_path / "two" / "run", 2).weights
    assert_close(two, runs["one"])
    sizes = {name: weights["backbone.layer3.1.weight"].abs().mean() for name, weights in runs.items()}
    assert sizes["one"] < 0.95 * sizes["without"]


def test_a_sparse_run_logs_its_gammas_and_one_without_does_not(tiny_shards: Path, tmp_path: Path) -> None:
    sparse = train_small(
        tiny_shards, tmp_path / "sparse", "sparsity.kind=proximal", "sparsity.strength=100", "sparsity.start_epoch=1"
    )
    assert sparse.exit_code == 0, sparse.stderr
    lines = [line for line in sparse.lines("metrics.jsonl") if line["kind"] == "train"]
    near_zero = [line["gamma.near_zero"] for line in lines]
    assert near_zero[:STEPS] == [0] * STEPS  # before start_epoch
    assert near_zero[-1] > 0
    assert all(sum(line["gamma.histogram"]) == line["gamma.count"] for line in lines)
    assert len(lines[0]["gamma.histogram_edges"]) == len(lines[0]["gamma.histogram"]) + 1
    plain = train_small(tiny_shards, tmp_path / "plain")
    assert not any(key.startswith("gamma") for line in plain.lines("metrics.jsonl") for key in line)


def test_wandb_gets_the_gammas_as_a_histogram(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", lambda self, values: logged.append(values))
    arguments = ("sparsity.kind=subgradient", "tracking.wandb.mode=offline", "schedule.epochs=1")
    assert train_small(tiny_shards, tmp_path, *arguments).exit_code == 0
    values = next(values for values in logged if "train/gamma.near_zero" in values)
    assert sum(values["train/gamma.histogram"].histogram) == values["train/gamma.count"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sparsity.strength=0", "sparsity.strength: Input should be greater than 0"),
        ("sparsity.kind=lasso", "sparsity.kind"),
        ("sparsity.start_epoch=9", "sparsity.start_epoch 9 is not below schedule.epochs"),
        ("sparsity.strenght=1", "did you mean 'strength'?"),
        ("sparsity.groups={hiden: 1}", "sparsity.groups: 'hiden' is neither a part of the model nor a kind"),
    ],
)
def test_a_wrong_sparsity_section_is_named(override: str, message: str, tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path, override)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.backbone=test_byobnet"], "sparsity: a backbone of class ByobNet cannot be pruned: no channel groups"),
        (["model.backbone=test_efficientnet"], "sparsity: backbone.blocks.0.0 is a ConvBnAct, for which no"),
        (["model.backbone=cifar10_student", "data.image_size=32"], "sparsity: no trainable batch norm is penalised"),
    ],
)
def test_a_network_that_cannot_be_pruned_is_not_trained_sparse(
    overrides: list[str], message: str, tiny_shards: Path, tmp_path: Path
) -> None:
    outcome = train_small(tiny_shards, tmp_path, "sparsity.strength=1e-4", *overrides)
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert not outcome.lines("trace-rank0.jsonl")
