"""Logits that are not numbers are no answer, whoever asks: wrong, counted and named, and nothing is made of them."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.index import load_index
from data.loading.eval_loader import EvalBatch
from data.loading.image_sets import ShardImages
from launch.exit_codes import ExitCode
from models.artifact import load_artifact, save_artifact
from models.errors import ModelError
from models.export import __main__ as export
from models.export.calibration import best_method
from models.export.output_folder import example_text
from models.formats.onnx_graph import export_graph, save_graph
from models.student import Student
from prune import curve
from prune.bn_recalibration import recalibrate
from prune.plan import save_pruned
from prune.selection import find_candidates
from tests.conftest import TINY_TASKS, jpeg_bytes
from tests.models.export.test_export import comparison
from tests.tiny_models import SIZE, save_tiny_model
from train import compare, evaluate, predict
from train.evaluation.comparison import compare as compare_models
from train.evaluation.model_inputs import model_inputs
from train.losses.bn_sparsity import PenalisedNorm, gamma_report
from train.report_page.error_section import error_section
from train.report_page.predictions import collect_predictions
from train.report_page.run_record import read_run

pytestmark = pytest.mark.usefixtures("one_thread")
LABELLED = 10  # of the 12 photos, for the task tone


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "good", seed=1)


def changed(good: Path, folder: Path, change: Callable[[Student], None]) -> Path:
    model, meta = load_artifact(good)
    with torch.no_grad():
        change(model)
    options = {"tasks": meta.tasks, "preprocessing": meta.preprocessing, "metrics": {}, "provenance": {}, "ema": False}
    save_artifact(model, folder, **options)
    return folder


@pytest.fixture(scope="module")
def silent(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One NaN in the bias of the task tone."""

    def spoil(model: Student) -> None:
        model.state_dict()["heads.classifiers.task_tone.bias"][1] = math.nan

    return changed(good, tmp_path_factory.mktemp("models") / "silent", spoil)


