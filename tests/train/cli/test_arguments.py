"""What a command was told is a frozen dataclass: every argument by its name, nothing that can change later."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from train import compare, evaluate, predict, report

SHARED = {"data": "d", "tta": 1, "image_size": None, "batch_size": 64, "workers": None, "precision": None}
EVALUATION = {**SHARED, "model": ("a", "b"), "device": "auto"}
MODELS = ["--model", "a", "--model", "b", "--data", "d"]


@pytest.mark.parametrize(
    ("parse", "arguments", "expected"),
    [
        (evaluate.parse_options, MODELS, {**EVALUATION, "json": None, "per_class": "worst"}),
        (
            predict.parse_options,
            [*MODELS, "--out", "o.csv", "--probabilities", "--image-size", "32"],
            {**EVALUATION, "out": Path("o.csv"), "probabilities": True, "image_size": 32, "photos": ()},
        ),
        (
            compare.parse_options,
            [*MODELS, "--against", "c"],
            {"model": ("a", "b"), "against": ("c",), "data": "d", "json": None},
        ),
        (
            report.parse_options,
            ["run one", "two", "--out", "p.html", "--no-thumbnails"],
            {
                "folders": (Path("run one"), Path("two")),
                "out": Path("p.html"),
                "photos": 200,
                "thumbnails": False,
                "workers": None,
                "command": "python -m train.report 'run one' two --out p.html --no-thumbnails",
            },
        ),
    ],
    ids=["evaluate", "predict", "compare", "report"],
)
def test_a_command_is_told_what_its_arguments_say_and_keeps_it(
    parse: Callable[[Sequence[str]], Any],
    arguments: list[str],
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = parse(arguments)
    assert dataclasses.asdict(options) == expected
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, next(iter(expected)), "other")


@pytest.mark.parametrize("command", [evaluate, predict, compare, report])
def test_the_help_names_the_command_and_shows_an_example_line_by_line(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.parse_options(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: python -m {command.__name__} ")
    assert any(line.startswith(f"    python -m {command.__name__} ") for line in lines)
