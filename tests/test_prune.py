"""`python -m prune` as a user runs it: what it writes, what it promises, and what it says to bad input."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import prune.pruning
from data.index import load_index
from models.artifact import load_artifact, save_artifact
from models.cost import count_cost
from models.errors import ModelError
from models.narrow import Norm
from models.student import Student, build_student
from prune.__main__ import main
from prune.curve import main as curve
from prune.latency import Latency
from prune.rewrite import rewrite
from tests.benchmarks.prune import require_latency, seconds_of
from tests.conftest import REPOSITORY, TINY_TASKS, jpeg_bytes, rank_environment
from tests.small_run import OPTIONS, train_small
from tests.test_prune_selection import expansion_rule
from train.assemble import build_model
from train.config_file import ConfigError, load_config
from train.report_page.run_record import read_run
from train.report_page.stage import role_of

SIZE = 32
COUNTS = {task: len(names) for task, names in TINY_TASKS.items()}


def save(
    student: Student,
    folder: Path,
    *,
    tasks: Mapping[str, Sequence[str]] = TINY_TASKS,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "train_size": SIZE, "eval_size": SIZE}
    save_artifact(
        student,
        folder,
        tasks=tasks,
        preprocessing=preprocessing,
        metrics={},
        provenance={"step": 7, **(provenance or {})},
        ema=False,
    )
    return folder


def sparse_student(backbone: str = "food11_student", head: str = "multi-embedding", *, seed: int = 0) -> Student:
    """With gammas as sparse training leaves them: a third near zero, the others spread."""
    torch.manual_seed(seed)
    options = {"width": 32} if head in ("multi-embedding", "multi-shared-fc") else {}
    student = build_student(backbone=backbone, head={"kind": head, **options}, tasks=COUNTS)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(0.05, 1)
                module.weight[torch.rand(len(module.weight)) < 0.33] *= 1e-3
                module.bias.normal_(std=0.3)
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return student.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(sparse_student(), tmp_path_factory.mktemp("model") / "best")


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(sparse_student("mobilenetv2_050"), tmp_path_factory.mktemp("mobile") / "best")


@pytest.fixture(autouse=True)
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency as a function of MACs, so that no test waits for a clock or depends on one."""

    def measure(student: Student, *, image_size: int, threads: int) -> Latency:
        macs = count_cost(student, image_size=image_size).macs
        return Latency(macs / 1e6, "a calculation", threads, image_size)

    for place in ("prune.pruning", "prune.__main__", "prune.curve"):
        monkeypatch.setattr(f"{place}.measure_latency", measure)


def run(model: Path, out: Path, *arguments: str) -> dict[str, Any]:
    assert main(["--model", str(model), "--out", str(out), *arguments]) == 0
    return json.loads((out / "prune.json").read_text())


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


def broken(student: Student, change: Callable[[Student], None]) -> Student:
    with torch.no_grad():
        change(student)
    return student


def all_equal(student: Student) -> None:
    for module in student.modules():
        if isinstance(module, Norm):
            module.weight.fill_(0.7)


def spread_gammas(student: Student) -> None:
    for module in student.modules():
        if isinstance(module, Norm):
            module.weight.uniform_(0.5, 1.5)


def weaken_two_norms(student: Student) -> None:
    for norm in ("backbone.layer2.4", "backbone.layer3.1"):
        student.get_submodule(norm).weight.mul_(1e-4)


