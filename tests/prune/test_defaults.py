"""What pruning does without being asked: a floor for the features, statistics measured anew, accuracy, a last look."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from data.shards.external_tars import index_tars
from models.artifact import load_artifact
from models.channel_groups.narrow import Norm
from models.student import Student, build_student
from prune import PruneOptions, prune_model
from prune.__main__ import main
from prune.accuracy import wilson_interval
from prune.curve_options import make_curve_parser
from prune.options import GOALS, add_pruning_options, make_parser
from prune.selection import default_min_features
from tests.conftest import TINY_TASKS, write_tiny_tar
from tests.prune.sparse_models import broken, run, save
from tests.tiny_models import save_tiny_model

FEATURES = "backbone.layer4.3"  # 141 channels


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 photos, enough for statistics."""
    folder = tmp_path_factory.mktemp("shards") / "train"
    folder.mkdir()
    write_tiny_tar(folder / "a.tar", first_sample=0, num_samples=80)
    index_tars([folder / "a.tar"], tasks=TINY_TASKS, cls_task="class")
    return folder


def weak_features(student: Student) -> None:
    """The last convolution's channels matter least of all, as those of EfficientNet-lite0 did by `taylor`."""
    student.get_submodule("backbone.layer4.4").weight.mul_(1e-4)


def many_classes(number: int, folder: Path, head: str = "multi-fc") -> Path:
    torch.manual_seed(0)
    tasks = {"kind": tuple(f"kind {place}" for place in range(number)), "tone": ("dark", "bright")}
    options = {"width": 128} if head == "multi-embedding" else {}
    student = build_student(
        backbone="food11_student",
        head={"kind": head, **options},
        tasks={task: len(names) for task, names in tasks.items()},
    )
    for module in student.modules():
        if isinstance(module, Norm):
            torch.nn.init.uniform_(module.weight, 0.5, 1)
    return save(broken(student.eval(), weak_features), folder, tasks=tasks)


def width(plan: dict[str, Any], name: str = FEATURES) -> int:
    return next(layer["after"] for layer in plan["layers"] if layer["name"] == name)


def test_the_features_keep_two_channels_for_each_class_of_the_largest_task(tmp_path: Path) -> None:
    path = many_classes(41, tmp_path / "model")
    goal = ("--max-macs", "40%")
    plan = run(path, tmp_path / "default", *goal)
    assert width(plan) == 88  # 82 in multiples of 8
    assert plan["limits"]["min_features"] == 82
    assert [layer["remark"] for layer in plan["layers"] if layer["name"] == FEATURES] == ["kept wider: min_features"]
    assert width(run(path, tmp_path / "fewer", *goal, "--min-features", "20")) == 24
    assert width(run(path, tmp_path / "all", *goal, "--min-features", "1000")) == 141
    assert default_min_features({"a": 3, "b": 2}) == 32


def test_an_embedding_keeps_two_channels_for_each_class_of_its_task(tmp_path: Path) -> None:
    path = many_classes(41, tmp_path / "model", "multi-embedding")
    student, _ = load_artifact(path)
    with torch.no_grad():
        for task in ("kind", "tone"):
            student.get_submodule(f"heads.branches.task_{task}.0.1").weight.mul_(1e-4)
    tasks = {"kind": tuple(f"kind {place}" for place in range(41)), "tone": ("dark", "bright")}
    plan = run(save(student, tmp_path / "weak", tasks=tasks), tmp_path / "out", "--ratio", "0.5", "--no-threshold-cap")
    assert width(plan, "heads.branches.task_kind.0.0") == 88
    assert width(plan, "heads.branches.task_tone.0.0") == 8


