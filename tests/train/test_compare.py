"""Two kinds of models on the same photos: the difference, and whether it is more than luck."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.artifact import load_artifact, save_artifact
from tests.tiny_models import save_tiny_model
from train.compare import main
from train.evaluate import main as evaluate
from train.evaluation.paired_bootstrap import paired_difference


def answers(share: float, *, seeds: int, photos: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, photos)) < share


def test_the_difference_is_that_of_the_means() -> None:
    ours, theirs = answers(0.8, seeds=3, photos=400, seed=1), answers(0.6, seeds=2, photos=400, seed=2)
    result = paired_difference(ours, theirs)
    assert result.difference == pytest.approx(ours.mean() - theirs.mean())
    assert result.interval[0] < result.difference < result.interval[1]
    assert result.is_clear


def test_the_interval_of_one_model_a_side_is_that_of_the_binomials_difference() -> None:
    """Unpaired answers: its width is 2 x 1.96 x sqrt(p (1 - p) / n + q (1 - q) / n)."""
    ours, theirs = answers(0.7, seeds=1, photos=2000, seed=3), answers(0.7, seeds=1, photos=2000, seed=4)
    low, high = paired_difference(ours, theirs).interval
    assert high - low == pytest.approx(2 * 1.96 * (2 * 0.7 * 0.3 / 2000) ** 0.5, rel=0.06)


def test_answers_that_agree_photo_by_photo_are_told_apart_by_few_photos() -> None:
    ours = answers(0.7, seeds=1, photos=600, seed=5)
    theirs = ours.copy()
    theirs[0, np.flatnonzero(ours[0])[:12]] = False  # 12 photos lost, nothing else changed
    assert paired_difference(ours, theirs).is_clear
    other = np.random.default_rng(6).permuted(theirs, axis=1)  # as many lost, but other photos right and wrong
    assert not paired_difference(ours, other).is_clear


def test_seeds_that_disagree_widen_the_interval() -> None:
    steady = np.stack([answers(0.7, seeds=1, photos=5000, seed=7)[0]] * 3)
    unsteady = np.stack([answers(share, seeds=1, photos=5000, seed=8)[0] for share in (0.6, 0.7, 0.8)])
    narrow, wide = (paired_difference(side, steady).interval for side in (steady, unsteady))
    assert narrow[1] - narrow[0] < 0.01
    assert wide[1] - wide[0] > 0.1


def test_equal_sides_have_no_difference() -> None:
    side = answers(0.5, seeds=3, photos=50, seed=9)
    result = paired_difference(side, side)
    assert (result.difference, result.interval, result.is_clear) == (0.0, (0.0, 0.0), False)


def test_other_photos_on_the_two_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="the same photos, at least one: 3 and 4"):
        paired_difference(answers(0.5, seeds=1, photos=3, seed=1), answers(0.5, seeds=1, photos=4, seed=1))


def test_the_command_finds_the_accuracies_that_evaluate_finds(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [str(save_tiny_model(tmp_path / str(seed), seed=seed)) for seed in range(3)]
    data = ["--data", str(tiny_shards / "val")]
    command = ["--model", paths[0], "--model", paths[1], "--against", paths[2], *data]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text())["tasks"]
    expected = []
    for number, path in enumerate(paths):
        assert evaluate(["--model", path, *data, "--json", str(tmp_path / f"{number}.json")]) == 0
        expected.append(json.loads((tmp_path / f"{number}.json").read_text())["tasks"])
    for task in ("colour", "tone"):
        first, second, third = (report[task]["top1"] for report in expected)
        assert result[task]["ours"] == pytest.approx((first + second) / 2)
        assert result[task]["theirs"] == pytest.approx(third)
    assert "paired over the same photos" in capfd.readouterr().out


def test_errors_are_compared_as_answers_are() -> None:
    """Of one model a side and normal errors: 2 x 1.96 x sqrt((1 + 1) / n), and lower is a difference below 0."""
    random = np.random.default_rng(10)
    ours, theirs = random.normal(3.0, 1.0, (1, 2000)), random.normal(3.5, 1.0, (1, 2000))
    result = paired_difference(ours, theirs)
    assert result.difference == pytest.approx(ours.mean() - theirs.mean())
    assert result.interval[1] - result.interval[0] == pytest.approx(2 * 1.96 * (2 / 2000) ** 0.5, rel=0.06)
    assert result.interval[1] < 0


STEPS = {"colour": (1, 0, 2)}  # green, red, blue


def test_the_command_finds_the_mean_absolute_errors_that_evaluate_finds(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second model is of a version that knew no order, and has the classes in another one."""
    first = str(save_tiny_model(tmp_path / "a", seed=1, class_values=STEPS))
    tasks, steps = {"colour": ("blue", "red", "green")}, {"colour": (2, 1, 0)}
    second = str(save_tiny_model(tmp_path / "b", seed=2, tasks=tasks))
    told = str(save_tiny_model(tmp_path / "c", seed=2, tasks=tasks, class_values=steps))
    data = ["--data", str(tiny_shards / "train")]
    assert main(["--model", first, "--against", second, *data, "--json", str(tmp_path / "out.json")]) == 0
    output = " ".join(capfd.readouterr().out.split())
    assert "mean absolute error (lower is better), paired over the same photos" in output
    result = json.loads((tmp_path / "out.json").read_text())["tasks"]["colour"]["mean_absolute_error"]
    expected = []
    for path in (first, told):
        assert evaluate(["--model", path, *data, "--json", str(tmp_path / "one.json")]) == 0
        expected.append(json.loads((tmp_path / "one.json").read_text())["tasks"]["colour"]["mean_absolute_error"])
    assert [result["ours"], result["theirs"]] == pytest.approx(expected)
    assert expected[0] != expected[1]
    low, high = result["interval"]
    assert low <= result["difference"] <= high
    assert f"{result['difference']:+.3f}" in output


