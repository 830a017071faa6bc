"""An ordered task from the config to the last command: everyone counts the same mean absolute error."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.artifact import load_artifact_meta
from models.export import __main__ as export
from prune import __main__ as prune
from tests.conftest import RankRun
from tests.edited_json import edit_json, read_json
from tests.small_run import Outcome, small_config, train_small
from tests.tiny_models import save_tiny_model
from train import compare, evaluate, report

pytestmark = pytest.mark.usefixtures("one_thread")

AGES = ("20", "21", "30")
MEASURE = "colour.mean_absolute_error"


@pytest.fixture(scope="module")
def aged(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shards, whose colours are ages."""
    root = tmp_path_factory.mktemp("aged") / "shards"
    shutil.copytree(tiny_shards, root)
    for split in ("train", "val"):
        edit_json(root / split / "index.json", tasks={"colour": list(AGES), "tone": ["dark", "bright"]})
    return root


@pytest.fixture(scope="module")
def trained(aged: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    options = ["tasks={colour: {ordered: true}, tone: {}}", f"checkpoint.monitor={MEASURE}", "schedule.epochs=3"]
    outcome = train_small(aged, tmp_path_factory.mktemp("trained"), *options, "batch_size=4")
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def pruned(trained: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "narrow"
    goal = ["--max-params", "60%", "--multiple", "4", "--floor", "4", "--score", "l2"]
    assert prune.main(["--model", str(trained.run / "best"), "--out", str(folder), *goal]) == 0
    return folder


def measured(out: Path, data: Path, *models: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    named = [word for model in models for word in ("--model", str(model))]
    arguments = [*named, "--data", str(data), "--json", str(out), "--workers", "0", "--device", "cpu", *options]
    assert evaluate.main(arguments) == 0
    return json.loads(out.read_text())["tasks"]


def by_hand(task: dict[str, Any]) -> float:
    """From the confusion matrix, whose rows are the true classes, and the ages."""
    ages = [int(name) for name in task["classes"]]
    errors = [
        count * abs(true - predicted)
        for true, row in zip(ages, task["confusion"], strict=True)
        for predicted, count in zip(ages, row, strict=True)
    ]
    return sum(errors) / task["count"]


def test_a_run_reports_it_and_keeps_the_model_with_the_lowest(trained: Outcome, aged: Path, tmp_path: Path) -> None:
    errors = [line[MEASURE] for line in trained.lines("metrics.jsonl") if line["kind"] == "evaluation"]
    assert len(errors) == 3
    assert min(errors) < errors[0]  # which would be kept if more were better
    best = load_artifact_meta(trained.run / "best")
    assert best.class_values == {"colour": (20, 21, 30)}
    assert best.metrics[MEASURE] == min(errors)
    assert json.loads((trained.run / "result.json").read_text())["metrics"][MEASURE] == min(errors)
    for error in errors:
        assert f"(mean abs. error {error:.3f})" in trained.stdout
    assert re.search(r"validation: colour [\d.]+ % \(mean abs\. error [\d.]+\), tone [\d.]+ %\n", trained.stdout)
    task = measured(tmp_path / "out.json", aged / "val", trained.run / "best")["colour"]
    assert [min(errors), by_hand(task)] == pytest.approx([task["mean_absolute_error"]] * 2)
    assert task["class_values"] == [20, 21, 30]


def test_two_ranks_count_as_one(aged: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]) -> None:
    config = small_config(aged, tmp_path)
    overrides = ["tasks={colour: {ordered: true}}", "schedule.epochs=2", "batch_size=6"]
    result = run_ranks(2, ["train/main.py", "--config", str(config), *overrides])
    assert result.exit_code == 0, result.output
    saved = load_artifact_meta(tmp_path / "run" / "last").metrics[MEASURE]
    alone = measured(tmp_path / "one.json", aged / "val", tmp_path / "run" / "last")["colour"]
    assert [saved, by_hand(alone)] == pytest.approx([alone["mean_absolute_error"]] * 2)
    assert sum(f"(mean abs. error {saved:.3f})" in output for output in result.stdout) == 1


def test_views_and_ensembles_are_counted_as_top_1_is(
    trained: Outcome, aged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other model is of a version that knew no order, with its classes in another one."""
    tasks = {"colour": ("30", "20", "21")}
    other = save_tiny_model(tmp_path / "other", seed=2, size=24, tasks=tasks)
    both = measured(tmp_path / "a.json", aged / "train", trained.run / "best", other, options=("--tta", "3"))
    assert both["colour"]["mean_absolute_error"] == pytest.approx(by_hand(both["colour"]))
    assert "mean_absolute_error" not in both["tone"]
    stranger = save_tiny_model(tmp_path / "c", seed=2, size=24, tasks=tasks, class_values={"colour": (2, 0, 1)})
    assert measured(tmp_path / "c.json", aged / "val", stranger)["colour"]["class_values"] == [0, 1, 2]  # of the data
    capfd.readouterr()
    apart = measured(tmp_path / "b.json", aged / "train", trained.run / "best", stranger)
    assert "mean_absolute_error" not in apart["colour"]
    assert "the models order the classes of task colour differently: no mean absolute error" in capfd.readouterr().out


def test_an_average_of_the_weights_is_what_is_measured(aged: Path, tmp_path: Path) -> None:
    outcome = train_small(aged, tmp_path, "tasks={colour: {ordered: true}}", "ema.decay=0.5", "schedule.epochs=1")
    assert outcome.exit_code == 0, outcome.stderr
    task = measured(tmp_path / "out.json", aged / "val", outcome.run / "last")["colour"]
    assert task["mean_absolute_error"] == pytest.approx(load_artifact_meta(outcome.run / "last").metrics[MEASURE])


def test_a_pruned_model_its_fine_tuning_and_its_export_keep_the_order(
    trained: Outcome, pruned: Path, aged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert load_artifact_meta(pruned).class_values == {"colour": (20, 21, 30)}
    again = ["model.backbone=", f"model.artifact={pruned}", "schedule.epochs=1"]
    tuned = train_small(aged, tmp_path / "tuned", *again)
    assert tuned.exit_code == 0, tuned.stderr
    assert load_artifact_meta(tuned.run / "best").class_values == {"colour": (20, 21, 30)}
    without = train_small(aged, tmp_path / "without", *again, "tasks={colour: {ordered: false}, tone: {}}")
    assert load_artifact_meta(without.run / "best").class_values == {}
    out = tmp_path / "exported"
    options = ["--int8", "--calibrate", str(aged / "train"), "--method", "minmax", "--storage", "uint8"]
    options += ["--format", "onnx", "--data", str(aged / "val"), "--workers", "0"]
    capfd.readouterr()
    assert export.main(["--model", str(tuned.run / "best"), "--out", str(out), *options]) == 0
    assert "mean abs." in capfd.readouterr().out
    variants = read_json(out / "export.json")["variants"]
    files = {"onnx fp32": "model.onnx", "onnx int8": "model.int8.onnx", "uint8 storage": "model.uint8.safetensors"}
    for variant, file in files.items():
        task = measured(tmp_path / "out.json", aged / "val", out / file)["colour"]
        assert task["mean_absolute_error"] == pytest.approx(by_hand(task))
        assert variants[variant]["tasks"]["colour"]["mean_absolute_error"] == pytest.approx(by_hand(task))
    page = tmp_path / "page.html"
    folders = [str(trained.run), str(tuned.run), str(out)]
    assert report.main([*folders, "--out", str(page), "--photos", "50", "--workers", "0"]) == 0
    text = page.read_text()
    assert "colour, mean absolute error" in text
    assert "tone, mean absolute error" not in text
    assert "Mean absolute error of colour, validation" in text
    for model in (trained.run / "best", tuned.run / "best"):
        assert f"{load_artifact_meta(model).metrics[MEASURE]:.3f}" in text
    assert f"{variants['onnx int8']['tasks']['colour']['mean_absolute_error']:.3f}" in text
    narrow = measured(tmp_path / "out.json", aged / "val", pruned)["colour"]["mean_absolute_error"]
    assert " wrong. Mean absolute error " in text
    rows = re.findall(r"<tr><td[^>]*>narrow</td>.*?</tr>", text)
    assert any(re.search(rf">{narrow:.3f}(</span>)?</td></tr>$", row) for row in rows)  # asked for the page
    against = ["--model", str(tuned.run / "best"), "--against", str(pruned), "--data", str(aged / "val")]
    assert compare.main([*against, "--json", str(tmp_path / "pair.json")]) == 0
    pair = json.loads((tmp_path / "pair.json").read_text())["tasks"]
    assert pair["colour"]["mean_absolute_error"]["theirs"] == pytest.approx(narrow)
    assert "mean_absolute_error" not in pair["tone"]