def test_a_budget_that_the_features_keep_out_of_reach_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = many_classes(60, tmp_path / "model")
    arguments = ["--model", str(path), "--out", str(tmp_path / "out"), "--max-params", "8k"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"lower --min-features ({FEATURES} keeps 120 of 141 channels for the classifiers), or lower --floor" in said
    assert main([*arguments, "--min-features", "8"]) == 0


def test_a_network_that_answers_every_image_alike_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, _ = load_artifact(save_tiny_model(tmp_path / "steep", seed=1))
    with torch.no_grad():  # the largest gammas are those of channels that `tone` does not read
        norm, tone = (student.get_submodule(name) for name in ("backbone.layer4.4", "heads.classifiers.task_tone"))
        norm.weight[8:] *= 1e-3
        norm.bias[8:] *= 1e-3
        tone.weight[:, 8:] *= 1e3
        tone.weight[:, :8] = 0
    path = save(student, tmp_path / "model")
    arguments = ["--model", str(path), "--out", str(tmp_path / "out"), "--ratio", "0.95", "--kinds", "features"]
    assert main([*arguments, "--min-features", "8", "--no-fold"]) == 2
    said = capsys.readouterr().err
    assert "task 'tone': the pruned network answers every image alike" in said
    assert f"'{FEATURES}', kept 8 of 141 channels; raise --min-features" in said
    assert not (tmp_path / "out").exists()


def test_statistics_are_measured_anew_where_there_are_photos_for_it(
    model: Path, shards: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = run(model, tmp_path / "a", "--ratio", "0.3", "--data", str(shards))
    assert (plan["recalibrated_batches"], plan["recalibrated_photos"], plan["remarks"]) == (2, 80, [])
    assert "norm statistics: measured anew on 80 photos (--recalibrate 0 keeps the old ones)" in capsys.readouterr().out
    off = run(model, tmp_path / "b", "--ratio", "0.3", "--data", str(shards), "--recalibrate", "0")
    assert off["recalibrated_batches"] == 0
    assert "norm statistics" not in capsys.readouterr().out
    ours, theirs = (load_artifact(tmp_path / name)[0].state_dict() for name in "ab")
    changed = {name.rpartition(".")[2] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    few = run(model, tmp_path / "c", "--ratio", "0.3", "--data", str(tiny_shards / "train"))
    assert few["recalibrated_batches"] == 0
    assert "has 33 photos, and fewer than 64 are not measured on by default" in few["remarks"][0]


def test_accuracy_is_told_before_and_after(
    model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = {"config": {"data": {"train": str(shards.parent / "x" / ".." / "train")}}}
    path = save(load_artifact(model)[0], tmp_path / "trained", provenance=trained)
    plan = run(path, tmp_path / "a", "--ratio", "0.3", "--data", str(shards), "--score", "taylor")
    said = " ".join(capsys.readouterr().out.split())
    assert "on which the model was trained, some of which ranked the channels" in said
    found = plan["accuracy"]["tasks"]
    assert {task: found[task]["count"] for task in found} == {"colour": 80, "tone": 69}  # every seventh has no tone
    for task in found:
        for when in ("before", "after"):
            low, high = found[task][when]["interval"]
            assert 0 <= low <= found[task][when]["top1"] <= high <= 1
            assert f"{100 * found[task][when]['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f})" in said
    told = prune_model(PruneOptions(model=str(model), ratio=0.3, data=str(shards), measure=20)).record["accuracy"]
    assert (told["trained_on"], told["ranked_by"], told["tasks"]["colour"]["count"]) == (False, False, 20)
    nothing = run(model, tmp_path / "b", "--ratio", "0.3", "--data", str(shards), "--measure", "0")
    assert nothing["accuracy"] is None
    assert "top-1" not in capsys.readouterr().out


def test_the_interval_is_wilsons() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)


def described(parser: argparse.ArgumentParser) -> dict[str, tuple[Any, ...]]:
    return {
        action.dest: (action.option_strings, action.type, action.default, action.choices, action.nargs, action.help)
        for action in parser._actions
    }


def test_a_curve_takes_all_options_of_a_pruning_but_its_goal() -> None:
    alone = make_parser("prune", None)
    add_pruning_options(alone)
    of_pruning, of_curve = described(alone), described(make_curve_parser(None))
    assert {name: of_curve.get(name) for name in of_pruning} == of_pruning
    fields = set(PruneOptions.__dataclass_fields__) - {"out", "command", *GOALS}
    assert fields <= of_curve.keys() & of_pruning.keys()
    assert not of_curve.keys() & set(GOALS)