def test_models_that_order_the_classes_differently_are_compared_by_top_1_alone(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = save_tiny_model(tmp_path / "a", seed=1, class_values=STEPS)
    second = save_tiny_model(tmp_path / "b", seed=2, class_values={"colour": (0, 1, 2)})
    command = ["--model", str(first), "--against", str(second), "--data", str(tiny_shards / "val")]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    assert "note: the models order the classes of task colour differently" in capfd.readouterr().out
    assert "mean_absolute_error" not in (tmp_path / "out.json").read_text()


def test_an_answer_that_is_no_number_has_no_error_to_compare(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = save_tiny_model(tmp_path / "a", seed=1, class_values=STEPS)
    model, meta = load_artifact(good)
    model.state_dict()["heads.classifiers.task_colour.bias"][1] = float("nan")
    about = {name: getattr(meta, name) for name in ("tasks", "class_values", "preprocessing", "metrics", "provenance")}
    save_artifact(model, tmp_path / "b", **about, ema=False)
    command = ["--model", str(good), "--against", str(tmp_path / "b"), "--data", str(tiny_shards / "val")]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 70
    said = "12 answers for task 'colour' are not numbers and count as wrong, so there is no mean absolute error"
    assert said in capfd.readouterr().out
    assert "mean_absolute_error" not in (tmp_path / "out.json").read_text()


def test_models_without_a_common_task_are_refused(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    colours = save_tiny_model(tmp_path / "a", seed=1, tasks={"colour": ("red", "green", "blue")})
    tones = save_tiny_model(tmp_path / "b", seed=1, tasks={"tone": ("dark", "bright")})
    assert main(["--model", str(colours), "--against", str(tones), "--data", str(tiny_shards / "val")]) == 65
    assert "the models have no task of" in capfd.readouterr().err


def test_the_help_shows_a_command_that_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("    python -m train.compare"))
    assert lines[first].endswith(" \\")
    assert lines[first + 1].split()[0] == "--against"
