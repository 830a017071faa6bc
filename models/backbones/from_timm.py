"""Any timm model as a backbone, with timm's own pooling: `timm_backbone("resnet18", pretrained=False, ...)`.

timm is loaded when one is asked for: that takes longer than loading torch, and our own networks do without.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn

from models.backbones.backbone import Backbone
from models.errors import ModelError
from models.preprocessing import Preprocessing


def timm_backbone(name: str, *, pretrained: bool, drop_path_rate: float, other_names: Sequence[str] = ()) -> Backbone:
    """The timm model `name` without its classifier.

    timm pools it itself, because some networks (MobileNetV3, transformers) have layers behind their pooling.
    `other_names` are suggested beside timm's when the name is unknown.
    """
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, [*timm.list_models(), *other_names], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; it is neither one of ours nor a timm model"
        raise ModelError(f"unknown backbone {name!r}{hint}")
    module = _create(name, pretrained=pretrained, drop_path_rate=drop_path_rate)
    published: dict[str, Any] = module.pretrained_cfg
    return Backbone(
        module=module,
        num_features=module.head_hidden_size,
        preprocessing=Preprocessing(mean=tuple(published["mean"]), std=tuple(published["std"])),
    )


def _create(name: str, *, pretrained: bool, drop_path_rate: float) -> Any:
    import timm

    options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    try:
        module: nn.Module = timm.create_model(name, num_classes=0, pretrained=False, **options)
    except TypeError as error:
        raise ModelError(f"backbone {name!r} has no stochastic depth; leave drop_path_rate at 0 ({error})") from error
    if not pretrained:
        return module
    try:
        return timm.create_model(name, num_classes=0, pretrained=True, **options)
    except Exception as error:  # the hub's, HTTP's and timm's errors share no base class
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"cannot get the published weights of {name!r} ({type(error).__name__}: {reason}); without a network set "
            "pretrained: false, or use efficientnet_lite0_packaged, whose weights come in a Python package"
        ) from error
