"""`python -m train.calibrate`: temperatures and thresholds in model.json, and what every command makes of them."""

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from data.errors import BadArgument
from data.index import load_index
from data.loading.image_sets import ShardImages
from data.shards.external_tars import index_tars
from launch.exit_codes import ExitCode
from models.artifact import load_artifact, load_artifact_meta
from models.export.exporter import export_model
from models.export.options import ExportOptions
from prune.options import PruneOptions
from prune.saved_model import prune_model
from tests.conftest import REPOSITORY, TINY_TASKS, jpeg_bytes
from tests.edited_json import edit_json, read_json
from tests.prune.sparse_models import save, sparse_student
from tests.tiny_models import save_tiny_model
from train import calibrate, evaluate, predict
from train.calibration import calibrate_model
from train.cli.calibrate_options import parse_options
from train.distillation.teacher import load_teacher
from train.evaluation.temperature import HIGHEST, LOWEST

pytestmark = pytest.mark.usefixtures("one_thread")

Table = list[dict[str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1)


def relabelled(folder: Path, source: Path, model: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """The photos of a shard folder with other labels: change makes int [N, tasks] of the model's answers to them."""
    answers = [[TINY_TASKS[task].index(row[task]) for task in TINY_TASKS] for row in predicted(model, source)]
    photos = ShardImages(load_index(source))
    places = [(group, number) for group, count in enumerate(photos.counts.tolist()) for number in range(count)]
    folder.mkdir()
    with tarfile.open(folder / "000000.tar", "w") as tar:
        for place, row in zip(places, change(np.array(answers)).tolist(), strict=True):
            names = [
                classes[label] if label >= 0 else None for classes, label in zip(TINY_TASKS.values(), row, strict=True)
            ]
            described = json.dumps(dict(zip(TINY_TASKS, names, strict=True))).encode()
            for suffix, content in (("jpg", photos.read(*place)), ("json", described)):
                member = tarfile.TarInfo(f"{photos.name(*place)[1]}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    index_tars([folder / "000000.tar"], tasks=TINY_TASKS, cls_task="class")
    return folder


@pytest.fixture(scope="module")
def data(model: Path, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 photos. The model is right about two of three colours and four of five tones; every ninth has no tone."""

    def often_right(answers: np.ndarray) -> np.ndarray:
        labels = answers.copy()
        labels[::3, 0] = (labels[::3, 0] + 1) % 3
        labels[::5, 1] = 1 - labels[::5, 1]
        labels[::9, 1] = -1
        return labels

    return relabelled(tmp_path_factory.mktemp("data") / "train", tiny_shards / "train", model, often_right)


def run(model: Path, data: Path, *arguments: str | Path) -> ExitCode:
    options = ["--model", model, "--data", data, *arguments, "--workers", 0, "--device", "cpu"]
    return calibrate.main([str(option) for option in options])


@pytest.fixture(scope="module")
def calibrated(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a temperature for both tasks and a threshold for one."""
    out = tmp_path_factory.mktemp("calibrated") / "a"
    assert run(model, data, "--out", out, "--threshold", "colour=coverage:0.5") == 0
    return out


def predicted(model: Path, data: Path, *arguments: str | Path) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "predictions.csv")
        options = ["--model", model, "--data", data, "--out", out, "--workers", 0, "--probabilities", *arguments]
        assert predict.main([str(option) for option in options]) == 0
        with out.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def probabilities(rows: Table, task: str) -> np.ndarray:
    return np.array([[float(row[f"{task}={name}"]) for name in TINY_TASKS[task]] for row in rows])


def sharpened(values: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / T) is p^(1/T), made to add up to 1."""
    powers = values ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_weights_stay_and_the_json_gains_what_was_found(model: Path, calibrated: Path) -> None:
    before, after = load_artifact_meta(model), load_artifact_meta(calibrated)
    assert (calibrated / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert set(after.temperatures) == {"colour", "tone"}
    assert set(after.thresholds) == {"colour"}
    content = read_json(calibrated / "model.json")
    for entry in content["tasks"]:
        assert entry.pop("temperature") == after.temperatures[entry["name"]]
        entry.pop("threshold", None)
    assert content.pop("calibration")["tasks"]["colour"]["wanted"] == "coverage:0.5"
    assert content == read_json(model / "model.json")
    assert (before.temperatures, before.thresholds) == ({}, {})  # of a model of an earlier version
    assert sorted(path.name for path in calibrated.iterdir()) == ["model.json", "model.safetensors"]


def test_no_other_temperature_makes_the_labels_likelier(model: Path, calibrated: Path, data: Path) -> None:
    """By the probabilities that are written at temperature 1, and the labels of the index."""
    rows = {row["key"]: row for row in predicted(model, data)}
    index = load_index(data)
    found = load_artifact_meta(calibrated).temperatures
    for column, task in enumerate(TINY_TASKS):
        keys, labels = [], []
        for shard in range(len(index.shards)):
            info = index.load_shard(shard)
            for number, label in enumerate(info.labels[:, column].tolist()):
                if label >= 0:
                    keys.append(info.key(number))
                    labels.append(label)
        values = probabilities([rows[key] for key in keys], task)

        def loss(temperature: float, values: np.ndarray = values, labels: list[int] = labels) -> float:
            return float(-np.log(sharpened(values, temperature)[np.arange(len(labels)), labels]).mean())

        assert loss(found[task]) < min(loss(found[task] * 1.02), loss(found[task] / 1.02), loss(1))


def test_predictions_have_the_same_classes_and_the_probabilities_of_the_temperature(
    model: Path, calibrated: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = predicted(model, tiny_shards / "val")
    assert "colour_unsure" not in before[0]
    after = predicted(calibrated, tiny_shards / "val")
    meta = load_artifact_meta(calibrated)
    for task in TINY_TASKS:
        expected = sharpened(probabilities(before, task), meta.temperatures[task])
        np.testing.assert_allclose(probabilities(after, task), expected, atol=1e-5)
    num_unsure = 0
    for old, new in zip(before, after, strict=True):
        assert new["tone"] == old["tone"]
        assert float(new["colour_probability"]) == max(float(new[f"colour={name}"]) for name in TINY_TASKS["colour"])
        is_unsure = float(new["colour_probability"]) < meta.thresholds["colour"]
        assert (new["colour"], new["colour_unsure"]) == (("", "unsure") if is_unsure else (old["colour"], ""))
        num_unsure += is_unsure
    assert 0 < num_unsure < len(after)
    assert f"task colour: {num_unsure} answers are unsure, below a probability of" in capfd.readouterr().out


def test_on_the_photos_that_it_was_chosen_on_the_threshold_keeps_what_was_wanted(calibrated: Path, data: Path) -> None:
    rows = predicted(calibrated, data)
    assert len([row for row in rows if row["colour"]]) == 17  # the least that is half of 33


def measured(data: Path, out: Path, *models: Path) -> dict[str, Any]:
    given = [word for model in models for word in ("--model", str(model))]
    arguments = [*given, "--data", str(data), "--workers", "0", "--json", str(out)]
    assert evaluate.main(arguments) == 0
    return json.loads(out.read_text())


def test_evaluation_changes_no_answer_and_measures_the_calibrated_probabilities(
    model: Path, calibrated: Path, data: Path, tmp_path: Path
) -> None:
    before, after = (measured(data, tmp_path / "r.json", one) for one in (model, calibrated))
    found = read_json(calibrated / "model.json")["calibration"]["tasks"]
    assert after["models"][0]["temperatures"] == load_artifact_meta(calibrated).temperatures
    for task in TINY_TASKS:
        old, new = before["tasks"][task], after["tasks"][task]
        for measure in ("top1", "macro_f1", "confusion", "count", "per_class"):
            assert old[measure] == new[measure]
        for moment, values in (("before", old), ("after", new)):
            assert values["loss"] == pytest.approx(found[task][moment]["loss"], rel=1e-4)
            assert values["calibration_error"] == pytest.approx(found[task][moment]["error"], rel=1e-4)
        assert new["loss"] < old["loss"]
    assert after["tasks"]["colour"]["given_answers"]["coverage"] == pytest.approx(17 / 33)
    assert "given_answers" not in before["tasks"]["colour"]


def test_an_ensemble_takes_each_members_own_temperature_and_withholds_nothing(
    model: Path, calibrated: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tiny_shards / "val"
    one, other = (predicted(folder, data) for folder in (calibrated, model))
    both = predicted(calibrated, data, "--model", str(model))
    for task in TINY_TASKS:
        mean = (probabilities(one, task) + probabilities(other, task)) / 2
        np.testing.assert_allclose(probabilities(both, task), mean, atol=1e-5)
    assert "colour_unsure" not in both[0]
    assert f"the thresholds of {calibrated} are of one model each" in capfd.readouterr().out


def test_a_teacher_gives_its_raw_logits(model: Path, calibrated: Path) -> None:
    image = torch.randint(256, (4, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw, own = (
        load_teacher(str(folder), device=torch.device("cpu"), precision="fp32")(image) for folder in (model, calibrated)
    )
    assert torch.equal(raw, own)


@pytest.fixture(scope="module")
def exported(calibrated: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also in int8 and with the preprocessing inside."""
    out = tmp_path_factory.mktemp("exported")
    options = {"int8": True, "calibrate": str(data), "method": "minmax", "preprocessing": "inside", "workers": 0}
    export_model(ExportOptions(model=str(calibrated), out=out, storage="uint8", format="onnx", **options))
    return out


def test_the_metadata_of_every_graph_says_temperatures_and_thresholds(calibrated: Path, exported: Path) -> None:
    meta = load_artifact_meta(calibrated)
    for name in ("model.onnx", "model.int8.onnx"):
        written = {entry.key: json.loads(entry.value) for entry in onnx.load(exported / name).metadata_props}
        assert (written["temperatures"], written["thresholds"]) == (meta.temperatures, meta.thresholds)


def test_an_export_answers_as_the_model_that_it_was_made_from(
    calibrated: Path, exported: Path, tiny_shards: Path
) -> None:
    rows = predicted(calibrated, tiny_shards / "val")
    assert load_artifact_meta(exported).temperatures == load_artifact_meta(calibrated).temperatures
    for name, allowed in (("model.onnx", 1e-4), ("model.uint8.safetensors", 0.1)):
        found = predicted(exported / name, tiny_shards / "val")
        for task in TINY_TASKS:
            np.testing.assert_allclose(probabilities(found, task), probabilities(rows, task), atol=allowed)
    graph = predicted(exported / "model.onnx", tiny_shards / "val")
    assert [row["colour"] for row in graph] == [row["colour"] for row in rows]


def test_the_example_of_an_export_says_the_same_as_train_predict(
    calibrated: Path, exported: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "album").mkdir()
    for number in range(8):
        (tmp_path / "album" / f"{number}.jpg").write_bytes(
            jpeg_bytes(colour=number % 3, tone=number // 3 % 2, seed=number)
        )
    rows = predicted(calibrated, tmp_path / "album")
    photos = [str(tmp_path / "album" / row["key"]) for row in rows]
    done = subprocess.run(
        [sys.executable, "-I", str(exported / "predict.py"), *photos], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    seen = set()
    for number, row in enumerate(rows):
        path, colour, tone = lines[3 * number : 3 * number + 3]
        assert path == photos[number]
        ranked = sorted(TINY_TASKS["colour"], key=lambda name, row=row: -float(row[f"colour={name}"]))
        named = ", ".join(f"{name} {100 * float(row[f'colour={name}']):.1f} %" for name in ranked)
        assert close(colour, f"  colour: unsure ({named})" if row["colour_unsure"] else f"  colour: {named}")
        assert tone.startswith(f"  tone: {row['tone']} ")
        seen.add(row["colour_unsure"])
    assert seen == {"", "unsure"}


def close(said: str, expected: str) -> bool:
    """The same words, and numbers within a tenth of a per cent."""
    pairs = list(zip(said.split(), expected.split(), strict=True))
    is_number = [all(word.replace(".", "").isdecimal() for word in pair) for pair in pairs]
    return all(
        abs(float(one) - float(other)) < 0.15 if numbers else one == other
        for (one, other), numbers in zip(pairs, is_number, strict=True)
    )


def test_in_place_the_json_alone_is_written_and_again_the_same(
    model: Path, calibrated: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(model, folder)
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    assert run(folder, data, "--threshold", "colour=coverage:0.5") == 0
    assert (folder / "model.json").read_bytes() == (calibrated / "model.json").read_bytes()
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights
    assert run(folder / "model.json", data) == 0
    meta = load_artifact_meta(folder)
    assert meta.temperatures == load_artifact_meta(calibrated).temperatures
    assert meta.thresholds == {}
    assert "task colour: its threshold of" in capfd.readouterr().out
    load_artifact(folder)


def test_halves_are_shown_where_they_are_asked_for(
    model: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", tmp_path / "c", "--check-halves", "--threshold", "tone=coverage:0.9"]
    assert run(model, data, *options) == 0
    output = capfd.readouterr().out
    assert "fitted on one half of the photos, measured on the other" in output
    held_out = read_json(tmp_path / "c" / "model.json")["calibration"]["tasks"]["tone"]["held_out"]
    assert f"{held_out['after']['loss']:.4f}" in output
    assert 0.5 < held_out["coverage"] <= 1


def test_a_task_without_labels_keeps_what_it_had_and_none_at_all_is_refused(
    model: Path, calibrated: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def without_colour(answers: np.ndarray) -> np.ndarray:
        labels = np.full_like(answers, -1)
        labels[:, 1] = np.arange(len(labels)) % 2
        return labels

    data = relabelled(tmp_path / "tone", tiny_shards / "val", model, without_colour)
    assert run(calibrated, data, "--out", tmp_path / "out") == 0
    before, after = load_artifact_meta(calibrated), load_artifact_meta(tmp_path / "out")
    assert (after.temperatures["colour"], after.thresholds) == (before.temperatures["colour"], before.thresholds)
    assert after.temperatures["tone"] != before.temperatures["tone"]
    assert f"task colour: no photo of {data} is labelled; its temperature stays" in capfd.readouterr().out
    assert run(calibrated, data, "--threshold", "colour=precision:0.9") == ExitCode.BAD_CONFIG
    assert "--threshold colour=precision:0.9: no photo" in capfd.readouterr().err
    nothing = relabelled(tmp_path / "nothing", tiny_shards / "val", model, lambda answers: 0 * answers - 1)
    assert run(calibrated, nothing) == ExitCode.BAD_DATA
    assert "samples is labelled for colour, tone" in capfd.readouterr().err


def test_all_right_and_all_of_one_class_are_said(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def as_answered(answers: np.ndarray) -> np.ndarray:
        return np.stack([answers[:, 0], np.ones(len(answers), int)], axis=1)

    data = relabelled(tmp_path / "data", tiny_shards / "val", model, as_answered)
    assert run(model, data, "--out", tmp_path / "out", "--threshold", "colour=precision:1") == 0
    output = capfd.readouterr().out
    assert "task colour: the likelihood only rises towards temperature 0" in output
    assert "task colour: precision:1 holds with all answers, so no threshold is kept" in output
    assert "task tone: all its photos are of class 'bright'" in output
    meta = load_artifact_meta(tmp_path / "out")
    assert (meta.temperatures["colour"], meta.thresholds) == (LOWEST, {})
    assert meta.temperatures["tone"] <= HIGHEST


def test_what_cannot_be_had_is_refused_with_the_best_and_nothing_is_written(
    model: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def swapped(answers: np.ndarray) -> np.ndarray:
        return np.stack([answers[:, 0], 1 - answers[:, 1]], axis=1)

    data = relabelled(tmp_path / "data", tiny_shards / "val", model, swapped)
    assert run(model, data, "--out", tmp_path / "out", "--threshold", "tone=precision:0.5") == ExitCode.BAD_CONFIG
    assert "the best is 0.00 % right of the answers to 100.00 % of the photos" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(model, data, "--out", tmp_path / "out") == 0
    assert "task tone: the likelihood only rises with the temperature" in capfd.readouterr().out


def test_answers_that_are_no_numbers_end_it(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = save_tiny_model(tmp_path / "nan", seed=1, std=(1e-40, 1.0, 1.0))
    assert run(broken, tiny_shards / "val") == ExitCode.EXPLODED
    assert "task 'colour': no answer to" in capfd.readouterr().err
    assert load_artifact_meta(broken).temperatures == {}


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        ("colour=precision:95", "'precision:95' must be precision:SHARE or coverage:SHARE"),
        ("coverage:0.9", "say of which task"),
        ("shape=coverage:0.9", "the model has no such task; it has colour, tone"),
    ],
)
def test_wrong_thresholds_are_named(
    model: Path, tiny_shards: Path, threshold: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(model, tiny_shards / "val", "--threshold", threshold) == ExitCode.BAD_CONFIG
    assert said in capfd.readouterr().err
    twice = ["--threshold", "tone=coverage:0.9", "--threshold", "tone=coverage:0.8"]
    assert run(model, tiny_shards / "val", *twice) == ExitCode.BAD_CONFIG
    assert "task 'tone' has one already, coverage:0.9" in capfd.readouterr().err


def test_folders_that_hold_something_else_are_left_alone(
    model: Path, exported: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    val = tiny_shards / "val"
    other = save_tiny_model(tmp_path / "other", seed=2)
    assert run(model, val, "--out", other) == ExitCode.BAD_CONFIG
    assert f"--out {other}: holds a model.json of another model" in capfd.readouterr().err
    assert run(model, val, "--out", other / "model.json") == ExitCode.BAD_CONFIG
    assert "is a file; name a folder" in capfd.readouterr().err
    assert run(exported / "model.onnx", val) == ExitCode.BAD_CONFIG
    assert "is an export; calibrate the model" in capfd.readouterr().err
    assert run(exported, val) == ExitCode.BAD_CONFIG
    assert "its export.json was written for the model.json as it stands" in capfd.readouterr().err
    assert run(tmp_path / "none", val) == ExitCode.BAD_CONFIG
    assert "a model is a folder with model.json" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"), [("temperature", 0), ("temperature", "warm"), ("threshold", 1.5), ("threshold", True)]
)
def test_a_value_that_cannot_be_is_named(calibrated: Path, tmp_path: Path, key: str, value: Any) -> None:
    shutil.copytree(calibrated, tmp_path / "a")
    tasks = read_json(calibrated / "model.json")["tasks"]
    tasks[1][key] = value
    edit_json(tmp_path / "a" / "model.json", tasks=tasks)
    with pytest.raises(Exception, match=rf"model\.json: task 'tone': {key} is {value!r}; it must be a number above 0"):
        load_artifact_meta(tmp_path / "a")


def test_a_pruned_model_loses_them_and_says_so_and_is_calibrated_beside_its_plan(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = save(sparse_student(seed=0), tmp_path / "whole")
    options = {"out": tmp_path / "pruned", "ratio": 0.3}
    assert not any(
        "temperatures" in remark for remark in prune_model(PruneOptions(model=str(whole), **options)).record["remarks"]
    )
    assert run(whole, tiny_shards / "val") == 0
    pruned = prune_model(PruneOptions(model=str(whole), **options))
    assert any("temperatures and thresholds of the model are not kept" in one for one in pruned.record["remarks"])
    assert load_artifact_meta(tmp_path / "pruned").temperatures == {}
    assert "calibration" not in read_json(tmp_path / "pruned" / "model.json")
    assert run(tmp_path / "pruned", tiny_shards / "val") == ExitCode.BAD_CONFIG
    assert "its prune.json was written for the model.json as it stands" in capfd.readouterr().err
    assert run(tmp_path / "pruned", tiny_shards / "val", "--out", tmp_path / "calibrated") == 0


def test_several_ranks_are_refused(model: Path, tiny_shards: Path) -> None:
    options = parse_options(["--model", str(model), "--data", str(tiny_shards / "val")], about=None)
    with pytest.raises(BadArgument, match="runs on one process; start it without horovodrun"):
        calibrate_model(options, SimpleNamespace(size=2))  # type: ignore[arg-type]


def test_the_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom train import calibrate\n"
        "try: calibrate.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--check-halves" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
