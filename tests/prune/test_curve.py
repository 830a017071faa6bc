"""`python -m prune.curve`: rounds of pruning and training, and single weights set to zero."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

import prune.pruner
from models.artifact import load_artifact
from models.student import build_student
from prune.curve import main as curve
from tests.prune.sparse_models import (
    COUNTS,
    broken,
    finetune_config,
    save,
    sparse_student,
    spread_gammas,
    weaken_two_norms,
    wrong_rewrite,
)


def test_the_curve_goes_down_round_by_round_and_zeros_do_not_shrink(
    model: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    config = finetune_config(tmp_path, tiny_shards)
    arguments = ["--rates", "0.2", "--rounds", "2", "--unstructured", "0.5", "--config", str(config)]
    out = tmp_path / "curve"
    assert curve(["--model", str(model), "--data", str(tiny_shards / "val"), "--out", str(out), *arguments]) == 0
    result = json.loads((out / "curve.json").read_text())
    rounds = result["rounds"]["0.2"]
    assert len(rounds) == 3
    assert rounds[0]["parameters"] > rounds[1]["parameters"] > rounds[2]["parameters"]
    assert all(0 <= point["mean_top1"] <= 1 for point in rounds)
    assert [Path(point["model"]).parts[-3:] for point in rounds[1:]] == [
        ("round-01", "run", "best"),
        ("round-02", "run", "best"),
    ]
    assert load_artifact(rounds[2]["model"])[0].num_parameters == rounds[2]["parameters"]
    plain, zeroed = result["unstructured"]
    assert zeroed["zeros"] == pytest.approx(0.5, abs=0.01)
    assert (zeroed["parameters"], zeroed["macs"]) == (plain["parameters"], plain["macs"])
    for name in ("curve.svg", "unstructured.svg"):
        circles = [node for node in ElementTree.parse(out / name).iter() if node.tag.endswith("circle")]
        assert len(circles) == (3 if name == "curve.svg" else 2)


def draw_curve(model: Path, shards: Path, out: Path, *arguments: str) -> int:
    fixed = ["--model", str(model), "--data", str(shards / "val"), "--out", str(out), "--unstructured", ""]
    return curve([*fixed, *(arguments or ("--rates", "0.2", "--rounds", "1"))])


def test_a_curve_stops_where_nothing_is_left_to_prune_and_fails_at_anything_else(
    model: Path, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--rates", "0.2", "--rounds", "2", "--multiple", "512")
    assert draw_curve(model, tiny_shards, tmp_path / "small", *few) == 0
    assert "ends before round 1: nothing would be pruned" in capsys.readouterr().out
    torch.manual_seed(0)
    bare = save(
        build_student(backbone="cifar10_student", head={"kind": "multi-fc"}, tasks=COUNTS), tmp_path / "without norms"
    )
    assert draw_curve(bare, tiny_shards, tmp_path / "bare") == 2
    assert "has no norms" in capsys.readouterr().err
    monkeypatch.setattr(prune.pruner, "rewrite", wrong_rewrite)
    assert draw_curve(model, tiny_shards, tmp_path / "wrong") == 2
    assert "differs from the masked one" in capsys.readouterr().err
    assert not list((tmp_path / "wrong").rglob("prune.json"))


def test_a_curve_proves_on_photos_and_says_what_a_pruning_says(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(broken(sparse_student(), spread_gammas), tmp_path / "spread")
    assert draw_curve(path, tiny_shards, tmp_path / "one") == 0
    assert "was not trained sparse" in capsys.readouterr().err
    plan = json.loads((tmp_path / "one" / "rate-0.2" / "round-01" / "prune.json").read_text())
    assert plan["proof"]["inputs"]["real"]["num_images"] == 2
    assert len(plan["remarks"]) == 2
    assert "has 12 photos, and fewer than 64 are not measured on" in plan["remarks"][1]
    path = save(broken(sparse_student(), weaken_two_norms), tmp_path / "weak")
    assert draw_curve(path, tiny_shards, tmp_path / "two", "--rates", "0.7", "--rounds", "1") == 0
    assert "the threshold stopped at" in capsys.readouterr().err
    free = ("--rates", "0.7", "--rounds", "1", "--no-threshold-cap")
    assert draw_curve(path, tiny_shards, tmp_path / "three", *free) == 0
    assert "the threshold stopped at" not in capsys.readouterr().err


def test_a_curves_folder_is_not_shared_by_other_settings(
    model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["--model", str(model), "--data", str(tiny_shards / "val"), "--out", str(tmp_path / "curve")]
    fixed += ["--rates", "0.2", "--rounds", "1", "--unstructured", ""]
    assert curve(fixed) == 0
    assert curve([*fixed, "--multiple", "4"]) == 2
    assert "holds rounds of another model or other settings" in capsys.readouterr().err


def test_a_curve_that_fails_at_once_keeps_no_folder(
    model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("epoch: 3\n")
    for config, message in (
        (tmp_path / "nowhere.yaml", "nowhere.yaml: cannot be read"),
        (wrong, "wrong.yaml:1: unknown key 'epoch'"),
    ):
        assert draw_curve(model, tiny_shards, tmp_path / "out", "--config", str(config)) == 2
        assert message in capsys.readouterr().err
    assert draw_curve(model, tmp_path, tmp_path / "out") == 65
    assert "index.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    assert draw_curve(model, tiny_shards, tmp_path / "file") == 2
    assert "file: is a file; name a folder" in capsys.readouterr().err


def test_a_curve_of_nothing_has_no_picture(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    assert draw_curve(model, tiny_shards, tmp_path / "out", "--rates", "") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curve.json", "settings.json"]
