"""A mistyped path of a model is said before anything slow: before torch is loaded and before any data is opened."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch.exit_codes import MEANING, ExitCode
from models.errors import ModelError
from models.model_path import given_as, require_models
from tests.conftest import REPOSITORY, rank_environment
from tests.small_run import small_config, train_small
from train import cache_teacher, compare, evaluate, predict


def test_the_message_names_the_file_and_the_model_nearby(tmp_path: Path) -> None:
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/best/model.json").write_text("{}")
    require_models(tmp_path / "run/best", tmp_path / "run/best/model.json")
    for path, message in {
        tmp_path / "gone": f"{tmp_path}/gone: cannot be read (No such file or directory); a model is a folder with",
        tmp_path / "run": f"{tmp_path}/run/model.json: cannot be read .*; did you mean {tmp_path}/run/best",
        tmp_path / "gone.onnx": f"{tmp_path}/gone.onnx: no such file",
    }.items():
        with pytest.raises(ModelError, match=message.replace("(", r"\(").replace(")", r"\)")):
            require_models(tmp_path / "run/best", path)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["--model", "a", "--data", "b"], ["a"]),
        (["--data", "b", "--model=a", "--model", "c", "--against", "d", "--json", "e"], ["a", "c", "d"]),
        (["--mod", "a"], ["a"]),
        (["--model"], []),
        (["--model", "--data", "b"], []),
        (["photo.jpg"], []),
    ],
)
def test_the_options_are_read_as_the_command_will_read_them(
    words: list[str], paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *words])
    assert given_as("--model", "--against") == paths


@pytest.mark.parametrize(
    "command",
    [
        ["train.predict", "--model", "{gone}", "--data", "nowhere", "--out", "{tmp}/out.csv"],
        ["train.evaluate", "--model", "{gone}", "--data", "nowhere"],
        ["train.compare", "--model", "{tmp}/model", "--against", "{gone}", "--data", "nowhere"],
        ["prune", "--model", "{gone}", "--out", "{tmp}/out", "--ratio", "0.5"],
        ["prune.curve", "--model", "{gone}", "--out", "{tmp}/out", "--data", "nowhere"],
        ["models.export", "--model", "{gone}", "--out", "{tmp}/out"],
        ["models.summary", "{gone}"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_it_in_a_blink(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text("{}")
    gone = str(tmp_path / "gone")
    words = [word.replace("{gone}", gone).replace("{tmp}", str(tmp_path)) for word in command]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=REPOSITORY,
        env=rank_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == ExitCode.BAD_CONFIG
    assert done.stderr.startswith(f"error: {gone}: cannot be read (No such file or directory)")
    assert done.stderr.endswith(f"exit 2: {MEANING[ExitCode.BAD_CONFIG]}\n")
    assert after.ru_utime - before.ru_utime < 0.5  # importing torch alone takes 1.5


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["model.backbone=", "model.artifact={gone}"], "model.artifact"),
        (["teacher.model={gone}"], "teacher.model"),
        (["teacher.model={tone: {gone}}", "--dry-run"], "teacher.model.tone"),
    ],
)
def test_a_run_names_the_key_before_it_opens_its_data(overrides: list[str], key: str, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    outcome = train_small(tmp_path / "no data either", tmp_path, *(word.replace("{gone}", gone) for word in overrides))
    assert outcome.exit_code == ExitCode.BAD_CONFIG
    assert f"error: {key}: {gone}: cannot be read (No such file or directory); a model is" in outcome.stderr
    assert not outcome.run.exists()


def test_commands_called_as_functions_say_it_before_they_open_their_data(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = str(tmp_path / "gone")
    data = ["--data", str(tmp_path / "no data either")]
    config = yaml.safe_load(small_config(tmp_path / "no data either", tmp_path).read_text())
    config["teacher"] = {"model": gone, "cache": str(tmp_path / "cache")}
    path = tmp_path / "teacher.yaml"
    path.write_text(yaml.safe_dump(config))
    for command, words in (
        (predict, ["--model", gone, "--out", str(tmp_path / "out.csv"), *data]),
        (evaluate, ["--model", gone, *data]),
        (compare, ["--model", gone, "--against", gone, *data]),
        (cache_teacher, ["--config", str(path), "--views", "1"]),
    ):
        assert command.main(words) == ExitCode.BAD_CONFIG
        assert f"{gone}: cannot be read (No such file" in capfd.readouterr().err
