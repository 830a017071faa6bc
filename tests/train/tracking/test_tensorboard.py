"""TensorBoard gets the numbers of metrics.jsonl, each step once also after a kill, and its failures end nothing.

The package is not installed where these tests run: torch's SummaryWriter is a stand-in that writes the calls down, and
they are read as TensorBoard reads its files, which drops what a purge step is told to.
"""

import json
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from launch.exit_codes import ExitCode
from tests.small_run import STEPS, train_small
from train.tracking.tensorboard import TensorBoardLogger

ON = "tracking.tensorboard=true"


class StandIn:
    """A file for each writer, with what was flushed."""

    def __init__(self, log_dir: str, purge_step: int | None = None) -> None:
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{len(list(folder.iterdir())):03d}"
        self._events: list[dict[str, Any]] = [{"purge": purge_step}]
        self.flush()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._events.append({"tag": tag, "value": value, "step": step})

    def add_text(self, tag: str, text: str, step: int) -> None:
        self._events.append({"tag": tag, "value": text, "step": step})

    def flush(self) -> None:
        self._path.write_text("".join(json.dumps(event) + "\n" for event in self._events))

    def close(self) -> None:
        self.flush()


def shown(folder: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in map(json.loads, path.read_text().splitlines()):
            if "purge" in event:
                events = [known for known in events if event["purge"] is None or known["step"] < event["purge"]]
            else:
                events.append(event)
    return events


def as_recorded(folder: Path) -> dict[tuple[str, int], float]:
    """The scalars, none of them twice."""
    scalars = [event for event in shown(folder) if event["tag"] != "config"]
    by_place = {(event["tag"], event["step"]): event["value"] for event in scalars}
    assert len(by_place) == len(scalars)
    return by_place


def numbers_of(lines: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Of metrics.jsonl, where what is not a number is null."""
    return {
        (f"{line['kind']}/{name}", line["step"]): value
        for line in lines
        for name, value in line.items()
        if isinstance(value, int | float) and name != "step"
    }


def finite(scalars: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    return {place: value for place, value in scalars.items() if value == value}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    package: Any = ModuleType("tensorboard")
    package.__spec__ = ModuleSpec("tensorboard", None)
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = StandIn
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return StandIn


@pytest.mark.usefixtures("stand_in")
def test_tensorboard_gets_the_numbers_of_the_jsonl_and_the_config(tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path, ON)
    assert outcome.exit_code == 0, outcome.stderr
    folder = outcome.run / "tensorboard"
    assert finite(as_recorded(folder)) == numbers_of(outcome.lines("metrics.jsonl"))
    (config,) = (event["value"] for event in shown(folder) if event["tag"] == "config")
    assert yaml.safe_load(config)["optimizer"]["lr"] == 0.02


@pytest.mark.usefixtures("stand_in")
def test_the_folder_can_be_named(tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path, f"tracking.tensorboard={tmp_path / 'all' / 'a'}", "schedule.epochs=1")
    assert outcome.exit_code == 0, outcome.stderr
    assert as_recorded(tmp_path / "all" / "a")
    assert not (outcome.run / "tensorboard").exists()


class Killed(BaseException):
    """As a kill: nothing is cleaned up."""


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("kind", "step"), [("train", 4), ("evaluation", STEPS - 1), ("train", 0)])
def test_after_a_kill_no_step_is_there_twice_and_none_is_missing(
    kind: str, step: int, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TensorBoardLogger.log

    def log_and_die(self: TensorBoardLogger, record: Mapping[str, Any]) -> None:
        whole(self, record)
        if (record["kind"], record["step"]) == (kind, step):
            raise Killed

    monkeypatch.setattr(TensorBoardLogger, "log", log_and_die)
    with pytest.raises(Killed):
        train_small(tiny_shards, tmp_path, ON)
    assert (f"{kind}/epoch", step) in as_recorded(tmp_path / "run" / "tensorboard")  # on disk before the kill
    monkeypatch.setattr(TensorBoardLogger, "log", whole)
    outcome = train_small(tiny_shards, tmp_path, ON)
    assert outcome.exit_code == 0, outcome.stderr
    lines = outcome.lines("metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(2 * STEPS))
    assert finite(as_recorded(outcome.run / "tensorboard")) == numbers_of(lines)


@pytest.mark.usefixtures("stand_in")
def test_a_run_that_gets_it_later_shows_its_first_steps_too(tmp_path: Path) -> None:
    earlier = [{"kind": "train", "step": step, "loss": 1.0} for step in range(4)]
    TensorBoardLogger(tmp_path, config={}, step=4, earlier=earlier)
    assert sorted(as_recorded(tmp_path)) == [("train/loss", step) for step in range(4)]


def test_without_the_package_the_run_does_not_start_and_says_what_to_do(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = train_small(tiny_shards, tmp_path, ON)
    assert outcome.exit_code == ExitCode.BAD_CONFIG
    assert "tracking.tensorboard: the package tensorboard is not installed" in outcome.stderr
    assert "pip install 'slimheads[tensorboard]'" in outcome.stderr
    assert not outcome.run.exists()


@pytest.mark.parametrize("broken", ["__init__", "add_text", "add_scalar", "flush", "close"])
def test_what_goes_wrong_is_said_once_and_ends_nothing(
    broken: str,
    stand_in: type[StandIn],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: StandIn, *arguments: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(stand_in, broken, refuse)
    logger = TensorBoardLogger(tmp_path, config={}, step=0, earlier=[])
    logger.log({"kind": "train", "step": 0, "loss": 1.0})
    logger.log({"kind": "train", "step": 1, "loss": 1.0})
    logger.finish(None)
    assert capsys.readouterr().err == "TensorBoard failed and is switched off for this run: OSError: disk full\n"
