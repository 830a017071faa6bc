"""A size that a network cannot take is said before the first photo is read, with the key, the sizes and the fix."""

from pathlib import Path

import pytest
import torch
import yaml

from launch.exit_codes import ExitCode
from models.errors import ModelError
from models.export.__main__ import main as export
from models.student import Student, build_student
from models.trial_pass import require_size, size_advice, trial_pass
from tests.small_run import small_config, train_small
from tests.tiny_models import save_tiny_model
from train.cache_teacher import main as cache_teacher
from train.predict import main as predict


def student(backbone: str) -> Student:
    return build_student(backbone=backbone, head={"kind": "multi-fc"}, tasks={"a": 3, "b": 2})


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        ("test_vit3", 160, None),
        ("test_vit3", 64, "Input height (64) doesn't match model (160)."),  # an AssertionError
        ("test_maxvit", 64, "height (16) must be divisible by window (5)"),
        ("test_convnext", 24, "Kernel size can't be greater than actual input size"),  # a RuntimeError
        ("cifar10_student", 24, "this backbone takes 32x32 images, not 24x24"),  # a ModelError
        ("food11_student", 24, None),
    ],
)
def test_the_reason_is_one_line(backbone: str, size: int, reason: str | None) -> None:
    found = trial_pass(student(backbone), size)
    assert (found is None) == (reason is None)
    if reason and found:
        assert reason in found
        assert "\n" not in found


def test_a_failure_without_words_has_a_name_at_least() -> None:
    model = student("food11_student")

    def fail(image: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    model.backbone.forward = fail  # type: ignore[method-assign]
    assert trial_pass(model, 24) == "AssertionError"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [24, 40])
def test_the_network_and_the_random_state_are_left_as_they_were(dtype: torch.dtype, size: int) -> None:
    """Batch norm, dropout, stochastic depth and what is in training mode; also where the pass fails."""
    model = build_student(
        backbone="test_convnext", head={"kind": "multi-embedding", "width": 8}, tasks={"a": 3}, drop_rate=0.5
    ).train()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    assert (trial_pass(model, size, dtype=dtype) is None) == (size == 40)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_the_advice_is_the_size_that_the_network_was_made_for() -> None:
    assert size_advice(student("test_vit3"), 64, key="data.image_size").startswith("set data.image_size to 160, which")
    assert size_advice(student("food11_student"), 64, key="data.eval_size") == (
        "choose another data.eval_size, or another network"
    )
    with pytest.raises(ModelError, match=r"^here: does not run on 64x64 images \(Input .*\); set --image-size to 160"):
        require_size(student("test_vit3"), 64, whose="here")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.backbone=test_vit3"],
            "data.image_size is 24, but model.backbone test_vit3 does not take 24x24 images (Input height (24) doesn't "
            "match model (160).); set data.image_size to 160",
        ),
        (
            ["model.backbone=cifar10_student", "data.image_size=32", "data.eval_size=40"],
            "data.eval_size is 40, but model.backbone cifar10_student does not take 40x40 images (",
        ),
        (
            ["model.backbone=", "model.artifact={artifact}"],
            "data.image_size is 24, but model.artifact {artifact} does not take 24x24 images (",
        ),
        (
            ["teacher.model={artifact}", "precision=bf16"],
            "data.image_size (teacher.image_size can differ) is 24, but teacher.model {artifact} does not take 24x24",
        ),
        (
            ["teacher={model: {artifact}, image_size: 40}", "--dry-run"],
            "teacher.image_size is 40, but teacher.model {artifact} does not take 40x40 images (",
        ),
    ],
)
def test_a_size_that_a_run_cannot_have_ends_it_before_the_first_photo(
    overrides: list[str], message: str, tiny_shards: Path, tmp_path: Path
) -> None:
    artifact = str(save_tiny_model(tmp_path / "fixed", seed=0, backbone="cifar10_student", size=32))
    arguments = [override.replace("{artifact}", artifact) for override in overrides]
    outcome = train_small(tiny_shards, tmp_path, *arguments)
    assert outcome.exit_code == ExitCode.BAD_CONFIG
    assert message.replace("{artifact}", artifact) in outcome.stderr
    assert not outcome.lines("trace-rank0.jsonl")
    assert not (outcome.run / "checkpoints").exists()


def test_a_cache_is_refused_at_its_size_and_can_then_be_made_at_another(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = save_tiny_model(tmp_path / "fixed", seed=0, backbone="cifar10_student", size=32)
    config = yaml.safe_load(small_config(tiny_shards, tmp_path).read_text())
    config["teacher"] = {"model": str(artifact), "cache": str(tmp_path / "cache"), "image_size": 24}
    path = tmp_path / "teacher.yaml"
    path.write_text(yaml.safe_dump(config))
    assert cache_teacher(["--config", str(path), "--views", "1"]) == ExitCode.BAD_CONFIG
    assert "teacher.image_size is 24, but teacher.model" in capfd.readouterr().err
    assert cache_teacher(["--config", str(path), "--views", "1", "teacher.image_size=32"]) == ExitCode.DONE


def test_saved_models_are_tried_before_photos_are_read(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fixed = str(save_tiny_model(tmp_path / "fixed", seed=0, backbone="cifar10_student", size=32))
    out = tmp_path / "out"
    said = f"{fixed}: does not run on 24x24 images (this backbone takes 32x32 images"
    words = ["--model", fixed, "--image-size", "24"]
    assert predict([*words, "--data", str(tiny_shards / "val"), "--out", str(out)]) == ExitCode.BAD_CONFIG
    assert said in capfd.readouterr().err
    assert export([*words, "--out", str(out)]) == ExitCode.BAD_CONFIG
    assert said in capfd.readouterr().err
    assert not out.exists()