@pytest.fixture(scope="module")
def partly(good: Path, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it is finite, but half of the photos have a logit of tone that is beyond float32."""

    def spoil(model: Student) -> None:
        *_, norm = (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
        for number in (norm.weight, norm.bias):
            number *= 1e19
        classifiers: Any = model.heads.classifiers
        classifiers.task_colour.weight /= 1e19
        features = model.forward_features(images_of(tiny_shards / "val", good))
        one = int(features.median(dim=0).values.argmax())
        classifiers.task_tone.weight.zero_()[1, one] = torch.finfo(torch.float32).max / features[:, one].median()
        classifiers.task_tone.bias.zero_()

    return changed(good, tmp_path_factory.mktemp("models") / "partly", spoil)


def images_of(shards: Path, model: Path) -> Tensor:
    _, meta = load_artifact(model)
    batches = model_inputs(ShardImages(load_index(shards)), meta, size=SIZE, batch_size=64, max_batches=1)
    return next(iter(batches))[0]


def measured(out: Path, model: Path, shards: Path) -> tuple[ExitCode, Any]:
    options = ["--model", str(model), "--data", str(shards / "val"), "--json", str(out), "--workers", "0"]
    return evaluate.main([*options, "--device", "cpu"]), json.loads(out.read_text())


def test_an_evaluation_counts_them_as_wrong_and_names_them(
    good: Path, silent: Path, partly: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, whole = measured(tmp_path / "good.json", good, tiny_shards)
    assert whole["tasks"]["tone"]["no_answer"] == 0
    assert "not numbers" not in capfd.readouterr().out
    code, none = measured(tmp_path / "silent.json", silent, tiny_shards)
    assert code == ExitCode.EXPLODED
    tone = none["tasks"]["tone"]
    assert (tone["top1"], tone["no_answer"], tone["loss"], tone["macro_f1"]) == (0, LABELLED, None, 0)
    assert none["tasks"]["colour"] == whole["tasks"]["colour"]
    said = "warning: answers that are not numbers (NaN or infinity) count as wrong: 10 of 10 for task 'tone' (such as s"
    assert said in capfd.readouterr().out
    code, some = measured(tmp_path / "partly.json", partly, tiny_shards)
    assert code == 0
    tone = some["tasks"]["tone"]
    assert 2 < tone["no_answer"] < LABELLED - 2
    assert np.sum(tone["confusion"]) + tone["no_answer"] == tone["count"] == LABELLED
    assert tone["top1"] == np.trace(tone["confusion"]) / LABELLED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prediction_of_them_is_an_error_also_where_softmax_would_hide_it(
    value: float, good: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    """A logit of -inf alone gives probabilities that look fine."""

    def spoil(model: Student) -> None:
        model.state_dict()["heads.classifiers.task_tone.bias"][1] = value

    model = changed(good, tmp_path / "model", spoil)
    options = ["--data", str(tiny_shards / "val"), "--out", str(tmp_path / "out.csv"), "--workers", "0"]
    assert predict.main(["--model", str(model), *options]) == ExitCode.EXPLODED
    # An ensemble answers where each of its members does.
    assert predict.main(["--model", str(model), "--model", str(good), *options]) == ExitCode.EXPLODED
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["error"] for row in rows} == {"the model's answer is not a number; try --precision fp32"}
    assert len(rows) == 12


def test_a_comparison_takes_them_for_wrong(
    good: Path, silent: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = ["--model", str(good), "--against", str(silent), "--data", str(tiny_shards / "val"), "--json", str(out)]
    assert compare.main(options) == ExitCode.EXPLODED
    result = json.loads(out.read_text())
    assert result["no_answer"] == {"colour": [0, 0], "tone": [0, LABELLED]}
    assert result["tasks"]["tone"]["theirs"] == 0
    assert f"{silent}: 10 answers for task 'tone' are not numbers and count as wrong" in capfd.readouterr().out


def test_an_export_of_broken_weights_or_answers_writes_nothing(
    silent: Path, partly: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--storage", "uint8"]
    assert export.main(["--model", str(silent), *out]) == ExitCode.BAD_CONFIG
    assert "silent: weights or statistics are not finite (NaN or inf): heads.classifiers.task_tone.bias (1 of 2" in (
        capfd.readouterr().err
    )
    gate = ["--data", str(tiny_shards / "val"), "--gate", "0.9", "--workers", "0"]
    assert export.main(["--model", str(partly), *out, *gate]) == ExitCode.BAD_CONFIG
    assert "torch fp32 gives answers that are not numbers (NaN or infinity) on the photos of" in capfd.readouterr().err
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_export_without_photos_asks_the_model_about_noise(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its weights are finite, its normalisation takes every photo beyond float32."""
    model, meta = load_artifact(good)
    preprocessing = {**meta.preprocessing, "std": [1e-40, 1.0, 1.0]}
    options = {"tasks": meta.tasks, "preprocessing": preprocessing, "metrics": {}, "provenance": {}, "ema": False}
    save_artifact(model, tmp_path / "model", **options)
    assert export.main(["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == ExitCode.BAD_CONFIG
    assert "the model's answers to noise are not numbers" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_of_two_files_one_that_answers_nothing_is_infinitely_far_from_the_other() -> None:
    numbers, nothing = torch.tensor([[0.0, -1.0], [-1.0, 0.0]]), torch.tensor([[0.0, -1.0], [math.nan, 0.0]])

    batch = EvalBatch(image={}, label={"a": torch.tensor([0, 1])}, key=["x", "y"], row=[0, 1], bad=[])

    class Fake(SimpleNamespace):
        def __call__(self, batch: EvalBatch) -> dict[str, Tensor]:
            return {"a": self.logits}

    models: Any = {
        name: Fake(tasks={"a": "xy"}, class_values={"a": (0, 1)}, logits=logits)
        for name, logits in {"first": numbers, "same": numbers, "broken": nothing}.items()
    }
    results, _ = compare_models(models, [batch], num_samples=2)
    assert [result.difference["a"] for result in results.values()] == [0, 0, math.inf]
    assert [result.agreement["a"] for result in results.values()] == [1, 1, 0.5]
    assert [result.num_without_answer for result in results.values()] == [0, 0, 1]
    assert [math.isnan(result.tasks["a"]["mean_absolute_error"]) for result in results.values()] == [False, False, True]
    results, _ = compare_models(dict(reversed(models.items())), [batch], num_samples=2)
    assert [result.difference["a"] for result in results.values()] == [0, math.inf, math.inf]


def test_a_calibration_whose_loss_is_no_number_is_the_worst_among_equals() -> None:
    broken, fine = comparison(0.8, math.nan), comparison(0.8, 2.0)
    assert best_method({"broken": broken, "fine": fine}) == "fine"
    assert best_method({"fine": fine, "broken": broken}) == "fine"


def test_the_report_shows_no_class_for_them(silent: Path, tiny_shards: Path) -> None:
    answers, _ = collect_predictions({"silent": silent}, str(tiny_shards / "val"), most=50, workers=0)
    tone = answers["silent"].tasks["tone"]
    assert (tone.confusion.sum(), tone.worst(5), tone.correct.any()) == (0, [], False)
    assert answers["silent"].top1["tone"] == 0
    page = str(error_section(answers, [], thumbnails=False))
    assert "0.0 % of 10 answers right, 10 wrong. 10 answers of these not a number" in page


def test_the_best_of_a_report_is_finite(tmp_path: Path) -> None:
    """Lines as runs wrote them: JSON has null for NaN."""
    lines = [
        {"kind": "evaluation", "step": 1, "epoch": 0, "mean_top1": 1.0, "a.loss": None, "a.count": 9, "b.count": 0},
        {"kind": "evaluation", "step": 3, "epoch": 1, "mean_top1": 0.5, "a.loss": 2.0, "a.count": 9, "b.loss": None},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = read_run(tmp_path).best
    assert best is not None
    assert best["epoch"] == 1


def test_pruning_makes_nothing_of_them(
    good: Path, partly: Path, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    student, meta = load_artifact(partly)
    images, labels = images_of(tiny_shards / "val", partly), {task: torch.zeros(12).long() for task in TINY_TASKS}
    with pytest.raises(ModelError, match="what its channels change in the loss is not finite"):
        find_candidates(student, score="taylor", batches=[(images, labels)])
    student, meta = load_artifact(good)
    recalibrate(student, [images * math.inf])
    with pytest.raises(ModelError, match="pruned: weights or statistics are not finite"):
        save_pruned(student, meta, tmp_path / "pruned", {})
    options = [
        "--data",
        str(tiny_shards / "val"),
        "--out",
        str(tmp_path / "curve"),
        "--rates",
        "",
        "--unstructured",
        "",
    ]
    assert curve.main(["--model", str(partly), *options]) == ExitCode.BAD_CONFIG
    assert "that are not numbers: " in capfd.readouterr().err
    assert not (tmp_path / "curve").exists()


def test_a_recalibration_counts_each_image_the_same(good: Path, tiny_shards: Path) -> None:
    """The last batch may be short; its statistics are of few images."""
    images = images_of(tiny_shards / "val", good)
    means = []
    for sizes in ([6, 6], [10, 2]):
        student, _ = load_artifact(good)
        recalibrate(student, images.split(sizes))
        means.append(student.get_submodule("backbone.stem.1").get_buffer("running_mean"))
    torch.testing.assert_close(means[0], means[1])


def test_the_file_beside_an_export_says_so(silent: Path, tmp_path: Path) -> None:
    """Nothing exports such a model any more; it may come from elsewhere."""
    model, meta = load_artifact(silent)
    save_graph(export_graph(model, meta, image_size=SIZE), tmp_path / "model.onnx")
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(colour=1, tone=1, seed=1))
    (tmp_path / "predict.py").write_text(example_text())
    command = [sys.executable, str(tmp_path / "predict.py"), str(tmp_path / "photo.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("photo.jpg: the model's answer is not a number\n")


def test_gammas_that_are_not_finite_leave_a_log_line_that_can_be_read() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.5, math.inf, math.nan, -3.0]))
    report = gamma_report([PenalisedNorm("norm", weight, 1.0)])
    assert report["gamma.histogram_edges"][-1] == 3.0  # type: ignore[index]
    assert report["gamma.count"] == 4
