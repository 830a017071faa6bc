"""`from models.export import export_model`: the command's work as a call, for notebooks and other commands."""

import json
from pathlib import Path

import torch

from data.sealed_json import CHECKSUM
from models.export import ExportOptions, export_model
from models.export.options import parse_options
from models.export.output_folder import example_text
from tests.tiny_models import save_tiny_model


def test_a_call_writes_the_files_and_returns_the_report(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", seed=1)
    threads = torch.get_num_threads()
    exported = export_model(ExportOptions(model=str(model), out=tmp_path / "out", storage="uint8", workers=0))
    assert exported.files == ("export.json", "model.json", "model.uint8.safetensors")
    assert exported.gate_error == ""
    written = json.loads((tmp_path / "out" / "export.json").read_text())
    del written[CHECKSUM]
    assert json.loads(json.dumps(exported.record)) == written
    assert torch.get_num_threads() == threads


def test_the_command_line_and_the_call_have_the_same_defaults() -> None:
    parsed = parse_options(["--model", "a", "--out", "b"], description=None)
    assert parsed == ExportOptions(model="a", out=Path("b"), command="python -m models.export --model a --out b")
    assert parsed.variants == ["onnx fp32"]


def test_the_example_needs_no_module_of_ours() -> None:
    text = example_text()
    assert "class Axis" in text
    assert "def orientation_of" in text
    assert "\nfrom data" not in text
