"""What a criterion says: which units matter, to which losses, and that pruning the others costs less."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from models.channel_groups.narrow import Norm
from models.errors import ModelError
from models.formats.latency import inference, measure_latency
from models.student import Student, build_student
from prune.bn_recalibration import recalibrate
from prune.curve import share_of_zeros, without_small_weights
from prune.importance import (
    CRITERIA,
    Batch,
    gamma_importance,
    max_drop_importance,
    relative_gamma_importance,
    taylor_importance,
    weight_importance,
)

TASKS = {"age": 5, "type": 2}


def student_and_batches(num_batches: int = 2) -> tuple[Student, list[Batch]]:
    torch.manual_seed(0)
    student = build_student(backbone="cifar_resnet20", head={"kind": "multi-embedding", "width": 12}, tasks=TASKS)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(0.2, 1)
                module.bias.uniform_(-0.3, 0.3)
    batches: list[Batch] = [
        (torch.randn(6, 3, 32, 32), {task: torch.randint(classes, (6,)) for task, classes in TASKS.items()})
        for _ in range(num_batches)
    ]
    recalibrate(student, [images for images, _ in batches])
    return student, batches


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_has_a_number_for_every_unit_and_changes_nothing(name: str) -> None:
    student, batches = student_and_batches()
    before = copy.deepcopy(student.state_dict())
    groups = student.channel_groups()
    importance = CRITERIA[name](student, groups, batches)
    assert list(importance) == [group.name for group in groups]
    for group in groups:
        assert importance[group.name].shape == (group.num_units,)
        assert importance[group.name].dtype == np.float64
        assert (importance[group.name] >= 0).all()
        assert importance[group.name].std() > 0
    assert all(torch.equal(tensor, before[key]) for key, tensor in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_gamma_is_the_mean_over_the_norms_of_a_group() -> None:
    student = build_student(backbone="mobilenetv2_050", head={"kind": "multi-fc"}, tasks=TASKS)
    group = next(group for group in student.channel_groups() if group.name == "backbone.blocks.1.0.conv_pw")
    block = student.backbone.blocks[1][0]
    with torch.no_grad():
        block.bn1.weight.uniform_(-1, 1)
        block.bn2.weight.uniform_(-1, 1)
    expected = (block.bn1.weight.abs() + block.bn2.weight.abs()) / 2
    np.testing.assert_allclose(
        gamma_importance(student, [group])[group.name], expected.detach().double().numpy(), rtol=1e-6
    )


def test_relative_gammas_rank_within_a_layer_and_not_between_layers() -> None:
    student, _ = student_and_batches()
    groups = student.channel_groups()
    with torch.no_grad():
        for gate in groups[0].gates:
            student.get_submodule(gate.module).weight.mul_(0.01)
    gammas, relative = gamma_importance(student, groups), relative_gamma_importance(student, groups)
    assert gammas[groups[0].name].max() < min(gammas[group.name].min() for group in groups[1:])
    assert all(importance.mean() == pytest.approx(1) for importance in relative.values())
    assert all((np.argsort(relative[name]) == np.argsort(importance)).all() for name, importance in gammas.items())


def test_importance_by_weights_is_comparable_between_layers_of_any_size() -> None:
    student, _ = student_and_batches()
    groups = student.channel_groups()
    before = weight_importance(student, groups)
    assert all(importance.mean() == pytest.approx(1) for importance in before.values())
    with torch.no_grad():
        student.get_submodule(groups[0].name).weight.mul_(100)
        student.get_submodule(groups[1].name).weight[3] *= 2
    after = weight_importance(student, groups)
    np.testing.assert_allclose(after[groups[0].name], before[groups[0].name], rtol=1e-6)
    assert after[groups[1].name][3] > 1.5 * before[groups[1].name][3]


def test_taylor_is_the_loss_that_a_slightly_silenced_unit_costs() -> None:
    """Against the losses themselves, by finite differences in float64."""
    student, batches = student_and_batches(num_batches=1)
    student, images = student.double(), batches[0][0].double()
    labels = batches[0][1]
    group = student.channel_groups()[2]
    importance = taylor_importance(student, [group], [(images, labels)])[group.name]

    def loss(model: Student) -> float:
        with torch.no_grad():
            return float(sum(cross_entropy(values, labels[task]) for task, values in model(images).items()))

    for unit in (0, 5, 11):
        changed, step = copy.deepcopy(student), 1e-6
        with torch.no_grad():
            gate = changed.get_submodule(group.gates[0].module)
            gate.weight[unit] *= 1 - step
            gate.bias[unit] *= 1 - step
        assert abs(loss(changed) - loss(student)) / step == pytest.approx(importance[unit], rel=1e-3, abs=1e-9)


def test_max_drop_protects_the_channels_of_a_task_with_small_losses() -> None:
    """The sum of the losses hardly sees a task whose logits barely move; the maximum over the tasks does."""
    student, batches = student_and_batches()
    with torch.no_grad():
        student.heads.branches.task_type[1].weight.mul_(1e-4)
    groups = student.channel_groups()
    own = "heads.branches.task_type.0.0"
    shares = {}
    for name, criterion in (("taylor", taylor_importance), ("max-drop", max_drop_importance)):
        importance = criterion(student, groups, batches)
        shares[name] = importance[own].mean() / np.concatenate(list(importance.values())).mean()
    assert shares["max-drop"] > 0.1
    assert shares["taylor"] < 0.01 * shares["max-drop"]


def test_missing_labels_count_for_nothing() -> None:
    student, batches = student_and_batches(num_batches=1)
    images, labels = batches[0]
    groups = student.channel_groups()
    without = {"age": labels["age"], "type": torch.full((6,), -1)}
    importance = max_drop_importance(student, groups, [(images, without)])
    assert all(np.isfinite(values).all() for values in importance.values())
    assert importance["heads.branches.task_type.0.0"].max() == 0
    assert importance["heads.branches.task_age.0.0"].max() > 0


@pytest.mark.parametrize("name", ["taylor", "max-drop"])
def test_criteria_of_losses_need_images(name: str) -> None:
    student, _ = student_and_batches()
    with pytest.raises(ModelError, match="needs labelled photos"):
        CRITERIA[name](student, student.channel_groups(), [])


def test_recalibrated_statistics_are_the_averages_over_the_batches() -> None:
    student, batches = student_and_batches()
    parameters = copy.deepcopy(dict(student.named_parameters()))
    assert recalibrate(student, (images for images, _ in batches)) == 2
    stem = student.backbone.stem
    maps = [stem[0](images) for images, _ in batches]
    mean = torch.stack([each.mean(dim=(0, 2, 3)) for each in maps]).mean(dim=0)
    variance = torch.stack([each.var(dim=(0, 2, 3)) for each in maps]).mean(dim=0)
    torch.testing.assert_close(stem[1].running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem[1].running_var, variance, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in student.named_parameters())
    assert {module.momentum for module in student.modules() if isinstance(module, Norm)} == {0.1}
    assert not any(module.training for module in student.modules())


def test_no_batch_leaves_the_statistics_alone() -> None:
    student, _ = student_and_batches()
    before = copy.deepcopy(student.state_dict())
    assert recalibrate(student, []) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize("ratio", [0.2, 0.9])
def test_magnitude_pruning_zeroes_the_smallest_weights_of_all_layers_together(ratio: float) -> None:
    student, _ = student_and_batches()
    zeroed = without_small_weights(student, ratio=ratio)
    assert share_of_zeros(zeroed) == pytest.approx(ratio, abs=0.001)
    assert share_of_zeros(student) < 0.001
    left, gone = [], []
    for name, tensor in student.state_dict().items():
        if name.endswith("weight") and tensor.ndim > 1:
            kept = zeroed.state_dict()[name] != 0
            left.append(tensor[kept].abs().flatten())
            gone.append(tensor[~kept].abs().flatten())
    assert torch.cat(gone).max() <= torch.cat(left).min()
    assert set(zeroed.state_dict()) == set(student.state_dict())


@pytest.mark.parametrize("installed", [True, False], ids=["onnxruntime", "torch"])
def test_latency_is_measured_on_what_is_installed(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    student, _ = student_and_batches()
    if not installed:
        monkeypatch.setattr("models.formats.latency.importlib.util.find_spec", lambda name: None)
    state = copy.deepcopy(student.state_dict())
    student.train()
    latency = measure_latency(student, image_size=32, threads=1)
    assert latency.runtime.startswith("onnxruntime" if installed else "torch")
    assert 0 < latency.milliseconds < 10_000
    assert (latency.threads, latency.image_size) == (1, 32)
    assert student.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in student.state_dict().items())


def test_what_is_timed_is_the_network_itself() -> None:
    student, _ = student_and_batches()
    run, _ = inference(student, image_size=32, threads=1)
    with torch.no_grad():
        expected = student(torch.zeros(1, 3, 32, 32))
    for ours, theirs in zip(run(), expected.values(), strict=True):  # type: ignore[call-overload]
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4)