RANDOM_ALONE = "without --data the proof rests on random images alone"
BAD = {
    "ratio 0": (["--ratio", "0"], "the ratio is 0.0; it is the share of channels to prune, between 0 and 1"),
    "ratio 1": (["--ratio", "1"], "between 0 and 1"),
    "ratio 2": (["--ratio", "2"], "between 0 and 1"),
    "parameters": (
        ["--max-params", "10"],
        "a budget of 10 parameters cannot be reached: with these limits the smallest is",
    ),
    "macs": (["--max-macs", "1k"], "MACs"),
    "latency": (["--max-latency-ms", "1e-9"], " ms; lower --floor"),
    "no latency": (["--max-latency-ms", "0"], "--max-latency-ms is 0.0; it must be above 0"),
    "fits already": (["--max-params", "100M"], "already fits"),
    "multiple": (["--ratio", "0.3", "--multiple", "512"], "nothing would be pruned: with multiples of 512"),
    "layer ratio": (["--ratio", "0.3", "--max-layer-ratio", "0"], "--max-layer-ratio is 0.0"),
    "no data": (["--ratio", "0.3", "--score", "taylor"], "name a shard folder with --data"),
    "no data for statistics": (["--ratio", "0.3", "--recalibrate", "2"], "--recalibrate looks at photos"),
    "expansion": (["--ratio", "0.3", "--rule", "expansion"], "inverted residual blocks (MobileNetV2)"),
    "score of expansion": (["--ratio", "0.3", "--rule", "expansion", "--score", "taylor"], "leave out --score and"),
    "seed": (["--ratio", "0.3", "--seed", str(2**63)], "--seed 9223372036854775808: seeds are below 2**63"),
    "kinds": (["--max-params", "10", "--kinds", "stem"], "raise --max-layer-ratio, or prune more --kinds\n"),
    "no kinds": (["--max-params", "10"], "raise --max-layer-ratio\n"),
    "kinds of expansion": (["--ratio", "0.3", "--rule", "expansion", "--kinds", "stem"], "leave out --score and"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_end_with_one_clear_line_and_no_model(
    case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = BAD[case]
    assert main(["--model", str(model), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_models_own_folder_is_not_overwritten(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(model), "--out", str(model), "--ratio", "0.3"]) == 2
    assert "is the model itself" in capsys.readouterr().err


def test_only_a_pruning_is_replaced(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, tmp_path / "pruned", "--ratio", "0.3")
    run(model, tmp_path / "pruned", "--ratio", "0.4")
    shutil.copytree(model, tmp_path / "other")
    before = (tmp_path / "other" / "model.safetensors").read_bytes()
    assert main(["--model", str(model), "--out", str(tmp_path / "other"), "--ratio", "0.3"]) == 2
    assert "other: holds a model.json that is not of a pruning; name another folder" in capsys.readouterr().err
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == before
    (tmp_path / "file").touch()
    assert main(["--model", str(model), "--out", str(tmp_path / "file"), "--ratio", "0.3"]) == 2
    assert "file: is a file; name a folder" in capsys.readouterr().err


def test_a_model_that_answers_nan_is_told_from_a_wrong_rebuild(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def poison(student: Student) -> None:
        next(module for module in student.modules() if isinstance(module, nn.Conv2d)).weight[0, 0] = torch.nan

    path = save(broken(sparse_student(), poison), tmp_path / "model")
    assert main(["--model", str(path), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    assert "the model gives logits that are not finite (nan or inf) on random input" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "-5", "many", "1T", "nan"])
def test_an_amount_is_a_number_with_a_suffix(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "a", "--out", "b", f"--max-macs={text}"])
    assert "such as 100000, 60M or 50%" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0%", "100%", "-5%", "half%", "nan%"])
def test_a_budget_is_a_share_below_the_whole(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "a", "--out", "b", f"--max-params={text}"])
    assert f"'{text}' is not a share above 0 % and below 100 %" in capsys.readouterr().err


def test_a_model_without_norms_is_pruned_by_weights_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    student = build_student(backbone="cifar10_student", head={"kind": "multi-fc"}, tasks=COUNTS)
    path = save(student, tmp_path / "model")
    assert main(["--model", str(path), "--out", str(tmp_path / "a"), "--ratio", "0.3"]) == 2
    assert "no norms whose channels could be pruned; rank by weights instead: --score l2" in capsys.readouterr().err
    plan = run(path, tmp_path / "b", "--ratio", "0.3", "--score", "l2")
    assert plan["parameters"]["after"] < plan["parameters"]["before"]


def test_nan_gammas_name_their_norm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(student: Student) -> None:
        student.get_submodule("backbone.layer2.4").weight[3] = torch.nan

    path = save(broken(sparse_student(), spoil), tmp_path / "model")
    assert main(["--model", str(path), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    assert "backbone.layer2.4: 1 of its 128 weights are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_equal_gammas_rank_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(broken(sparse_student(), all_equal), tmp_path / "model")
    assert main(["--model", str(path), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    message = capsys.readouterr().err
    assert "gamma scores are equal, so they rank nothing" in message
    assert "|gamma|   0.3 to 1" in message


def test_gammas_that_were_never_trained_sparse_are_shown_in_a_warning(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(broken(sparse_student(), spread_gammas), tmp_path / "model")
    plan = run(path, tmp_path / "out", "--ratio", "0.3")
    said = capsys.readouterr().err
    assert "was not trained sparse" in said
    assert "|gamma|   0.3 to 1" in said
    remarks = [remark for remark in plan["remarks"] if remark != RANDOM_ALONE]
    assert len(remarks) == 1
    assert run(model, tmp_path / "sparse", "--ratio", "0.3")["remarks"] == [RANDOM_ALONE]


def test_what_is_said_of_gammas_away_from_zero_depends_on_the_models_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gammas near zero are the first to go: a pruned model has none left."""
    never, too_weakly = "was not trained sparse", "hardly any gamma came near zero"

    def said(number: int, provenance: Mapping[str, Any], widths: Mapping[str, int]) -> list[str]:
        torch.manual_seed(number)
        head = {"kind": "multi-fc"}
        student = build_student(backbone="food11_student", head=head, tasks=COUNTS, widths=widths)
        path = save(broken(student, spread_gammas), tmp_path / f"model{number}", provenance=provenance)
        run(path, tmp_path / f"out{number}", "--ratio", "0.3")
        errors = capsys.readouterr().err
        return [words for words in (never, too_weakly) if words in errors]

    tuned = {"config": {"sparsity": None, "model": {"artifact": "a", "fresh_weights": False}}}
    control = {"config": {"sparsity": None, "model": {"artifact": "a", "fresh_weights": True}}}
    narrow = {"backbone.layer2.3": 64}
    assert said(1, tuned, {}) == [never]
    assert said(2, control, narrow) == [never]
    assert said(3, tuned, narrow) == []
    assert said(4, {"config": {**tuned["config"], "sparsity": {"strength": 1e-4}}}, {}) == [too_weakly]
    assert said(5, {**tuned, "pruned": {}}, {}) == []


def test_scores_that_are_tied_at_the_threshold_are_said(tmp_path: Path) -> None:
    def half_to_zero(student: Student) -> None:
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight[torch.arange(len(module.weight)) % 2 == 0] = 0.0

    path = save(broken(sparse_student(), half_to_zero), tmp_path / "model")

    def said(*goal: str) -> list[str]:
        remarks = run(path, tmp_path / "-".join(goal), *goal)["remarks"]
        return [remark for remark in remarks if "go together" in remark]

    [ratio] = said("--ratio", "0.3")
    assert "% of the channels are to go where 30 % were asked for" in ratio
    assert said("--ratio", "0.6") == []
    [budget] = said("--max-macs", "90%")
    assert "scores are 0, that of the threshold" in budget
    assert re.search(r": [\d,]+ MACs are left where the budget allows [\d,]+$", budget)
    assert said("--max-macs", "15%", "--floor", "1") == []


@pytest.mark.parametrize("score", ["gamma", "relative-gamma"])
def test_a_group_without_a_norm_is_named_with_the_score_that_takes_it(
    score: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(sparse_student(head="multi-shared-fc"), tmp_path / "model")
    plan = run(path, tmp_path / "a", "--ratio", "0.3", "--score", score)
    named = "not pruned, for want of a norm whose gammas rank it: heads.shared (--score l2 takes it)"
    assert named in plan["remarks"]
    assert named in capsys.readouterr().err
    assert main(["--model", str(path), "--out", str(tmp_path / "b"), "--ratio", "0.3", "--kinds", "embedding"]) == 2
    assert "no norms whose channels could be pruned in its groups of kind embedding;" in capsys.readouterr().err
    plan = run(path, tmp_path / "c", "--ratio", "0.3", "--score", "l2")
    assert not [remark for remark in plan["remarks"] if "for want of a norm" in remark]


def test_layers_that_a_limit_keeps_whole_are_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, tmp_path / "out", "--ratio", "0.3", "--multiple", "48")
    assert re.search(
        r"\d layers? keeps? all (its|their) channels: no smaller width is a multiple", capsys.readouterr().out
    )


def test_a_threshold_that_was_capped_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(broken(sparse_student(), weaken_two_norms), tmp_path / "model")
    arguments = ("--ratio", "0.6", "--kinds", "stream", "embedding")
    plan = run(path, tmp_path / "capped", *arguments)
    assert plan["threshold"] == plan["cap"]
    assert "the threshold stopped at" in capsys.readouterr().err
    free = run(path, tmp_path / "free", *arguments, "--no-threshold-cap")
    assert free["cap"] is None
    assert free["parameters"]["after"] < plan["parameters"]["after"]


def test_a_budget_that_the_cap_keeps_out_of_reach_names_the_cap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def all_alike(student: Student) -> None:
        for norm in ("backbone.layer2.4", "backbone.layer3.1"):
            student.get_submodule(norm).weight.fill_(1e-4)

    path = save(broken(sparse_student(), all_alike), tmp_path / "model")
    kinds = ["--kinds", "stream", "embedding"]
    arguments = ["--model", str(path), "--out", str(tmp_path / "out"), *kinds, "--max-params"]
    assert main([*arguments, "20k", "--threshold-cap"]) == 2
    said = capsys.readouterr().err
    assert "the cap holds the threshold at 0.0001: leave out --threshold-cap" in said
    smallest = re.search(r"the smallest is ([\d,]+) parameters", said)
    assert smallest is not None
    run(path, tmp_path / "free", *kinds, "--max-params", "20k")
    assert main([*arguments, "10"]) == 2
    assert "cap" not in capsys.readouterr().err
    assert main([*arguments[:4], "--kinds", "stem", "--max-params", "10", "--threshold-cap"]) == 2
    assert "cap" not in capsys.readouterr().err  # a single norm keeps its largest in any case
    # Met at the very cap: all that was asked for went.
    met = run(path, tmp_path / "met", *kinds, "--max-params", smallest[1].replace(",", ""), "--threshold-cap")
    assert met["threshold"] == met["cap"]
    assert met["remarks"] == [RANDOM_ALONE]


def test_the_smallest_reachable_budget_can_be_asked_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, key in (("--max-params", "parameters"), ("--max-macs", "macs")):
        assert main(["--model", str(model), "--out", str(tmp_path / key), flag, "10"]) == 2
        smallest = re.search(r"the smallest is ([\d,]+) ", capsys.readouterr().err)
        assert smallest is not None
        value = smallest[1].replace(",", "")
        assert run(model, tmp_path / key, flag, value)[key]["after"] == int(value)


def test_dropped_constants_are_explained_by_what_dropped_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, tmp_path / "dropped", "--ratio", "0.3", "--no-fold")
    said = capsys.readouterr().out
    assert "as --no-fold says" in said
    assert "padding" not in said
    path = save(sparse_student("food11_grouped"), tmp_path / "model")
    run(path, tmp_path / "padded", "--ratio", "0.3", "--multiple", "1")
    assert "where padding or attention changes them on the way" in capsys.readouterr().out


def photo_folder(folder: Path, *, num_broken: int, num_good: int) -> Path:
    folder.mkdir()
    for number in range(num_broken + num_good):
        content = b"not a photo" if number < num_broken else jpeg_bytes(colour=0, tone=1, seed=number)
        (folder / f"{number}.jpg").write_bytes(content)
    return folder


def test_the_proof_reads_on_to_a_photo_that_can_be_used_or_says_that_there_is_none(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = photo_folder(tmp_path / "some", num_broken=5, num_good=2)
    plan = run(model, tmp_path / "a", "--ratio", "0.3", "--data", str(some))
    assert plan["proof"]["inputs"]["real"]["num_images"] == 1  # the fifth and sixth photo are a batch
    assert plan["remarks"] == []
    none = photo_folder(tmp_path / "none", num_broken=3, num_good=0)
    plan = run(model, tmp_path / "b", "--ratio", "0.3", "--data", str(none))
    assert list(plan["proof"]["inputs"]) == ["random"]
    alone = f"no photo of {none} could be used, so the proof rests on random images alone"
    assert plan["remarks"] == [alone]
    plan = run(model, tmp_path / "c", "--ratio", "0.3", "--data", str(none), "--recalibrate", "1")
    assert plan["recalibrated_batches"] == 0
    kept = f"fewer than two photos of {none} could be used, so --recalibrate left the norm statistics as they were"
    assert plan["remarks"] == [alone, kept]
    assert "the proof rests on random images alone" in capsys.readouterr().err


def test_an_artifact_of_another_version_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes().replace(b"slimheads-model/1", b"slimheads-model/9"))
    assert main(["--model", str(folder), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    assert "its format is 'slimheads-model/9'" in capsys.readouterr().err


def wrong_rewrite(*arguments: Any, **options: Any) -> tuple[Student, Student]:
    one, other = rewrite(*arguments, **options)
    with torch.no_grad():
        next(other.heads.parameters()).mul_(1 + 1e-6)
    return one, other


def test_a_failed_proof_writes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prune.pruning, "rewrite", wrong_rewrite)
    assert main(["--model", str(model), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    assert "differs from the masked one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def finetune_config(folder: Path, shards: Path) -> Path:
    config = {
        **OPTIONS,
        "run": {"dir": str(folder / "run")},
        "data": {**OPTIONS["data"], "image_size": SIZE, "train": str(shards / "train"), "val": str(shards / "val")},
        "schedule": {"epochs": 1, "warmup_epochs": 0},
        "trace_samples": False,
    }
    path = folder / "finetune.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_pruned_model_is_fine_tuned_on_two_ranks(
    model: Path, tiny_shards: Path, tmp_path: Path, run_ranks: Callable[..., Any]
) -> None:
    run(model, tmp_path / "pruned", "--ratio", "0.3", "--multiple", "8")
    config = finetune_config(tmp_path, tiny_shards)
    overrides = [f"model.artifact={tmp_path / 'pruned'}", "model.backbone="]
    result = run_ranks(2, ["train/main.py", "--config", str(config), *overrides])
    assert result.exit_code == 0, result.output
    before, after = load_artifact(tmp_path / "pruned")[0], load_artifact(tmp_path / "run" / "last")[0]
    assert after.architecture == before.architecture
    assert not torch.equal(before.backbone.layer1[3].weight, after.backbone.layer1[3].weight)


def fresh_model(artifact: Path, shards: Path, folder: Path, *overrides: str) -> Student:
    """As `train/main.py` builds it from the fine-tuning's config and one flag."""
    fixed = ["model.backbone=", f"model.artifact={artifact}", "model.fresh_weights=true"]
    config = load_config(finetune_config(folder, shards), [*fixed, *overrides])
    return build_model(config, load_index(str(shards / "train")), COUNTS)


def test_fresh_weights_are_the_pruned_shape_drawn_from_the_seed(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out", "--ratio", "0.3", "--multiple", "8")
    pruned, _ = load_artifact(tmp_path / "out")
    one, again, other = (
        fresh_model(tmp_path / "out", tiny_shards, tmp_path, f"seed={seed}").state_dict() for seed in (3, 3, 4)
    )
    assert {name: tensor.shape for name, tensor in one.items()} == {
        name: tensor.shape for name, tensor in pruned.state_dict().items()
    }
    drawn = [name for name in one if name.endswith("weight") and one[name].std() > 0]
    assert len(drawn) > 5
    assert all(torch.equal(one[name], again[name]) for name in one)
    for name in drawn:
        assert not torch.equal(one[name], pruned.state_dict()[name]), name
        assert not torch.equal(one[name], other[name]), name
    student = fresh_model(tmp_path / "out", tiny_shards, tmp_path)
    assert student.architecture == pruned.architecture
    assert student.preprocessing == pruned.preprocessing
    gammas = torch.cat([module.weight.flatten() for module in student.modules() if isinstance(module, Norm)])
    assert torch.equal(gammas, torch.ones_like(gammas))


def test_fresh_weights_need_an_artifact_and_its_classes(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    config = finetune_config(tmp_path, tiny_shards)
    with pytest.raises(ConfigError, match=r"model\.fresh_weights needs model\.artifact"):
        load_config(config, ["model.fresh_weights=true"])
    student = build_student(backbone="food11_student", head={"kind": "multi-fc"}, tasks={"colour": 3})
    with pytest.raises(ModelError, match=r"its classes of task 'tone' are None"):
        fresh_model(save(student, tmp_path / "other", tasks={"colour": TINY_TASKS["colour"]}), tiny_shards, tmp_path)


def test_ranks_draw_the_same_fresh_weights_and_train_them(
    model: Path, tiny_shards: Path, tmp_path: Path, run_ranks: Callable[..., Any]
) -> None:
    run(model, tmp_path / "pruned", "--ratio", "0.3", "--multiple", "8")
    config = finetune_config(tmp_path, tiny_shards)
    overrides = [f"model.artifact={tmp_path / 'pruned'}", "model.backbone=", "model.fresh_weights=true"]
    code = (
        "import hashlib, safetensors.torch\n"
        "from data.index import load_index\n"
        "from train.assemble import build_model\n"
        "from train.config_file import load_config\n"
        f"model = build_model(load_config({str(config)!r}, {overrides!r}), load_index({str(tiny_shards / 'train')!r}), "
        f"{COUNTS!r})\n"
        "print(hashlib.sha256(safetensors.torch.save(model.state_dict())).hexdigest())"
    )
    result = run_ranks(2, code=code)
    assert result.exit_code == 0, result.output
    assert result.stdout[0] == result.stdout[1] != ""
    result = run_ranks(2, ["train/main.py", "--config", str(config), *overrides])
    assert result.exit_code == 0, result.output
    before, after = load_artifact(tmp_path / "pruned")[0], load_artifact(tmp_path / "run" / "last")[0]
    assert after.architecture == before.architecture


def test_the_report_tells_fresh_weights_from_fine_tuned_ones(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "pruned", "--ratio", "0.3", "--multiple", "8")
    roles = {}
    for name, artifact, fresh in (
        ("control", tmp_path / "pruned", True),
        ("tuned", tmp_path / "pruned", False),
        ("unpruned", model, True),
    ):
        overrides = ["model.backbone=", f"model.artifact={artifact}", f"model.fresh_weights={str(fresh).lower()}"]
        outcome = train_small(tiny_shards, tmp_path / name, *overrides, "schedule.epochs=1")
        assert outcome.exit_code == 0, outcome.stderr
        roles[name] = role_of(read_run(outcome.run), set())
    assert roles == {"control": "pruned shape, fresh weights", "tuned": "pruned, fine-tuned", "unpruned": "trained"}


def test_a_run_from_fresh_weights_continues_where_it_was_killed(model: Path, tiny_shards: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "pruned", "--ratio", "0.3", "--multiple", "8")
    overrides = ["model.backbone=", f"model.artifact={tmp_path / 'pruned'}", "model.fresh_weights=true"]
    whole = train_small(tiny_shards, tmp_path / "whole", *overrides)
    assert whole.exit_code == 0, whole.stderr
    shutil.copytree(whole.run, tmp_path / "killed" / "run")
    (tmp_path / "killed" / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "killed" / "run" / "last")
    sorted((tmp_path / "killed" / "run" / "checkpoints").iterdir())[-1].unlink()
    again = train_small(tiny_shards, tmp_path / "killed", *overrides)
    assert again.exit_code == 0, again.stderr
    assert "continues after step 4" in again.stdout
    ours, theirs = (load_artifact(outcome.run / "last")[0].state_dict() for outcome in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


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
    monkeypatch.setattr(prune.pruning, "rewrite", wrong_rewrite)
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
    assert len(plan["remarks"]) == 1
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
