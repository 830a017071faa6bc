"""`from prune import prune_model`: the command's work as a call, for notebooks and other commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.artifact import load_artifact
from models.errors import ModelError
from prune import PruneOptions, prune_model
from prune.options import check_options, parse_options
from tests.conftest import REPOSITORY, rank_environment
from tests.prune.sparse_models import run


def test_a_call_gives_what_the_command_writes_and_writes_nothing_without_a_folder(model: Path, tmp_path: Path) -> None:
    written = run(model, tmp_path / "out", "--max-macs", "60%", "--multiple", "4")
    before = sorted(tmp_path.rglob("*"))
    pruned = prune_model(PruneOptions(model=str(model), max_macs=0.6, multiple=4))
    assert pruned.files == ()
    assert sorted(tmp_path.rglob("*")) == before
    theirs = load_artifact(tmp_path / "out")[0].state_dict()
    assert pruned.student.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in pruned.student.state_dict().items())
    own = json.loads(json.dumps(pruned.record))
    assert {**written, "command": ""} == {**own, "files": written["files"], "checksum": written["checksum"]}


def test_a_call_with_a_folder_names_the_files_that_it_wrote(model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    pruned = prune_model(PruneOptions(model=str(model), out=tmp_path / "out", ratio=0.3), progress=said.append)
    assert [path.name for path in pruned.files] == ["model.json", "prune.json", "widths.svg"]
    assert all(path.exists() for path in pruned.files)
    assert said[0] == "scoring the channels"


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        ({}, "name a goal: a ratio, or one or more of the budgets"),
        ({"ratio": 0.3, "max_macs": 0.5}, "name a goal"),
        ({"max_params": 0}, "max_params is 0; it is a number at most"),
    ],
)
def test_a_call_needs_a_ratio_or_budgets(goals: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_options(PruneOptions(model="a", **goals))  # type: ignore[arg-type]


def test_the_command_line_and_the_call_have_the_same_defaults() -> None:
    parsed = parse_options(["--model", "a", "--out", "b", "--ratio", "0.3"], description=None)
    made = PruneOptions(model="a", out=Path("b"), ratio=0.3, command="python -m prune --model a --out b --ratio 0.3")
    assert {**vars(parsed), "kinds": tuple(parsed.kinds)} == vars(made)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, prune, models.export; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=rank_environment(), check=False)
    assert done.returncode == 0
