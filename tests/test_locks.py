"""Two locks: users install what running needs, developers the same versions and their tools."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]


def pins(name: str) -> set[str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    return {line for line in lines if line and not line.lstrip().startswith("#")}


def packages(name: str) -> set[str]:
    return {canonicalize_name(re.split(r"[\[=]", pin)[0]) for pin in pins(name)}


# Extras that only some users want; nothing of ours is tested with them.
UNLOCKED = {"heif", "tensorboard"}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    return given


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_everything_exactly_and_names_no_index(name: str) -> None:
    assert [pin for pin in pins(name) if not re.fullmatch(r"[\w.-]+(\[[\w,.-]+\])?==[\w.+!]+( ;.*)?", pin)] == []
    assert {"torch==2.14.1", "torchvision==0.29.1"} <= pins(name)


def test_what_users_install_is_what_the_tests_ran_with() -> None:
    assert pins("requirements.lock") - pins("requirements-dev.lock") == set()


def test_running_needs_the_locked_extras_but_the_developers(setup_arguments: dict[str, Any]) -> None:
    extras = {name: wanted for name, wanted in setup_arguments["extras_require"].items() if name not in UNLOCKED}
    tools = names(extras.pop("dev"))
    needed = names(setup_arguments["install_requires"]).union(*map(names, extras.values()))
    assert needed - packages("requirements.lock") == set()
    assert tools & packages("requirements.lock") == set()
    assert tools - packages("requirements-dev.lock") == set()


def planned(target: str) -> str:
    """The commands of a target where nothing is made yet, which are not run."""
    command = ["make", "--no-print-directory", "--dry-run", "VENV=.venv-that-is-not-there", target]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("target", "is_dev", "is_horovod"),
    [
        ("setup", False, True),
        ("run", False, True),
        ("test", True, True),
        ("bench", True, True),
        ("soak", True, True),
        ("lint", True, False),
    ],
)
def test_each_target_installs_what_it_needs(target: str, is_dev: bool, is_horovod: bool) -> None:
    commands = planned(target).splitlines()
    installs = [command.rpartition(" ")[2] for command in commands if " pip install " in command]
    assert installs == ["requirements.lock", *(["requirements-dev.lock"] if is_dev else [])]
    assert any(command.endswith("python -m launch.horovod_build") for command in commands) is is_horovod


def test_the_locks_are_made_with_the_extras_that_setup_lists(setup_arguments: dict[str, Any]) -> None:
    run, dev = (line for line in planned("lock").splitlines() if line.startswith("uv pip compile"))
    assert set(re.findall(r"--extra (\S+)", run)) == setup_arguments["extras_require"].keys() - {"dev"} - UNLOCKED
    assert set(re.findall(r"--extra (\S+)", dev)) == setup_arguments["extras_require"].keys() - UNLOCKED
    assert "--constraint requirements.lock" in dev


def test_continuous_integration_lints_before_it_tests() -> None:
    assert re.findall(r"^(?:exec )?make .*?(\w+)$", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE) == [
        "lint",
        "test",
    ]
