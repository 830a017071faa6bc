"""What may be pruned of a network, declared for each family of backbones and each head.

groups = channel_groups(student.backbone, student.heads)

To add a family: a file with a function from (backbone, head inputs) to groups, and a line in `FAMILIES`.
"""

from collections.abc import Callable

from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import nn

from models.backbones.cifar import CifarNet
from models.backbones.cifar_resnet import CifarResNet
from models.backbones.food11_student import Food11Student
from models.backbones.plain import PlainNet
from models.backbones.separable import SeparableNet
from models.channel_groups.convolutions import (
    cifar_groups,
    cifar_resnet_groups,
    food11_student_groups,
    plain_groups,
    separable_groups,
)
from models.channel_groups.efficientnet import efficientnet_groups
from models.channel_groups.group import KINDS, Consumer, Group, Member, require_gate
from models.channel_groups.heads import HeadInputs, head_groups
from models.channel_groups.resnet import resnet_groups
from models.errors import ModelError

FAMILIES: dict[type[nn.Module], Callable[[nn.Module, HeadInputs], tuple[Group, ...]]] = {
    EfficientNet: efficientnet_groups,
    ResNet: resnet_groups,
    Food11Student: food11_student_groups,
    SeparableNet: separable_groups,
    PlainNet: plain_groups,
    CifarNet: cifar_groups,
    CifarResNet: cifar_resnet_groups,
}

__all__ = ["FAMILIES", "KINDS", "Consumer", "Group", "Member", "channel_groups"]


def channel_groups(backbone: nn.Module, heads: nn.Module) -> tuple[Group, ...]:
    """Of a student's two parts, at their present widths; names start at the student (`backbone.`, `heads.`).

    Raises ModelError, with the reason, for a backbone that has no declared groups: it trains and exports, but it cannot
    be pruned.
    """
    if type(backbone) not in FAMILIES:
        known = ", ".join(family.__name__ for family in FAMILIES)
        raise ModelError(
            f"a backbone of class {type(backbone).__name__} cannot be pruned: no channel groups are declared for it "
            f"(declared: {known})"
        )
    inputs, own = head_groups(heads)
    groups = (*FAMILIES[type(backbone)](backbone, inputs), *own)
    for name in [gate.module for group in groups for gate in group.gates if gate.module.startswith("backbone.")]:
        require_gate(backbone.get_submodule(name.removeprefix("backbone.")), name)
    return groups
