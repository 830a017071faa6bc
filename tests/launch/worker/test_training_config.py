"""What a launch takes from the config of a training command."""

from pathlib import Path

import pytest

from data.loading.step_memory import SLOTS
from launch.errors import LaunchError
from launch.worker.training_config import read_training_config
from train.setup.launch_needs import LaunchNeeds

CONFIG = "run: {dir: runs/a}\ndata: {train: b, image_size: 8}\nmodel: {backbone: cifar_resnet20}\nbatch_size: 7\n"
LINES = {"teacher": "teacher: {model: t, image_size: 16}\n", "elastic": "elastic: {min_ranks: 1, max_ranks: 4}\n"}


def read(folder: Path, lines: str, *overrides: str) -> LaunchNeeds:
    (folder / "config.yaml").write_text(CONFIG + lines)
    training = read_training_config(
        ["python", "train/main.py", "--config", str(folder / "config.yaml"), "--dry-run", *overrides]
    )
    assert training is not None
    return training


def test_the_run_folder_and_the_bounds_of_an_elastic_job_are_read(tmp_path: Path) -> None:
    training = read(tmp_path, LINES["elastic"], "run.dir=runs/b")
    assert (training.run_folder, training.rank_bounds) == (Path("runs/b"), (1, 4))
    assert read(tmp_path, "").rank_bounds is None


def test_the_batches_of_the_loaders_hold_the_images_of_student_and_teacher(tmp_path: Path) -> None:
    """7 samples on two ranks are at most 4 on one."""
    assert read(tmp_path, "", "data.workers=2").loader_bytes(2) == SLOTS * 4 * 3 * 8 * 8
    training = read(tmp_path, LINES["teacher"], "data.workers=2")
    assert training.loader_bytes(1) == SLOTS * 7 * 3 * (8 * 8 + 16 * 16)
    assert read(tmp_path, "", "data.workers=0").loader_bytes(2) == 0


@pytest.mark.parametrize(
    "words", [["python", "train/main.py"], ["python", "-m", "train.main"], ["bin/slimheads", "train"]]
)
def test_every_way_to_start_a_training_is_known(words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("run: {dir: r}\ndata: {train: t}\nmodel: {backbone: food11_student}\nbatch_size: 7\n")
    found = read_training_config([*words, "--config", str(config)])
    assert found is not None
    assert found.batch_size == 7


@pytest.mark.parametrize(
    "command", [["slimheads", "build"], ["true"], ["python", "main.py"], ["python", "other.py", "--config", "x"]]
)
def test_another_command_has_no_config(command: list[str]) -> None:
    assert read_training_config(command) is None


def test_a_wrong_config_is_an_error_of_the_launch(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"unknown key 'bach_size'; did you mean 'batch_size'\?"):
        read(tmp_path, "bach_size: 3\n")
    with pytest.raises(LaunchError, match="the command after --: argument --config: expected one argument"):
        read_training_config(["python", "-m", "train.main", "--config"])
