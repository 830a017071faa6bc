"""Backbones by name: our own small networks in `BACKBONES`, and every timm model.

`create_backbone("mobilenetv2_050", pretrained=False, drop_path_rate=0.0)`

To add one: a file with a function that returns a `Backbone`, and a line in `BACKBONES`.
"""

from collections.abc import Callable

from models.backbones.backbone import Backbone
from models.backbones.cifar import cifar10_student, cifar10_teacher
from models.backbones.cifar_resnet import cifar_resnet20, cifar_resnet56
from models.backbones.food11_student import food11_student
from models.backbones.from_timm import timm_backbone
from models.backbones.packaged_lite import PACKAGED, packaged_lite
from models.backbones.plain import food11_big, food11_standard
from models.backbones.separable import food11_depthwise, food11_grouped, food11_low_rank
from models.errors import ModelError

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "food11_student": food11_student,
    "food11_big": food11_big,
    "food11_low_rank": food11_low_rank,
    "food11_depthwise": food11_depthwise,
    "food11_standard": food11_standard,
    "food11_grouped": food11_grouped,
    "cifar10_teacher": cifar10_teacher,
    "cifar10_student": cifar10_student,
    "cifar_resnet20": cifar_resnet20,
    "cifar_resnet56": cifar_resnet56,
}

__all__ = ["BACKBONES", "PACKAGED", "Backbone", "create_backbone"]


def create_backbone(name: str, *, pretrained: bool, drop_path_rate: float) -> Backbone:
    """The backbone `name`; unknown names and options that it does not have raise ModelError."""
    if name in PACKAGED:
        return packaged_lite(name, pretrained=pretrained, drop_path_rate=drop_path_rate)
    if name not in BACKBONES:
        return timm_backbone(
            name, pretrained=pretrained, drop_path_rate=drop_path_rate, other_names=[*BACKBONES, *PACKAGED]
        )
    if pretrained:
        raise ModelError(f"backbone {name!r} has no published weights; set pretrained: false")
    if drop_path_rate:
        raise ModelError(f"backbone {name!r} has no stochastic depth; leave drop_path_rate at 0")
    return BACKBONES[name]()
