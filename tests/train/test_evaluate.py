"""`python -m train.evaluate`: exact counts for one model or an ensemble, in any views, on any number of ranks."""

import csv
import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.images.augment import centre_square, evaluation_view
from data.index import load_index
from data.shards.external_tars import index_tars
from launch.exit_codes import ExitCode
from models.artifact import load_artifact_meta
from tests.conftest import TINY_TASKS, RankRun, jpeg_bytes
from tests.tiny_models import save_tiny_model
from train import evaluate, predict

pytestmark = pytest.mark.usefixtures("one_thread")

Result = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose colours are ordered green, red, blue."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1, class_values={"colour": (1, 0, 2)})


def run(*arguments: str | Path | int, workers: int = 0) -> ExitCode:
    return evaluate.main([*map(str, arguments), "--workers", str(workers), "--device", "cpu"])


def measured(out: Path, *arguments: str | Path | int, workers: int = 0) -> Result:
    assert run(*arguments, "--json", out, workers=workers) == 0
    return json.loads(out.read_text())


def by_prediction(folder: Path, out: Path, *arguments: str | Path | int) -> Result:
    """Counts of what `train.predict` answers, against the labels of the index; loss from its probabilities."""
    options = [*map(str, arguments), "--data", str(folder), "--out", str(out), "--workers", "0", "--probabilities"]
    assert predict.main(options) == 0
    with out.open(newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    index = load_index(folder)
    counts: Result = {
        task: {"confusion": [[0] * len(names) for _ in names], "loss": 0.0} for task, names in index.tasks.items()
    }
    for shard in range(len(index.shards)):
        info = index.load_shard(shard)
        for number in range(len(info)):
            row = rows[info.key(number)]
            for (task, names), label in zip(index.tasks.items(), info.labels[number].tolist(), strict=True):
                if label >= 0:
                    counts[task]["confusion"][label][names.index(row[task])] += 1
                    counts[task]["loss"] -= math.log(max(float(row[f"{task}={names[label]}"]), 1e-12))
    return counts


def agree(result: Result, counts: Result) -> None:
    for task, expected in counts.items():
        found = result["tasks"][task]
        total = sum(map(sum, expected["confusion"]))
        assert found["confusion"] == expected["confusion"]
        assert found["count"] == total
        assert found["top1"] == sum(row[at] for at, row in enumerate(expected["confusion"])) / total
        assert found["loss"] == pytest.approx(expected["loss"] / total, rel=1e-3)
        if values := found.get("class_values"):
            assert task == "colour"
            errors = [
                count * abs(true - predicted)
                for true, row in zip(values, expected["confusion"], strict=True)
                for predicted, count in zip(values, row, strict=True)
            ]
            assert found["mean_absolute_error"] == pytest.approx(sum(errors) / total)
        else:
            assert (task, "mean_absolute_error" in found) == ("tone", False)


def test_the_counts_are_those_of_the_single_predictions(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    for split, num_missing in (("train", 4), ("val", 2)):
        folder = tiny_shards / split
        result = measured(tmp_path / "r.json", "--model", model, "--data", folder, "--batch-size", 5)
        agree(result, by_prediction(folder, tmp_path / "p.csv", "--model", model))
        samples = load_index(folder).num_samples
        assert result["tasks"]["colour"]["count"] == samples
        assert result["tasks"]["tone"]["count"] == samples - num_missing
        assert result["mean_top1"] == pytest.approx(sum(task["top1"] for task in result["tasks"].values()) / 2)


def test_views_and_ensembles_are_counted_as_they_are_predicted(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    other = save_tiny_model(
        tmp_path / "b",
        seed=5,
        head="multi-se",
        size=24,
        tasks={"tone": ("bright", "dark"), "colour": TINY_TASKS["colour"]},
    )
    folder = tiny_shards / "train"
    models = ("--model", model, "--model", other)
    result = measured(tmp_path / "r.json", *models, "--data", folder, "--tta", 4)
    agree(result, by_prediction(folder, tmp_path / "p.csv", *models, "--tta", 4))
    assert [member["image_size"] for member in result["models"]] == [40, 24]
    alone = measured(tmp_path / "alone.json", "--model", model, "--data", folder)
    plain = measured(tmp_path / "plain.json", "--model", other, "--data", folder, "--tta", 1)
    losses = {values["tasks"]["colour"]["loss"] for values in (result, alone, plain)}
    assert len(losses) == 3


def test_the_json_says_what_was_measured(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "r.json"
    result = measured(out, "--model", model, "--data", tiny_shards / "val", "--precision", "bf16", "--image-size", 32)
    assert result["models"] == [
        {
            "path": str(model),
            "sha256": load_artifact_meta(model).sha256,
            "num_parameters": load_artifact_meta(model).num_parameters,
            "image_size": 32,
            "precision": "bf16",
            "tasks": ["colour", "tone"],
            "temperatures": {},
        }
    ]
    assert (result["data"], result["views"], result["bad_samples"]) == (str(tiny_shards / "val"), 1, [])
    assert result["tasks"]["colour"]["classes"] == list(TINY_TASKS["colour"])
    assert result["tasks"]["colour"]["majority"] == pytest.approx(4 / 12)
    assert result["tasks"]["colour"]["class_values"] == [1, 0, 2]
    output = capfd.readouterr().out
    assert f"wrote {out}" in output
    assert f"{result['tasks']['colour']['mean_absolute_error']:.3f}" in output
    for word in ("top-1", "mean abs.", "majority", "macro F1", "loss", "samples", "colour", "tone"):
        assert word in output
    for task in result["tasks"].values():
        assert f"{100 * task['top1']:.1f} %" in output
        assert f"{100 * task['macro_f1']:.1f} %" in output


def test_the_precision_is_the_one_of_the_training_unless_said_otherwise(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_model(tmp_path / "a", seed=1, provenance={"config": {"precision": "bf16"}})
    result = measured(tmp_path / "r.json", "--model", folder, "--data", tiny_shards / "val")
    assert result["models"][0]["precision"] == "bf16"
    assert f"{folder} on {tiny_shards / 'val'} in bf16\n" in capfd.readouterr().out
    other = measured(tmp_path / "r.json", "--model", folder, "--data", tiny_shards / "val", "--precision", "fp32")
    assert other["models"][0]["precision"] == "fp32"
    assert f"{folder} on {tiny_shards / 'val'} in fp32\n" in capfd.readouterr().out
    assert other["tasks"]["colour"]["loss"] != result["tasks"]["colour"]["loss"]


def damaged_copy(folder: Path, source: Path, *, num_damaged: int) -> Path:
    """The shard folder with so many photos whose bytes are no longer the indexed ones."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    index = load_index(folder)
    info, tar = index.load_shard(0), Path(index.shard_url(0))
    content = bytearray(tar.read_bytes())
    for number in range(num_damaged):
        content[int(info.offset[number]) + 300] ^= 0xFF
    tar.write_bytes(bytes(content))
    return folder


def test_ranks_share_the_photos_and_find_the_same(
    model: Path, tiny_shards: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]
) -> None:
    """33 photos, 5 a rank and step: the first two ranks meet bad ones, and in the last step each rank has one."""
    folder = damaged_copy(tmp_path / "damaged", tiny_shards / "train", num_damaged=7)
    options = ["--model", model, "--data", folder, "--tta", 3, "--batch-size", 5]
    alone = measured(tmp_path / "one.json", *options)
    out = tmp_path / "ranks.json"
    result = run_ranks(3, ["-m", "train.evaluate", *map(str, options), "--workers", "0", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert sum("mean top-1" in output for output in result.stdout) == 1
    shared = json.loads(out.read_text())
    for task, values in alone["tasks"].items():
        for measure in ("loss", "calibration_error"):
            assert shared["tasks"][task].pop(measure) == pytest.approx(values.pop(measure), rel=1e-5)
    assert shared == alone
    assert [bad["key"] for bad in shared["bad_samples"]] == [f"sample{number:04d}" for number in range(7)]


def test_a_task_that_a_model_lacks_is_answered_by_the_others(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    partial = save_tiny_model(tmp_path / "c", seed=3, tasks={"colour": TINY_TASKS["colour"], "mood": ("good", "bad")})
    options = ("--data", tiny_shards / "val")
    both = measured(tmp_path / "both.json", "--model", model, "--model", partial, *options)
    assert f"{partial} has no task tone and is left out there" in capfd.readouterr().out
    alone = measured(tmp_path / "alone.json", "--model", model, *options)
    assert both["tasks"]["tone"] == alone["tasks"]["tone"]
    assert both["tasks"]["colour"] != alone["tasks"]["colour"]
    assert [member["tasks"] for member in both["models"]] == [["colour", "tone"], ["colour"]]
    capfd.readouterr()
    only = measured(tmp_path / "only.json", "--model", partial, *options)
    assert list(only["tasks"]) == ["colour"]
    assert "no model has the data's task tone: not measured" in capfd.readouterr().out


def test_nothing_in_common_and_other_classes_are_refused_by_name(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stranger = save_tiny_model(tmp_path / "s", seed=3, tasks={"mood": ("good", "bad")})
    assert run("--model", stranger, "--data", tiny_shards / "val") == ExitCode.BAD_CONFIG
    assert "the data has the tasks colour, tone, the models have mood" in capfd.readouterr().err
    other = save_tiny_model(tmp_path / "o", seed=3, tasks={"colour": ("red", "green", "cyan")})
    assert run("--model", model, "--model", other, "--data", tiny_shards / "val") == ExitCode.BAD_CONFIG
    assert f"{other}: does not know 'blue', classes of task 'colour' in the data" in capfd.readouterr().err
    wider = save_tiny_model(tmp_path / "w", seed=3, tasks={"colour": ("red", "green", "blue", "cyan")})
    assert run("--model", model, "--model", wider, "--data", tiny_shards / "val") == ExitCode.BAD_CONFIG
    assert f"{wider}: alone knows 'cyan' of task 'colour'" in capfd.readouterr().err


def test_a_few_bad_photos_are_left_out_by_name_and_many_stop_it(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = damaged_copy(tmp_path / "few", tiny_shards / "train", num_damaged=2)
    result = measured(tmp_path / "r.json", "--model", model, "--data", folder, "--batch-size", 1, workers=1)
    assert [bad["key"] for bad in result["bad_samples"]] == ["sample0000", "sample0001"]
    assert result["tasks"]["colour"]["count"] == 31
    output = capfd.readouterr().out
    assert "2 samples cannot be used and are left out" in output
    assert "sample0001: the bytes differ from the indexed ones" in output
    folder = damaged_copy(tmp_path / "many", tiny_shards / "train", num_damaged=11)
    out = tmp_path / "none.json"
    assert run("--model", model, "--data", folder, "--json", out) == ExitCode.BAD_DATA
    assert "11 of the 33 samples" in capfd.readouterr().err
    assert not out.exists()


def test_an_unlabelled_split_says_that_there_is_nothing_to_measure(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    with tarfile.open(folder / "000000.tar", "w") as tar:
        for suffix, content in (("jpg", jpeg_bytes(colour=0, tone=0, seed=0)), ("json", b"{}")):
            member = tarfile.TarInfo(f"a.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    index_tars([folder / "000000.tar"], tasks=TINY_TASKS, cls_task="class")
    assert run("--model", model, "--data", folder) == ExitCode.BAD_DATA
    assert "none of its 1 samples is labelled for colour, tone" in capfd.readouterr().err


def test_broken_models_and_data_are_named(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    val = tiny_shards / "val"
    assert run("--model", tmp_path / "none", "--data", val) == ExitCode.BAD_CONFIG
    assert str(tmp_path / "none") in capfd.readouterr().err
    cut = save_tiny_model(tmp_path / "cut", seed=1)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert run("--model", cut, "--data", val) == ExitCode.BAD_CONFIG
    assert str(weights) in capfd.readouterr().err
    assert run("--model", model, "--data", tiny_shards) == ExitCode.BAD_DATA
    assert f"{tiny_shards}/index.json: cannot be read" in capfd.readouterr().err


def test_a_size_that_the_network_cannot_take_is_refused_before_the_data_is_read(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fixed = save_tiny_model(tmp_path / "f", seed=1, backbone="cifar10_student", size=32)
    folder = damaged_copy(tmp_path / "val", tiny_shards / "val", num_damaged=0)
    next(folder.glob("*.idx")).unlink()
    assert run("--model", fixed, "--data", folder, "--image-size", 48) == ExitCode.BAD_CONFIG
    assert "takes 32x32 images, not 48x48" in capfd.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--tta", "0"), ("--json", "."), ("--precision", "int8")])
def test_a_wrong_argument_names_the_option(
    model: Path, tiny_shards: Path, option: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--model", model, "--data", tiny_shards / "val", option, value)
    assert stop.value.code == ExitCode.BAD_CONFIG
    assert f"argument {option}:" in capfd.readouterr().err


def test_a_view_is_a_pure_function_of_shard_key_and_number() -> None:
    def views(shard: str, key: str) -> list[Any]:
        return [evaluation_view(number, height=300, width=400, shard=shard, key=key) for number in range(12)]

    series = views("000000.tar", "cats/7")
    assert series == views("000000.tar", "cats/7")
    boxes = [(view.top, view.left, view.height, view.width) for view in series]
    assert boxes[0] == boxes[1] == centre_square(300, 400)
    assert [view.flip for view in series] == [False, True] * 6
    assert len(set(boxes[2:])) > 5  # a crop that does not fit becomes the whole photo, which may happen again
    for top, left, height, width in boxes[2:]:
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width
        assert 0.6 <= height * width / (300 * 400) <= 1
    assert {view.brightness for view in series} == {1.0}
    assert views("000000.tar", "cats/8")[2:] != series[2:]
    assert views("000001.tar", "cats/7")[2:] != series[2:]
