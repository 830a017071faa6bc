"""`python -m prune` as a user runs it: what it writes, and what it promises."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.index import load_index
from models.artifact import load_artifact
from models.cost import count_cost
from models.student import Student
from tests.benchmarks.prune import require_latency, seconds_of
from tests.conftest import REPOSITORY, rank_environment
from tests.prune.sparse_models import SIZE, run
from tests.prune.test_selection import expansion_rule


def logits(student: nn.Module) -> torch.Tensor:
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        return torch.cat(list(student.double().eval()(images).values()), dim=1)


def masked(model: Path, plan: Mapping[str, Any]) -> Student:
    """The original with gamma = beta = 0 for every unit that the plan took."""
    student, _ = load_artifact(model)
    kept = {layer["name"]: layer["kept_units"] for layer in plan["layers"] if "kept_units" in layer}
    with torch.no_grad():
        for group in student.channel_groups():
            if group.name in kept:
                gone = sorted(set(range(group.num_units)) - set(kept[group.name]))
                for gate in group.gates:
                    places = gate.positions(group.num_units)[gone].flatten()
                    for parameter in student.get_submodule(gate.module).parameters(recurse=False):
                        parameter[places] = 0
    return student


def test_the_saved_model_is_the_masked_one(model: Path, tmp_path: Path) -> None:
    plan = run(model, tmp_path / "out", "--ratio", "0.3", "--multiple", "8", "--no-fold")
    narrow, _ = load_artifact(tmp_path / "out")
    ours, theirs = logits(narrow), logits(masked(model, plan))
    assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
    assert (ours - logits(load_artifact(model)[0])).abs().max() > 1e-3 * theirs.abs().max()


def test_folding_keeps_what_channels_near_zero_passed_on(model: Path, tmp_path: Path) -> None:
    arguments = ("--ratio", "0.25", "--multiple", "1", "--floor", "1")
    plan = run(model, tmp_path / "folded", *arguments)
    assert {layer.get("constants", "folded") for layer in plan["layers"]} == {"folded"}
    run(model, tmp_path / "dropped", *arguments, "--no-fold")
    whole = logits(load_artifact(model)[0])
    folded, dropped = (logits(load_artifact(tmp_path / name)[0]) for name in ("folded", "dropped"))
    assert (folded - whole).abs().max() < 0.1 * (dropped - whole).abs().max()


def test_a_pruned_model_loads_in_a_fresh_process_without_anything_else(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out", "--ratio", "0.3", "--multiple", "8")
    code = (
        "import sys, torch; from models.artifact import load_artifact\n"
        "model, meta = load_artifact(sys.argv[1])\n"
        f"logits = model(torch.ones(1, 3, {SIZE}, {SIZE}))\n"
        "print(sum(values.double().sum().item() for values in logits.values()), model.num_parameters)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=rank_environment(),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total, parameters = done.stdout.split()
    narrow, meta = load_artifact(tmp_path / "out")
    with torch.no_grad():
        ours = sum(values.double().sum().item() for values in narrow(torch.ones(1, 3, SIZE, SIZE)).values())
    assert float(total) == pytest.approx(ours, rel=1e-6)
    assert int(parameters) == narrow.num_parameters == meta.num_parameters
    assert narrow.num_parameters < load_artifact(model)[0].num_parameters


def test_the_plan_says_what_happened_and_the_picture_shows_it(model: Path, tmp_path: Path) -> None:
    plan = run(model, tmp_path / "out", "--ratio", "0.3", "--multiple", "8", "--floor", "16")
    before, after = load_artifact(model)[0], load_artifact(tmp_path / "out")[0]
    assert plan["parameters"] == {"before": before.num_parameters, "after": after.num_parameters}
    assert plan["macs"]["after"] == count_cost(after, image_size=SIZE).macs < plan["macs"]["before"]
    assert plan["latency_ms"]["after"] < plan["latency_ms"]["before"]
    assert plan["proof"]["inputs"]["random"]["difference"] <= 1e-9 * plan["proof"]["inputs"]["random"]["largest_logit"]
    widths = {layer["name"]: layer["after"] for layer in plan["layers"] if layer["after"] < layer["before"]}
    assert widths == after.architecture["widths"]
    for layer in plan["layers"]:
        assert layer["after"] >= 16
        assert layer["after"] % 8 == 0 or layer["after"] == layer["before"]
    assert plan["threshold"] <= plan["cap"]
    texts = [node.text for node in ElementTree.parse(tmp_path / "out" / "widths.svg").iter() if node.text]
    assert {f"{layer['before']} → {layer['after']}" for layer in plan["layers"] if "kept_units" in layer} <= set(texts)
    _, meta = load_artifact(tmp_path / "out")
    assert meta.provenance["step"] == 7
    assert meta.provenance["pruned"]["source"]["sha256"] == load_artifact(model)[1].sha256


def test_rule_expansion_is_recipe_a_on_a_real_network(mobile: Path, tmp_path: Path) -> None:
    plan = run(mobile, tmp_path / "out", "--ratio", "0.2", "--rule", "expansion", "--floor", "1", "--multiple", "1")
    student, _ = load_artifact(mobile)
    gammas = {}
    for name, module in student.named_modules():
        if type(module).__name__ == "InvertedResidual":
            pair = (module.bn1.weight, module.bn2.weight)
            gammas[f"{name}.conv_pw"] = tuple(weight.detach().abs().double().numpy() for weight in pair)
    assert len(gammas) == 16
    threshold, masks = expansion_rule(gammas, 0.2)
    assert plan["threshold"] == threshold
    kept = {layer["name"]: set(layer["kept_units"]) for layer in plan["layers"] if "kept_units" in layer}
    assert kept == {name: mask for name, mask in masks.items() if len(mask) < len(gammas[name][0])}
    assert "backbone.blocks.0.0.conv_pw" not in kept


@pytest.mark.parametrize(
    ("flag", "text", "key", "value"),
    [
        ("--max-params", "30k", "parameters", 30_000),
        ("--max-macs", "0.6M", "macs", 600_000),
        ("--max-macs", "75%", "macs", 0.75),
        ("--max-params", "62.5%", "parameters", 0.625),
    ],
)
def test_a_budget_is_met_by_the_mildest_pruning(
    flag: str, text: str, key: str, value: float, model: Path, tmp_path: Path
) -> None:
    plan = run(model, tmp_path / "out", flag, text, "--multiple", "1")
    assert plan["command"] == f"python -m prune --model {model} --out {tmp_path / 'out'} {flag} {text} --multiple 1"
    value = value if value > 1 else value * plan[key]["before"]
    assert 0.95 * value < plan[key]["after"] <= value
    narrow, _ = load_artifact(tmp_path / "out")
    cost = count_cost(narrow, image_size=SIZE)
    assert {"parameters": cost.parameters, "macs": cost.macs}[key] == plan[key]["after"]


def test_a_latency_budget_is_met_as_measured(model: Path, tmp_path: Path) -> None:
    plan = run(model, tmp_path / "out", "--max-latency-ms", "0.6", "--threads", "2", "--multiple", "8")
    assert plan["latency_ms"]["after"] <= 0.6 < plan["latency_ms"]["before"]
    assert plan["latency_ms"]["threads"] == 2
    assert plan["macs"]["after"] == plan["latency_ms"]["after"] * 1e6


def test_a_pruned_model_can_be_pruned_again(model: Path, tmp_path: Path) -> None:
    first = run(model, tmp_path / "one", "--ratio", "0.2", "--multiple", "4")
    second = run(tmp_path / "one", tmp_path / "two", "--ratio", "0.3", "--multiple", "4")
    assert second["parameters"]["before"] == first["parameters"]["after"] > second["parameters"]["after"]
    narrow, _ = load_artifact(tmp_path / "two")
    widths = {layer["name"]: layer["after"] for layer in second["layers"]}
    assert {name: widths[name] for name in narrow.architecture["widths"]} == narrow.architecture["widths"]


def test_data_is_used_for_the_proof_the_score_and_the_statistics(
    model: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tiny_shards / "train")]
    plan = run(model, tmp_path / "a", "--ratio", "0.3", "--score", "max-drop", "--recalibrate", "2", *data)
    assert plan["proof"]["inputs"]["real"]["num_images"] == 2
    assert plan["recalibrated_batches"] == 1
    all_there_is = load_index(str(tiny_shards / "train")).num_samples
    assert plan["remarks"][-1].startswith("--recalibrate asked for 128 photos")
    assert plan["remarks"][-1].endswith(f" has {all_there_is} that could be used")
    assert "on 2 real images" in capsys.readouterr().out
    other = run(model, tmp_path / "b", "--ratio", "0.3", "--score", "max-drop", *data)
    assert [layer.get("kept_units") for layer in other["layers"]] == [
        layer.get("kept_units") for layer in plan["layers"]
    ]
    ours, theirs = load_artifact(tmp_path / "a")[0], load_artifact(tmp_path / "b")[0]
    different = {
        name for name, tensor in ours.state_dict().items() if not torch.equal(tensor, theirs.state_dict()[name])
    }
    assert different
    assert all("running_" in name or "num_batches" in name for name in different)


def test_the_benchmark_does_not_time_a_pruning_that_failed(model: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(model), "--out", str(tmp_path / "out"), "--max-latency-ms"]
    with pytest.raises(RuntimeError, match=r"failed: .*cannot be reached"):
        seconds_of([*arguments, "1e-3"])
    assert seconds_of([*arguments, "0.6"]) > 0
    require_latency(tmp_path / "out", 0.6)
    with pytest.raises(RuntimeError, match=r"the budget was 0\.1 ms"):
        require_latency(tmp_path / "out", 0.1)


def test_the_commands_explain_themselves() -> None:
    for module in ("prune", "prune.curve"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env=rank_environment(),
            check=False,
        )
        assert done.returncode == 0
        assert "--ratio" in done.stdout or "--rates" in done.stdout
