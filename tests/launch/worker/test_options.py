"""The arguments of a worker become its options."""

from pathlib import Path

import pytest

from launch.worker.options import WorkerOptions, parse_options


def test_what_is_not_given_has_a_default() -> None:
    assert parse_options(["--", "python", "train/main.py", "--config", "a.yaml"]) == WorkerOptions(
        check=False,
        num_ranks=1,
        restarts=0,
        wait_seconds=300.0,
        grow_seconds=60.0,
        interface=None,
        log_folder=None,
        folder=Path(),
        command=("python", "train/main.py", "--config", "a.yaml"),
    )


def test_every_option_is_read() -> None:
    words = "--check --ranks 2 --restarts 10 --wait 5 --grow-after 0.5 --interface eth0 --logs logs --folder runs"
    assert parse_options(words.split()) == WorkerOptions(True, 2, 10, 5.0, 0.5, "eth0", Path("logs"), Path("runs"), ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ranks 0 -- true", "argument --ranks: '0' must be a whole number of at least 1"),
        ("--restarts=-1 -- true", "argument --restarts: '-1' must be a whole number of at least 0"),
        ("--wait nan -- true", "argument --wait: 'nan' must be a number of seconds"),
        ("--ranks 2", "say after -- what each rank runs"),
    ],
)
def test_what_cannot_be_is_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_options(words.split())
    assert message in capsys.readouterr().err
