"""Whoever takes batches counts at the end of the pass: a stream that ends early, for whatever reason, is no result."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

import data.loading.step_plan
from data.errors import LoaderLost
from data.loading.worker_processes import side_by_side
from data.teacher_logits import load_manifest
from launch.exit_codes import ExitCode
from tests.small_run import Outcome, train_small
from tests.tiny_models import SIZE, save_tiny_model
from train import cache_teacher, compare, evaluate, predict
from train.report_page.predictions import collect_predictions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "a", seed=1)


def lose_the_last_step(monkeypatch: pytest.MonkeyPatch, *, of_stream: int = 0) -> None:
    """Of the stream with that number, counted from now."""
    number = count()

    def cut(work: Any, steps: Iterable[Any], **options: int) -> Iterator[Any]:
        made = list(side_by_side(work, steps, **options))
        return iter(made[:-1] if next(number) == of_stream else made)

    monkeypatch.setattr(data.loading.step_plan, "side_by_side", cut)


@pytest.mark.parametrize(
    ("stream", "words"),
    [(0, "the batches ended after step 5 of 6"), (1, "measuring: 11 samples came, 12 were planned")],
)
def test_training(stream: int, words: str, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_the_last_step(monkeypatch, of_stream=stream)
    outcome: Outcome = train_small(tiny_shards, tmp_path)
    assert outcome.exit_code == ExitCode.RANK_LOST
    assert f"error: {words}" in outcome.stderr
    assert not (outcome.run / "last").exists()
    monkeypatch.undo()
    assert train_small(tiny_shards, tmp_path).exit_code == 0  # it was not taken for finished


def _evaluate(model: Path, shards: Path, folder: Path) -> ExitCode:
    return evaluate.main(["--model", str(model), "--data", str(shards), "--json", str(folder / "out")])


def _predict(model: Path, shards: Path, folder: Path) -> ExitCode:
    return predict.main(["--model", str(model), "--data", str(shards), "--out", str(folder / "out")])


def _compare(model: Path, shards: Path, folder: Path) -> ExitCode:
    return compare.main(
        ["--model", str(model), "--against", str(model), "--data", str(shards), "--json", str(folder / "out")]
    )


def test_what_a_report_asks(model: Path, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_the_last_step(monkeypatch)
    with pytest.raises(LoaderLost, match=r"asking about .*: 32 samples came, 33 were planned"):
        collect_predictions({"a": model}, str(tiny_shards / "train"), most=100, workers=0)


def _cache(model: Path, shards: Path, folder: Path) -> ExitCode:
    config = {
        "run": {"dir": str(folder / "run")},
        "data": {"train": str(shards), "image_size": SIZE, "workers": 0},
        "model": {"backbone": "food11_student"},
        "teacher": {"model": str(model), "cache": str(folder / "cache")},
        "batch_size": 5,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return cache_teacher.main(["--config", str(folder / "config.yaml"), "--views", "1"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (_evaluate, "measuring: 0 samples came, 33 were planned"),
        (_predict, "predicting: 0 samples came, 33 were planned"),
        (_compare, "comparing: 0 samples came, 33 were planned"),
        (_cache, "view 0: 2 of 3 shards were computed"),
    ],
)
def test_other_commands(
    command: Callable[[Path, Path, Path], ExitCode],
    words: str,
    model: Path,
    tiny_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lose_the_last_step(monkeypatch)
    assert command(model, tiny_shards / "train", tmp_path) == ExitCode.RANK_LOST
    assert words in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    if command is _cache:
        assert load_manifest(str(tmp_path / "cache")).views == 0
