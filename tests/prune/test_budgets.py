"""Budgets that must hold together, that of bytes among them, and what is said where they cannot be met."""

import re
from pathlib import Path

import pytest
import torch

from models.artifact import load_artifact
from models.errors import ModelError
from models.formats.int8_size import predicted_int8_bytes
from prune import PruneOptions, prune_model
from prune.__main__ import main
from prune.goal import Goal, mildest_rank
from tests.conftest import TINY_TASKS
from tests.prune.sparse_models import SIZE, run


def test_budgets_hold_together_and_the_mildest_pruning_meets_them(model: Path, tmp_path: Path) -> None:
    both = run(model, tmp_path / "both", "--max-macs", "70%", "--max-bytes", "90K", "--multiple", "1")
    assert both["goal"] == {"kind": "together", "budgets": {"macs": both["macs"]["before"] * 7 // 10, "bytes": 90_000}}
    assert both["macs"]["after"] <= 0.7 * both["macs"]["before"]
    assert both["int8_bytes"]["after"] <= 90_000
    ones = [
        run(model, tmp_path / name, *words, "--multiple", "1")
        for name, words in {"macs": ("--max-macs", "70%"), "bytes": ("--max-bytes", "90K")}.items()
    ]
    assert [one["goal"]["kind"] for one in ones] == ["macs", "bytes"]
    # The stricter of the two decides, and no more goes than it asks for.
    assert both["parameters"]["after"] == min(one["parameters"]["after"] for one in ones)
    narrow, meta = load_artifact(tmp_path / "both")
    assert predicted_int8_bytes(narrow, meta.tasks, image_size=SIZE) == both["int8_bytes"]["after"]


def test_a_share_of_the_bytes_is_one_of_the_models(model: Path, tmp_path: Path) -> None:
    plan = run(model, tmp_path / "out", "--max-bytes", "60%", "--max-latency-ms", "2.5")
    assert 0.5 < plan["int8_bytes"]["after"] / plan["int8_bytes"]["before"] <= 0.6
    assert plan["latency_ms"]["after"] <= 2.5


def test_every_budget_that_cannot_be_met_is_named_with_the_nearest_that_can(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(model), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--max-params", "10", "--max-macs", "90%", "--max-bytes", "1K"]) == 2
    said = capsys.readouterr().err
    found = re.search(
        r"budgets of 10 parameters and 1,000 bytes in int8 cannot be reached: with these limits the smallest are "
        r"([\d,]+) parameters and ([\d,]+) bytes in int8; lower --min-features",
        said,
    )
    assert found is not None, said
    least = [number.replace(",", "") for number in found.groups()]
    plan = run(model, tmp_path / "out", "--max-params", least[0], "--max-bytes", least[1])
    assert [plan["parameters"]["after"], plan["int8_bytes"]["after"]] == list(map(int, least))


def test_a_model_fits_already_only_where_it_fits_all_budgets(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(model), "--out", str(tmp_path / "out"), "--max-params", "100M"]
    assert main([*arguments, "--max-macs", "1G"]) == 2
    assert re.search(
        r"already fits: it has [\d,]+ parameters and [\d,]+ MACs, the budgets are 100,000,000 and 1,000,000,000",
        capsys.readouterr().err,
    )
    assert run(model, tmp_path / "out", "--max-params", "100M", "--max-macs", "70%")["macs"]["after"] > 0


def test_a_ratio_goes_with_no_budget(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        ("--ratio", "0.3", "--max-bytes", "1M"): "--ratio: says by itself how much is to go",
        (): "name a goal: --ratio, or one or more of --max-params, --max-macs, --max-bytes, --max-latency-ms",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(["--model", "a", "--out", "b", *words])
        assert message in capsys.readouterr().err


def test_what_costs_time_is_measured_only_where_what_is_counted_fits() -> None:
    asked: list[tuple[str, int]] = []

    def cost(kind: str, rank: int) -> float:
        asked.append((kind, rank))
        return {"macs": 10 - rank, "latency": 10 - rank}[kind]

    assert mildest_rank(cost, budgets={"macs": 3, "latency": 5}, ranks=range(10), way_out="") == 7
    assert min(rank for kind, rank in asked if kind == "latency") == 7
    with pytest.raises(ModelError, match=r"a budget of 0.5 ms cannot be reached: .* the smallest is 1\.000 ms; pray"):
        mildest_rank(cost, budgets={"macs": 3, "latency": 0.5}, ranks=range(10), way_out="pray")


def test_a_pruning_by_values_is_the_same_each_time(model: Path, tiny_shards: Path) -> None:
    """As whoever prunes in rounds calls it."""
    options = PruneOptions(
        model=str(model),
        max_macs=0.6,
        score="taylor",
        max_layer_ratio=0.65,
        recalibrate=1,
        data=str(tiny_shards / "train"),
    )
    one, other = prune_model(options), prune_model(options)
    assert one.record == other.record
    assert one.record["macs"]["after"] <= 0.6 * one.record["macs"]["before"]
    for layer in one.record["layers"]:
        assert layer["after"] >= 0.35 * layer["before"]
    theirs = other.student.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.student.state_dict().items())


def test_a_goal_costs_a_network_in_all_its_units(model: Path) -> None:
    student, _ = load_artifact(model)
    goal = Goal(image_size=SIZE, class_names=TINY_TASKS)
    longer = Goal(image_size=SIZE, class_names={**TINY_TASKS, "tone": ("d" * 104, "bright")})
    assert goal.cost("parameters", student) == student.num_parameters
    assert longer.cost("bytes", student) - goal.cost("bytes", student) == 100
