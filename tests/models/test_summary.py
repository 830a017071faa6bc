"""Parameters and MACs agree with published figures and with a count by hand."""

from pathlib import Path

import pytest
import torch

from models import summary
from models.artifact import save_artifact
from models.errors import ModelError
from models.student import build_student
from models.summary import summarize


@pytest.mark.parametrize(
    ("backbone", "image_size", "classes", "parameters", "macs"),
    [
        ("resnet18", 224, 1000, 11_689_512, 1.814e9),  # He et al. 2016: 1.8e9
        ("mobilenetv2_100", 224, 1000, 3_504_872, 300.8e6),  # Sandler et al. 2018: 300M
        ("cifar_resnet20", 32, 10, 269_722, 40.55e6),
    ],
)
def test_published_counts(backbone: str, image_size: int, classes: int, parameters: int, macs: float) -> None:
    model = build_student(backbone=backbone, head={"kind": "multi-fc"}, tasks={"class": classes})
    counted = summarize(model, image_size=image_size)
    assert counted.parameters == parameters == model.num_parameters
    assert counted.macs == pytest.approx(macs, rel=1e-3)


def test_layers_by_hand() -> None:
    model = build_student(backbone="food11_grouped", head={"kind": "multi-fc"}, tasks={"class": 11})
    layers = {layer.name: layer for layer in summarize(model, image_size=64).layers}
    stem, grouped = layers["backbone.stem.0"], layers["backbone.blocks.1.0"]
    assert (stem.output_shape, stem.parameters, stem.macs) == ((16, 64, 64), 3 * 16 * 9 + 16, 64 * 64 * 16 * 3 * 9)
    assert (grouped.output_shape, grouped.parameters) == ((32, 16, 16), 32 * 16 * 9 + 32)
    assert grouped.macs == 16 * 16 * 32 * 16 * 9
    assert list(layers)[-1] == "heads.classifiers.task_class"


def test_each_task_has_its_row() -> None:
    tasks = {"age": 5, "age_group": 2}
    model = build_student(backbone="cifar_resnet20", head={"kind": "multi-shared-fc", "width": 8}, tasks=tasks)
    parts = summarize(model, image_size=32).parts
    assert parts["heads, shared"] == (64 * 8 + 8, 64 * 8)
    assert parts["heads, age"] == (8 * 5 + 5, 8 * 5)
    assert parts["heads, age_group"] == (8 * 2 + 2, 8 * 2)
    assert sum(parameters for parameters, _ in parts.values()) == model.num_parameters


def test_the_model_is_left_as_it_was() -> None:
    model = build_student(backbone="cifar_resnet20", head={"kind": "multi-embedding"}, tasks={"class": 3}).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summarize(model, image_size=32)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_command_reads_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = build_student(backbone="cifar_resnet20", head={"kind": "multi-fc"}, tasks={"age": 5})
    preprocessing = {"mean": [0, 0, 0], "std": [1, 1, 1], "train_size": 32, "eval_size": 48}
    classes = {"age": list("abcde")}
    save_artifact(model, tmp_path, tasks=classes, preprocessing=preprocessing, metrics={}, provenance={}, ema=False)
    assert summary.main([str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())  # the path may break the title into lines
    assert "at 48x48" in printed
    assert "16x48x48" in printed
    assert f"{model.num_parameters:,}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/model"], "error: no/such/model: cannot be read"),
        (["resnet19"], "error: unknown backbone 'resnet19'; did you mean"),
        (["food11_big"], "error: this backbone takes 256x256 images, not 224x224"),
        (["resnet18", "--head", "multi"], "error: unknown head.kind 'multi'"),
    ],
)
def test_the_command_says_what_is_wrong_and_exits_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert summary.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_an_image_size_that_the_network_cannot_take_is_an_error() -> None:
    model = build_student(backbone="vit_tiny_patch16_224", head={"kind": "multi-fc"}, tasks={"class": 2})
    with pytest.raises(ModelError, match="does not run on 32x32 images"):
        summarize(model, image_size=32)
