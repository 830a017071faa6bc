"""Sets and models that list the same classes in another order, or lack some, are matched by the names."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.errors import DataError
from data.index import load_index, match_classes
from data.index.class_counts import count_classes
from data.loading.image_sets import ShardImages
from data.shards.external_tars import index_tars
from models.artifact import load_artifact_meta
from tests.conftest import TINY_TASKS, jpeg_bytes
from tests.photos import write_tar
from tests.small_run import Outcome, train_small
from tests.tiny_models import save_tiny_model
from train import evaluate
from train.evaluation.model_inputs import labelled_images

pytestmark = pytest.mark.usefixtures("one_thread")

Tasks = Mapping[str, Sequence[str]]
TURNED = {"tone": ("bright", "dark"), "colour": ("blue", "red", "green")}


def listed_as(tasks: Tasks, split: Path, folder: Path) -> Path:
    """The same tars, their index with other lists of classes."""
    folder.mkdir(parents=True)
    tars = [Path(shutil.copy(tar, folder)) for tar in sorted(split.glob("*.tar"))]
    index_tars(tars, tasks={task: tuple(names) for task, names in tasks.items()}, cls_task="class")
    return folder


def shards_of(folder: Path, colours: Sequence[int], tasks: Tasks) -> Path:
    """A few photos of some colours."""
    folder.mkdir(parents=True)
    members = []
    for number, colour in enumerate([*colours] * 4):
        label = json.dumps({"colour": TINY_TASKS["colour"][colour], "tone": "dark"}).encode()
        members += [(f"{number}.jpg", jpeg_bytes(colour=colour, tone=0, seed=number)), (f"{number}.json", label)]
    tar = write_tar(folder / "0.tar", members)
    index_tars([tar], tasks={task: tuple(names) for task, names in tasks.items()}, cls_task="class")
    return folder


def named_labels(split: Path, tasks: Tasks | None = None) -> list[dict[str, str]]:
    """Each sample's labels by name; `tasks`: matched with these before."""
    index = load_index(split)
    index = index if tasks is None else match_classes(index, {t: tuple(n) for t, n in tasks.items()}, of="these")
    return [
        {task: names[label] for (task, names), label in zip(index.tasks.items(), row, strict=True) if label >= 0}
        for shard in range(len(index.shards))
        for row in index.load_shard(shard).labels.tolist()
    ]


def metrics(outcome: Outcome) -> dict[str, float]:
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads((outcome.run / "result.json").read_text())["metrics"]


def assert_same_weights(one: Outcome, other: Outcome) -> None:
    ours, theirs = (load_file(outcome.run / "last/model.safetensors") for outcome in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_labels_keep_their_names(tiny_shards: Path, tmp_path: Path) -> None:
    expected = named_labels(tiny_shards / "val")
    turned = listed_as(TURNED, tiny_shards / "val", tmp_path / "val")
    assert named_labels(turned, TINY_TASKS) == expected
    assert any(len(labels) < 2 for labels in expected), "no label is missing"
    more = {"colour": ("cyan", "green", "red", "blue")}
    index = match_classes(match_classes(load_index(turned), TINY_TASKS, of="a"), more, of="b")
    assert index.tasks == {"tone": ("dark", "bright"), "colour": more["colour"]}
    assert count_classes(index)["colour"].tolist() == [0, 4, 4, 4, 0]
    assert named_labels(turned) == expected


def test_validation_and_fine_tuning_do_not_care_for_the_order(tiny_shards: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", seed=1)
    turned = listed_as(TURNED, tiny_shards / "train", tmp_path / "turned" / "train").parent
    listed_as({**TURNED, "tone": TINY_TASKS["tone"]}, tiny_shards / "val", turned / "val")
    options = ["model.backbone=", f"model.artifact={model}", "schedule.epochs=1", "tasks={tone: {}, colour: {}}"]
    one, other = (
        train_small(shards, tmp_path / name, *options) for name, shards in (("a", tiny_shards), ("b", turned))
    )
    assert metrics(one) == metrics(other)
    assert_same_weights(one, other)
    assert load_artifact_meta(other.run / "best").tasks == TINY_TASKS


def test_a_validation_set_may_lack_a_class_and_list_another(tiny_shards: Path, tmp_path: Path) -> None:
    tasks = {"colour": ("violet", "green", "red"), "tone": ("dark",)}
    shards = tmp_path / "shards"
    shutil.copytree(tiny_shards / "train", shards / "train")
    shards_of(shards / "val", [0, 1], tasks)
    outcome = train_small(shards, tmp_path / "a", "schedule.epochs=1")
    assert metrics(outcome)["colour.count"] == 8
    assert load_artifact_meta(outcome.run / "best").tasks == TINY_TASKS
    answers = tmp_path / "answers.json"
    again = ["--model", str(outcome.run / "best"), "--data", str(shards / "val"), "--json", str(answers)]
    assert evaluate.main([*again, "--workers", "0"]) == 2, "the model does not know violet"


def test_samples_of_a_class_that_nobody_learns_are_refused_by_name(tiny_shards: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards_of(shards / "train", [0, 1], {"colour": ("red", "green"), "tone": ("dark", "bright")})
    shutil.copytree(tiny_shards / "val", shards / "val")
    outcome = train_small(shards, tmp_path / "a", "schedule.epochs=1")
    assert outcome.exit_code == 65
    assert f"{shards}/val has classes that {shards}/train does not know: 'blue' (4 samples)" in outcome.stderr
    model = save_tiny_model(tmp_path / "model", seed=1, tasks={"colour": ("red", "blue"), "tone": ("dark", "bright")})
    outcome = train_small(shards, tmp_path / "b", "model.backbone=", f"model.artifact={model}", "data.val=")
    assert outcome.exit_code == 65
    assert f"{shards}/train has classes that {model} does not know: 'green' (4 samples)" in outcome.stderr


def test_photos_that_lack_a_class_of_the_model_are_measured(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", seed=1)
    data = shards_of(tmp_path / "data", [2, 0], {"colour": ("blue", "red"), "tone": ("bright", "dark")})
    whole = shards_of(tmp_path / "whole", [2, 0], TINY_TASKS)
    results = []
    for place in (data, whole):
        out = tmp_path / f"{place.name}.json"
        assert evaluate.main(["--model", str(model), "--data", str(place), "--json", str(out), "--workers", "0"]) == 0
        results.append(json.loads(out.read_text())["tasks"]["colour"])
    assert results[0]["classes"] == ["blue", "red", "green"]
    assert [results[0][name] for name in ("top1", "loss", "count")] == [
        results[1][name] for name in ("top1", "loss", "count")
    ]
    turned = np.array(results[1]["confusion"])[[2, 0, 1]][:, [2, 0, 1]]
    assert results[0]["confusion"] == turned.tolist()


def test_pruning_scores_see_labels_in_the_order_of_the_model(tiny_shards: Path, tmp_path: Path) -> None:
    meta = load_artifact_meta(save_tiny_model(tmp_path / "model", seed=1))
    turned = load_index(listed_as(TURNED, tiny_shards / "val", tmp_path / "val"))
    photos = labelled_images(ShardImages(turned), meta)
    plain = ShardImages(load_index(tiny_shards / "val"))
    assert photos.tasks == ["tone", "colour"]
    assert all((photos.labels(0, number)[::-1] == plain.labels(0, number)).all() for number in range(12))
    with pytest.raises(DataError, match=r"has no labels of 'tone', tasks of the model"):
        labelled_images(ShardImages(load_index(shards_of(tmp_path / "c", [0], {"colour": ("red",)}))), meta)
