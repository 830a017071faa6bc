"""Training what was pruned, from its weights and from fresh ones."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.index import load_index
from models.artifact import load_artifact
from models.channel_groups.narrow import Norm
from models.errors import ModelError
from models.student import Student, build_student
from tests.conftest import TINY_TASKS
from tests.prune.sparse_models import COUNTS, finetune_config, run, save
from tests.small_run import train_small
from train.config.loading import load_config
from train.errors import ConfigError
from train.report_page.model_entries import role_of
from train.report_page.run_record import read_run
from train.setup.model import build_model


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
        "from train.setup.model import build_model\n"
        "from train.config.loading import load_config\n"
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
