"""A saved model describes itself, and a broken one says which file is wrong and how."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.artifact import load_artifact, load_artifact_meta, save_artifact
from models.errors import ModelError
from models.heads import HEADS
from models.student import Student, build_student
from tests.edited_json import edit_json

CLASSES = {"type": ("mono", "poly"), "level": ("none", "low", "high")}


def student(kind: str = "multi-embedding", backbone: str = "cifar_resnet20", seed: int = 0) -> Student:
    torch.manual_seed(seed)
    return build_student(backbone=backbone, head={"kind": kind}, tasks={"type": 2, "level": 3}).eval()


def save(model: Student, directory: Path, **changes: Any) -> Path:
    arguments = {
        "tasks": CLASSES,
        "preprocessing": {
            "mean": model.preprocessing.mean,
            "std": model.preprocessing.std,
            "train_size": 32,
            "eval_size": 40,
        },
        "metrics": {"type": {"top1": 0.9}},
        "provenance": {"config": {"seed": 1}},
        "ema": True,
    }
    return save_artifact(model, directory, **{**arguments, **changes})


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("backbone", ["cifar_resnet20", "mobilenetv2_050"])
def test_a_loaded_model_gives_the_same_logits_to_the_bit(tmp_path: Path, kind: str, backbone: str) -> None:
    model = student(kind, backbone)
    save(model, tmp_path)
    loaded, _ = load_artifact(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for task, logits in model(images).items():
            assert torch.equal(loaded(images)[task], logits)
    assert not loaded.training


def test_the_meta_data_come_back(tmp_path: Path) -> None:
    model = student()
    json_path = save(model, tmp_path / "new" / "best")
    _, meta = load_artifact(json_path)
    assert json_path == tmp_path / "new" / "best" / "model.json"
    assert list(meta.tasks.items()) == list(CLASSES.items())
    assert meta.preprocessing == {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "train_size": 32,
        "eval_size": 40,
    }
    assert meta.metrics == {"type": {"top1": 0.9}}
    assert meta.provenance == {"config": {"seed": 1}}
    assert meta.ema is True
    assert meta.num_parameters == model.num_parameters
    assert meta.architecture == model.architecture


def test_the_values_of_ordered_classes_come_back(tmp_path: Path) -> None:
    save(student(), tmp_path / "new", class_values={"level": [0, 1, 2.5]})
    meta = load_artifact_meta(tmp_path / "new")
    assert meta.class_values == {"level": (0.0, 1.0, 2.5)}
    assert meta.value_of_class("level") == {"none": 0.0, "low": 1.0, "high": 2.5}
    assert meta.value_of_class("type") == meta.value_of_class("shape") == {}


def test_a_model_that_says_nothing_of_an_order_has_none(tmp_path: Path) -> None:
    path = save(student(), tmp_path)
    assert "class_values" not in path.read_text()  # as models of earlier versions
    assert load_artifact_meta(tmp_path).class_values == {}


@pytest.mark.parametrize("values", [[0, 1], [0, 1, float("nan")]])
def test_values_that_are_not_one_number_for_each_class_are_refused(tmp_path: Path, values: list[float]) -> None:
    with pytest.raises(ModelError, match="task 'level': class_values needs a finite number for each class"):
        save(student(), tmp_path, class_values={"level": values})
    path = save(student(), tmp_path, class_values={"level": [0, 1, 2]})
    tasks = [{"name": name, "classes": list(classes), "class_values": values} for name, classes in CLASSES.items()]
    edit_json(path, tasks=tasks[1:])
    with pytest.raises(ModelError, match=r"model\.json: task 'level': class_values"):
        load_artifact_meta(tmp_path)


def test_channels_last_models_are_saved_too(tmp_path: Path) -> None:
    model = student().to(memory_format=torch.channels_last)
    save(model, tmp_path)
    loaded, _ = load_artifact(tmp_path)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.parameters(), loaded.parameters(), strict=True))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(student(), tmp_path / name)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_metrics_that_are_not_finite_become_null(tmp_path: Path) -> None:
    save(student(), tmp_path, metrics={"loss": float("nan"), "f1": [1.0, float("inf")]})
    assert load_artifact_meta(tmp_path).metrics == {"loss": None, "f1": [1.0, None]}


def test_nothing_is_left_beside_the_two_files(tmp_path: Path) -> None:
    save(student(), tmp_path)
    save(student(seed=1), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_a_full_disk_while_saving_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = student(seed=0)
    save(old, tmp_path)

    files_synced: list[int] = []

    def full_after_the_weights(descriptor: int) -> None:
        files_synced.append(descriptor)
        if len(files_synced) == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_after_the_weights)
        with pytest.raises(OSError, match="No space left"):
            save(student(seed=1), tmp_path)
    loaded, _ = load_artifact(tmp_path)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(old.parameters(), loaded.parameters(), strict=True))


def test_weights_of_another_save_are_refused(tmp_path: Path) -> None:
    save(student(seed=0), tmp_path / "a")
    save(student(seed=1), tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").replace(tmp_path / "b" / "model.safetensors")
    with pytest.raises(ModelError, match=r"b/model\.safetensors: .* not the ones that model\.json"):
        load_artifact(tmp_path / "b")


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_cut_weights_are_refused(tmp_path: Path, kept: int) -> None:
    save(student(), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors: its \d+ bytes are not the ones"):
        load_artifact(tmp_path)


def test_missing_and_cut_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: cannot be read \(No such file"):
        load_artifact(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"model\.json: cannot be read .*; a model is a folder with model\.json"):
        load_artifact(tmp_path)
    json_path = save(student(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        load_artifact(tmp_path)
    json_path.write_text(json_path.read_text()[:100])
    with pytest.raises(ModelError, match=r"model\.json: not JSON, or cut"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "slimheads-model/2"}, r"its format is 'slimheads-model/2', this version reads 'slimheads-model/1'"),
        ({"head": {"kind": "multi-cat"}}, r"model\.json: cannot build this network: unknown head.kind 'multi-cat'"),
        ({"backbone": "resnet19"}, r"cannot build this network: unknown backbone 'resnet19'"),
        ({"backbone": "cifar_resnet56"}, r"model\.safetensors: the tensors do not fit the network in model\.json"),
        ({"preprocessing": {"mean": [0] * 3}}, r"model\.json: the key 'preprocessing.std' is missing"),
        ({"weights": {}}, r"model\.json: the key 'sha256' is missing"),
        ({"tasks": 3}, r"model\.json: a value is of the wrong type"),
    ],
)
def test_what_the_json_says_must_fit(tmp_path: Path, changes: dict, message: str) -> None:
    json_path = save(student(), tmp_path)
    edit_json(json_path, **changes)
    with pytest.raises(ModelError, match=message):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"level": CLASSES["level"], "type": CLASSES["type"]}}, r"but the model has \['type', 'level'\]"),
        ({"tasks": {**CLASSES, "type": ("mono",)}}, r"task 'type': 1 class names for 2 classes"),
        ({"preprocessing": {"mean": [0, 0, 0]}}, r"preprocessing has keys \['mean'\]; it needs mean, std, train_size"),
    ],
)
def test_a_model_is_not_saved_with_wrong_words_about_it(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        save(student(), tmp_path / "model", **changes)
    assert not (tmp_path / "model").exists()
