"""What may be pruned of a network, declared for each family of backbones and each head.

groups = channel_groups(student.backbone, student.heads)

To add a family: a file with a function from (backbone, head inputs) to groups, and a line in `FAMILIES`.
"""

from collections.abc import Callable

from torch import nn

from models.channel_groups.convolutions import (
    cifar_groups,
    cifar_resnet_groups,
    food11_student_groups,
    plain_groups,
    separable_groups,
)
from models.channel_groups.group import KINDS, Consumer, Group, Member, require_gate
from models.channel_groups.heads import HeadInputs, head_groups
from models.errors import ModelError


def _efficientnet(backbone: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    from models.channel_groups.efficientnet import efficientnet_groups  # loads timm, which the backbone has loaded

    return efficientnet_groups(backbone, inputs)


def _resnet(backbone: nn.Module, inputs: HeadInputs) -> tuple[Group, ...]:
    from models.channel_groups.resnet import resnet_groups  # as above

    return resnet_groups(backbone, inputs)


# By the full name of the backbone's class, so that timm is not loaded for networks of our own.
FAMILIES: dict[str, Callable[[nn.Module, HeadInputs], tuple[Group, ...]]] = {
    "timm.models.efficientnet.EfficientNet": _efficientnet,
    "timm.models.resnet.ResNet": _resnet,
    "models.backbones.food11_student.Food11Student": food11_student_groups,
    "models.backbones.separable.SeparableNet": separable_groups,
    "models.backbones.plain.PlainNet": plain_groups,
    "models.backbones.cifar.CifarNet": cifar_groups,
    "models.backbones.cifar_resnet.CifarResNet": cifar_resnet_groups,
}

__all__ = ["FAMILIES", "KINDS", "Consumer", "Group", "Member", "channel_groups"]


def channel_groups(backbone: nn.Module, heads: nn.Module) -> tuple[Group, ...]:
    """Of a student's two parts, at their present widths; names start at the student (`backbone.`, `heads.`).

    Raises ModelError, with the reason, for a backbone that has no declared groups: it trains and exports, but it cannot
    be pruned.
    """
    kind = type(backbone)
    family = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
    if family is None:
        known = ", ".join(name.rpartition(".")[2] for name in FAMILIES)
        raise ModelError(
            f"a backbone of class {kind.__name__} cannot be pruned: no channel groups are declared for it "
            f"(declared: {known})"
        )
    inputs, own = head_groups(heads)
    groups = (*family(backbone, inputs), *own)
    for name in [gate.module for group in groups for gate in group.gates if gate.module.startswith("backbone.")]:
        require_gate(backbone.get_submodule(name.removeprefix("backbone.")), name)
    return groups
