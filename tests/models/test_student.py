"""A student is its flat arguments: the same arguments make the same network, and bad ones are named."""

import pytest
import torch

from models.errors import ModelError
from models.preprocessing import IMAGENET
from models.student import build_student

TASKS = {"age": 5, "gender": 2}
FC = {"kind": "multi-fc"}


def test_resnet18_with_eleven_classes_has_the_published_count() -> None:
    student = build_student(backbone="resnet18", head=FC, tasks={"class": 11})
    assert student.num_parameters == 11_182_155
    assert student.num_features == 512


def test_the_production_student_is_mobilenetv2_050_with_three_embeddings() -> None:
    tasks = {"gender": 2, "age": 10, "beauty": 5}
    student = build_student(backbone="mobilenetv2_050", head={"kind": "multi-embedding", "width": 512}, tasks=tasks)
    in_heads = sum(parameter.numel() for parameter in student.heads.parameters())
    assert round(in_heads / 1e6, 2) == 1.98
    assert 2.6e6 < student.num_parameters < 2.8e6


@pytest.mark.parametrize(
    ("backbone", "size"), [("mobilenetv2_100", 32), ("resnest50d", 32), ("mobilenetv3_small_100", 32)]
)
def test_timm_backbones_give_their_pooled_feature(backbone: str, size: int) -> None:
    student = build_student(backbone=backbone, head=FC, tasks=TASKS).eval()
    with torch.no_grad():
        features = student.forward_features(torch.zeros(1, 3, size, size))
    assert features.shape == (1, student.num_features)


def test_architecture_rebuilds_the_same_network() -> None:
    head = {"kind": "multi-se", "reduction": 8}
    first = build_student(backbone="cifar_resnet20", head=head, tasks=TASKS, drop_rate=0.1)
    again = build_student(**first.architecture)
    again.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(first.eval()(images)["age"], again.eval()(images)["age"])
    assert again.architecture == first.architecture
    assert again.dropout.p == 0.1


def test_options_that_were_not_given_are_recorded_with_their_defaults() -> None:
    student = build_student(backbone="cifar10_student", head={"kind": "multi-embedding"}, tasks=TASKS)
    assert student.architecture["head"] == {"kind": "multi-embedding", "width": 512, "activation": "relu"}


def test_drop_rate_drops_pooled_features_in_training_only() -> None:
    student = build_student(backbone="cifar_resnet20", head=FC, tasks=TASKS, drop_rate=0.5)
    images = torch.randn(4, 3, 32, 32)
    student.eval()
    assert torch.equal(student(images)["age"], student(images)["age"])
    student.train()
    assert not torch.equal(student(images)["age"], student(images)["age"])


def test_stochastic_depth_reaches_timm() -> None:
    student = build_student(backbone="mobilenetv2_050", head=FC, tasks=TASKS, drop_path_rate=0.2)
    rates = [module.drop_prob for module in student.modules() if type(module).__name__ == "DropPath"]
    assert rates
    assert max(rates) > 0.1


def test_preprocessing_is_the_backbone_s_own() -> None:
    assert build_student(backbone="resnet18", head=FC, tasks=TASKS).preprocessing == IMAGENET
    assert build_student(backbone="tf_efficientnet_lite0", head=FC, tasks=TASKS).preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "mobilnetv2_050"}, r"unknown backbone 'mobilnetv2_050'; did you mean .*mobilenetv2_050"),
        ({"backbone": "food11_studnet"}, r"unknown backbone 'food11_studnet'; did you mean food11_student"),
        ({"backbone": "food11_student", "pretrained": True}, r"'food11_student' has no published weights"),
        ({"backbone": "food11_student", "drop_path_rate": 0.1}, r"'food11_student' has no stochastic depth"),
        ({"backbone": "vgg11", "drop_path_rate": 0.1}, r"'vgg11' has no stochastic depth"),
        ({"head": {"width": 512}}, r"head.kind is missing"),
        ({"widths": {"backbone.bn1": 8}}, r"no channel group 'backbone.bn1'"),
    ],
)
def test_what_a_student_cannot_be_is_said_by_name(arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_student(**{"backbone": "cifar10_student", "head": FC, "tasks": TASKS, **arguments})
