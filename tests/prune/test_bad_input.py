"""What `python -m prune` says to bad input, and of a pruning that may disappoint."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prune.pruner
from models.channel_groups.narrow import Norm
from models.student import Student, build_student
from prune.__main__ import main
from tests.conftest import jpeg_bytes
from tests.edited_json import edit_json
from tests.prune.sparse_models import (
    COUNTS,
    all_equal,
    broken,
    run,
    save,
    sparse_student,
    spread_gammas,
    weaken_two_norms,
    wrong_rewrite,
)

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
    "latency": (
        ["--max-latency-ms", "1e-9"],
        " ms; lower --min-features (backbone.layer4.3 keeps 32 of 141 channels for the classifiers), or lower --floor",
    ),
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
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "model.safetensors").write_bytes(b"of another tool")
    assert main(["--model", str(model), "--out", str(foreign), "--ratio", "0.3"]) == 2
    assert "foreign: holds a model.safetensors that is not of a pruning" in capsys.readouterr().err
    assert (foreign / "model.safetensors").read_bytes() == b"of another tool"
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
    plan = run(model, tmp_path / "a", "--ratio", "0.3", "--data", str(some), "--recalibrate", "0")
    assert plan["proof"]["inputs"]["real"]["num_images"] == 1  # the fifth and sixth photo are a batch
    assert plan["remarks"] == []
    none = photo_folder(tmp_path / "none", num_broken=3, num_good=0)
    plan = run(model, tmp_path / "b", "--ratio", "0.3", "--data", str(none), "--recalibrate", "0")
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
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    edit_json(folder / "model.json", format="slimheads-model/9")
    assert main(["--model", str(folder), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    assert "its format is 'slimheads-model/9'" in capsys.readouterr().err


def test_a_pruning_that_an_earlier_version_left_without_its_plan_is_replaced(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out", "--ratio", "0.3")
    (tmp_path / "out" / "prune.json").unlink()
    run(model, tmp_path / "out", "--ratio", "0.4")
    (tmp_path / "out" / "prune.json").unlink()
    edit_json(tmp_path / "out" / "model.json", metrics={"mean_top1": 0.5})  # it was trained since
    assert main(["--model", str(model), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2


def test_a_failed_proof_writes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prune.pruner, "rewrite", wrong_rewrite)
    assert main(["--model", str(model), "--out", str(tmp_path / "out"), "--ratio", "0.3"]) == 2
    assert "differs from the masked one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
