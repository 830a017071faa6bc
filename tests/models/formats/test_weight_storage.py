"""Weights in 8 bits: how far a number moves, what stays exact, and that the file becomes the model again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.artifact import load_artifact
from models.errors import ModelError
from models.formats.loading import load_model
from models.formats.weight_storage import decode, encode, read_uint8, write_uint8
from tests.tiny_models import SIZE, save_tiny_model
from train import evaluate


@given(
    arrays(np.float32, st.integers(1, 200), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
)
@settings(deadline=None)
def test_a_number_moves_by_at_most_half_a_step_and_the_ends_stay(values: np.ndarray) -> None:
    tensor = torch.from_numpy(values)
    stored, low, high = encode(tensor, name="w")
    assert stored.dtype == torch.uint8
    back = decode(stored, low, high)
    assert back.isfinite().all()
    half_step = (high - low) / 510
    rounding = 1e-6 * (half_step + tensor.abs() + back.abs())  # what float32 itself cannot hold
    assert ((back.double() - tensor.double()).abs() <= half_step + rounding).all()
    assert back.min() == tensor.min()
    assert back.max() == tensor.max()


@pytest.mark.parametrize("constant", [0.0, 1.0, -0.37, 1e-30])
def test_a_constant_tensor_comes_back_as_it_was(constant: float) -> None:
    tensor = torch.full((3, 2), constant)
    assert torch.equal(decode(*encode(tensor, name="w")), tensor)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_refused_by_name(number: float) -> None:
    with pytest.raises(ModelError, match=r"heads\.age\.weight: holds numbers that are not finite"):
        encode(torch.tensor([1.0, number]), name="heads.age.weight")


def test_one_large_statistic_among_small_ones_costs_nothing(tmp_path: Path) -> None:
    """Such running statistics come out of real trainings; one scale for the vector would lose the small ones."""
    model, meta = load_artifact(save_tiny_model(tmp_path / "model", seed=1))
    name = next(name for name in model.state_dict() if name.endswith("running_mean"))
    mean = model.state_dict()[name]  # shares the model's memory
    mean.uniform_(-0.01, 0.01)
    mean[0] = 100.0
    write_uint8(model, tmp_path / "model.uint8.safetensors", model_sha256=meta.sha256)
    assert torch.equal(read_uint8(tmp_path / "model.uint8.safetensors")[0][name], mean)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The folder that holds a model, and beside it the 8-bit file."""
    folder = save_tiny_model(tmp_path / "model", seed=1)
    model, meta = load_artifact(folder)
    write_uint8(model, folder / "model.uint8.safetensors", model_sha256=meta.sha256)
    return folder


def test_the_file_is_little_more_than_a_byte_per_number_and_rounds_every_weight_once(stored: Path) -> None:
    model, meta = load_artifact(stored)
    path = stored / "model.uint8.safetensors"
    assert path.stat().st_size < 0.45 * (stored / "model.safetensors").stat().st_size  # headers weigh in a tiny model
    tensors, sha256 = read_uint8(path)
    assert sha256 == meta.sha256
    state = model.state_dict()
    assert set(tensors) == set(state)
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.ndim == 1:  # a norm's vectors and biases stay as they are
            assert torch.equal(tensors[name], tensor)
            assert tensors[name].dtype == tensor.dtype
            continue
        step = (tensor.max() - tensor.min()).item() / 255
        assert (tensors[name] - tensor).abs().max() <= step / 2 + 1e-6
        assert len(tensors[name].unique()) <= 256


def test_the_loaded_model_answers_as_one_with_the_rounded_weights(stored: Path) -> None:
    loaded = load_model(stored / "model.uint8.safetensors")
    model, _ = load_artifact(stored)
    model.load_state_dict(read_uint8(stored / "model.uint8.safetensors")[0])
    image = torch.randn(4, 3, SIZE, SIZE)
    with torch.no_grad():
        for task, logits in model(image).items():
            assert torch.equal(loaded.model(image)[task], logits)


def test_evaluate_takes_the_file(stored: Path, tiny_shards: Path, tmp_path: Path) -> None:
    path, out = stored / "model.uint8.safetensors", tmp_path / "result.json"
    options = ["--data", str(tiny_shards / "val"), "--workers", "0", "--device", "cpu", "--json", str(out)]
    assert evaluate.main(["--model", str(path), *options]) == 0
    result = json.loads(out.read_text())
    assert result["models"][0]["path"] == str(path)
    assert result["tasks"]["colour"]["count"] == 12


def test_a_cut_file_and_a_foreign_model_json_are_refused(stored: Path, tmp_path: Path) -> None:
    path = stored / "model.uint8.safetensors"
    other = save_tiny_model(tmp_path / "other", seed=2)
    (other / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="was made from another model"):
        load_model(other / path.name)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"model\.uint8\.safetensors: cannot be read as safetensors"):
        load_model(path)
    with pytest.raises(ModelError, match="format is None"):
        read_uint8(stored / "model.safetensors")
