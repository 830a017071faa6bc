"""The command `slimheads`, installed from a wheel, in a folder full of packages that are called like ours."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import slimheads
from tests.conftest import REPOSITORY, jpeg_bytes
from tests.test_structure import is_command as is_command_file
from tests.test_structure import tracked_files
from tests.tiny_models import save_tiny_model

SECONDS = 280
STRANGER = "is_a_stranger = True\n"  # one that can be imported stays in the way of ours


def call(command: Sequence[str | Path], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=dict(env), capture_output=True, text=True, timeout=SECONDS
    )


def environment(**more: str) -> dict[str, str]:
    """Without what makes this repository importable."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**ours, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **more}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows, or would."""
    sources = tmp_path_factory.mktemp("sources")
    top = {*slimheads.PACKAGES, "setup.py", "pyproject.toml", "README.md", "slimheads.py"}
    for path in tracked_files():
        name = path.relative_to(REPOSITORY)
        if name.parts[0] in top:
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = call([*pip, "--wheel-dir", sources / "dist", "."], sources, environment())
    assert done.returncode == 0, done.stderr
    (built,) = (sources / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/slimheads of an environment that has the wheel, and the packages of this one behind it."""
    venv = tmp_path_factory.mktemp("venv")
    assert call([sys.executable, "-m", "venv", "--without-pip", venv], venv, environment()).returncode == 0
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet", "--no-deps"]
    done = call([*pip, "--no-index", wheel], venv, environment())
    assert done.returncode == 0, done.stderr
    (site_packages,) = (venv / "lib").glob("python*/site-packages")
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin" / "slimheads"


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A user's folder with photos, and with strangers of all our names."""
    for name in slimheads.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(STRANGER)
    (tmp_path / "photos").mkdir()
    for number in range(6):
        folder = tmp_path / "photos" / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(jpeg_bytes(colour=number % 3, tone=0, seed=number))
    return tmp_path


def test_the_wheel_holds_everything_that_runs_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        str(path.relative_to(REPOSITORY))
        for path in tracked_files()
        if path.relative_to(REPOSITORY).parts[0] in slimheads.PACKAGES
    }
    assert held == (wanted - {"launch/k8s/Dockerfile"}) | {"slimheads.py"}


@pytest.mark.parametrize("by_path", [False, True], ids=["in the folder", "on the path too"])
def test_ours_are_imported_beside_strangers_of_the_same_names(command: Path, crowded: Path, by_path: bool) -> None:
    """In this process and in the workers of a build, which a server forks."""
    env = environment(**({"PYTHONPATH": str(crowded)} if by_path else {}))
    build = [command, "build", "--source", "folder:photos", "--out", "shards", "--workers", "2"]
    done = call([*build, "--samples-per-shard", "2"], crowded, env)
    assert done.returncode == 0, done.stderr
    assert "wrote shards/train: 6 samples in 3 shards" in done.stdout


def test_ranks_that_horovodrun_starts_import_ours(command: Path, crowded: Path) -> None:
    """And the loader processes of each rank."""
    save_tiny_model(crowded / "model", seed=1)
    horovodrun = [Path(sys.executable).parent / "horovodrun", "-np", "2", "--gloo", "--network-interface", "lo"]
    predict = [command, "predict", "--model", "model", "--data", "photos", "--out", "out.csv", "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = call([*horovodrun, *predict], crowded, environment(PYTHONPATH=str(crowded), PATH=path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((crowded / "out.csv").read_text().splitlines()) == 7


def test_the_path_stays_as_it_is_where_nothing_can_be_mistaken(command: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, slimheads; before = list(sys.path); slimheads.put_ours_first();"
        "print(sys.path == before, os.environ.get('PYTHONPATH'))"
    )
    done = call([command.parent / "python", "-c", code], tmp_path, environment())
    assert done.stdout.split() == ["True", "None"], done.stderr
    (tmp_path / "data.py").touch()
    done = call([command.parent / "python", "-c", code], tmp_path, environment())
    (site_packages,) = command.parents[1].glob("lib/python*/site-packages")
    assert done.stdout.split() == ["False", str(site_packages)], done.stderr


def test_from_the_repository_it_works_in_any_folder(crowded: Path) -> None:
    done = call([sys.executable, REPOSITORY / "slimheads.py", "verify", "--help"], crowded, environment())
    assert done.returncode == 0, done.stderr
    assert "usage: python -m data.verify" in done.stdout


def test_the_help_lists_every_command_with_a_line_and_loads_nothing(command: Path, tmp_path: Path) -> None:
    code = (
        "import slimheads, sys; slimheads.main(['--help']); print(len({'torch', 'numpy', 'data'} & set(sys.modules)))"
    )
    done = call([command.parent / "python", "-c", code], tmp_path, environment())
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "0"
    there = [one for one in slimheads.COMMANDS if one.is_there]
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [one.name for one in there]
    assert all(f"{one.about}" in done.stdout for one in there)


def test_every_command_starts_a_module_that_can_be_started() -> None:
    written_by_others = {"calibrate", "pipeline"}  # which are listed once they are there
    missing = {one.name for one in slimheads.COMMANDS if not one.is_there}
    assert missing <= written_by_others
    for one in slimheads.COMMANDS:
        file = REPOSITORY / f"{one.module.replace('.', '/')}.py"
        assert one.name in missing or file.parent.joinpath(file.stem, "__main__.py").is_file() or is_command_file(file)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["cache_teacher"], "did you mean cache-teacher?"),
        (["xyzzy"], "no command 'xyzzy'; slimheads --help lists all"),
        ([], "needs a command"),
    ],
)
def test_an_unknown_command_names_the_nearest(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slimheads.main(arguments) == 2
    assert told in capsys.readouterr().err
