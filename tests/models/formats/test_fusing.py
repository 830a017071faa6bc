"""Networks with branches for training are exported as the plain networks that they are in use."""

from pathlib import Path

import onnx
import pytest
import torch

from launch.exit_codes import ExitCode
from models.export import __main__ as export
from models.formats.fusing import fused
from models.formats.loading import load_model
from models.student import Student, build_student
from tests.tiny_models import SIZE, save_tiny_model


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def trained_like(backbone: str) -> Student:
    """Norms that do something: fresh ones would hide a mistake."""
    torch.manual_seed(0)
    model = build_student(backbone=backbone, head={"kind": "single-conv"}, tasks={"a": 4})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.eval()


@pytest.mark.parametrize("backbone", ["repvgg_a0", "mobileone_s0", "repghostnet_050", "fastvit_t8", "repvit_m0_9"])
def test_a_fused_network_computes_the_same_with_fewer_weights(backbone: str) -> None:
    model = trained_like(backbone)
    images = torch.randn(2, 3, 64, 64)
    weights = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        network = fused(model)
        given, expected = network(images)["a"], model.double()(images.double())["a"]
    assert (given - expected).abs().max() < 1e-5 * expected.abs().max()
    assert sum(parameter.numel() for parameter in network.parameters()) < weights
    assert sum(parameter.numel() for parameter in model.parameters()) == weights  # the model itself is as it was


def test_a_network_without_such_branches_is_left_alone() -> None:
    model = build_student(backbone="mobilenetv2_050", head={"kind": "single-conv"}, tasks={"a": 4})
    assert fused(model) is model


def test_repvgg_is_exported_without_its_branches_in_float_and_in_int8(tiny_shards: Path, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", seed=1, backbone="repvgg_a0", head="multi-fc")
    options = ["--int8", "--calibrate", tiny_shards / "train", "--method", "minmax", "--data", tiny_shards / "val"]
    arguments = ["--model", folder, "--out", tmp_path / "made", *options, "--workers", 0]
    assert export.main(list(map(str, arguments))) is ExitCode.DONE  # parity with torch is part of it
    graph = onnx.load(tmp_path / "made" / "model.onnx").graph
    assert [node.op_type for node in graph.node if node.op_type in ("Add", "BatchNormalization")] == []
    assert len([node for node in graph.node if node.op_type == "Conv"]) == 22
    whole, quantised = tmp_path / "made" / "model.onnx", tmp_path / "made" / "model.int8.onnx"
    assert quantised.stat().st_size < 0.3 * whole.stat().st_size  # every layer in int8
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert all(logits.isfinite().all() for logits in load_model(quantised).model(images).values())
