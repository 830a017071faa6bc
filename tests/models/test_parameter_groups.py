"""Every trained parameter is in exactly one group with the right rate and decay; frozen parts stay still."""

from typing import Any

import pytest
import torch

from models.errors import ModelError
from models.parameter_groups import freeze_parts, parameter_groups
from models.student import Student, build_student


@pytest.fixture
def model() -> Student:
    torch.manual_seed(0)
    return build_student(backbone="cifar_resnet20", head={"kind": "multi-embedding", "width": 8}, tasks={"age": 3})


def groups_of(model: Student, **changes: Any) -> list[dict[str, Any]]:
    return parameter_groups(model, **{"lr": 0.1, "weight_decay": 1e-4, **changes})


def names_in(model: Student, group: dict[str, Any]) -> set[str]:
    members = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in members}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_bias_decay": False},
        {"multipliers": {"backbone": 0.1, "backbone.layer3": 0.5, "heads": 2.0}, "norm_bias_decay": False},
    ],
)
def test_each_parameter_is_in_exactly_one_group(model: Student, changes: dict) -> None:
    members = [id(parameter) for group in groups_of(model, **changes) for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())


def test_without_options_backbone_and_heads_train_alike(model: Student) -> None:
    groups = groups_of(model)
    assert [(g["name"], g["lr"], g["lr_multiplier"], g["weight_decay"]) for g in groups] == [
        ("backbone", 0.1, 1.0, 1e-4),
        ("heads", 0.1, 1.0, 1e-4),
    ]


def test_norms_and_biases_can_go_without_decay(model: Student) -> None:
    for group in groups_of(model, norm_bias_decay=False):
        one_dimensional = {parameter.ndim == 1 for parameter in group["params"]}
        assert one_dimensional == {group["weight_decay"] == 0.0}
        assert group["name"].endswith(", no decay") == (group["weight_decay"] == 0.0)


def test_the_innermost_multiplier_counts(model: Student) -> None:
    groups = groups_of(model, multipliers={"backbone": 0.1, "backbone.layer3": 0.5, "backbone.layer3.1": 0.25})
    by_name = {group["name"]: group for group in groups}
    assert {name: group["lr"] for name, group in by_name.items()} == pytest.approx(
        {"backbone": 0.01, "backbone.layer3": 0.05, "backbone.layer3.1": 0.025, "heads": 0.1}
    )
    assert by_name["backbone.layer3.1"]["lr_multiplier"] == 0.25
    inside = names_in(model, by_name["backbone.layer3.1"])
    assert inside
    assert all(name.startswith("backbone.layer3.1.") for name in inside)


def test_a_part_is_a_module_not_the_start_of_a_name() -> None:
    model = build_student(backbone="cifar_resnet20", head={"kind": "multi-fc"}, tasks={"age": 3, "age_group": 2})
    groups = groups_of(model, multipliers={"heads.classifiers.task_age": 2.0})
    faster = next(group for group in groups if group["lr_multiplier"] == 2.0)
    assert names_in(model, faster) == {"heads.classifiers.task_age.weight", "heads.classifiers.task_age.bias"}
    freeze_parts(model, ["heads.classifiers.task_age"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "heads.classifiers.task_age_group.weight" in trained
    assert "heads.classifiers.task_age.weight" not in trained


def test_a_frozen_backbone_does_not_change_by_training(model: Student) -> None:
    groups = groups_of(model, freeze=["backbone"], norm_bias_decay=False)
    assert {group["name"] for group in groups} == {"heads", "heads, no decay"}
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32))["age"].square().sum().backward()
        optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("heads.") for name in changed)
    assert any("running_mean" in name for name in changed)


def test_one_frozen_block_keeps_its_norms_in_eval_and_lets_gradients_through(model: Student) -> None:
    groups_of(model, freeze=["backbone.layer2"])
    model.eval().train()
    assert not model.backbone.layer2[0].bn1.training
    assert model.backbone.layer3[0].bn1.training
    model(torch.randn(2, 3, 32, 32))["age"].sum().backward()
    assert model.backbone.stem[0].weight.grad.abs().sum() > 0
    assert model.backbone.layer2[0].conv1.weight.grad is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": ["backbone.layer9"]},
            r"no part 'backbone.layer9'; did you mean 'backbone.layer\d'\? valid: backbone,",
        ),
        ({"multipliers": {"head": 2.0}}, r"no part 'head'; did you mean 'heads'\? valid: backbone, .*backbone.layer1"),
        ({"multipliers": {"heads": 0}}, r"multiplier of 'heads' is 0; it must be positive"),
        ({"freeze": ["backbone", "heads"]}, r"nothing is left to train: backbone, heads cover every parameter"),
    ],
)
def test_bad_parts_are_named(model: Student, changes: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        groups_of(model, **changes)
