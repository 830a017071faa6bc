"""Argument types turn text into numbers and files, or name what the text must be."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.arguments import duration, not_negative, output_file, positive


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(positive, "1", 1), (not_negative, "0", 0), (duration, "0", 0.0), (duration, "2.5", 2.5), (duration, "1e2", 100)],
)
def test_numbers_are_read(kind: Callable[[str], float], text: str, value: float) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (positive, "0", "'0' must be a whole number of at least 1"),
        (positive, "1.5", "'1.5' must be a whole number of at least 1"),
        (not_negative, "-1", "'-1' must be a whole number of at least 0"),
        (not_negative, "x", "'x' must be a whole number of at least 0"),
        *((duration, text, f"'{text}' must be a number of seconds") for text in ("-1", "nan", "inf", "soon")),
    ],
)
def test_anything_else_is_refused_in_words(kind: Callable[[str], float], text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)


def test_the_folder_of_an_output_file_is_made_and_what_cannot_be_one_is_refused(tmp_path: Path) -> None:
    assert output_file(f"{tmp_path}/new/page.html") == tmp_path / "new/page.html"
    assert (tmp_path / "new").is_dir()
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder; name a file in it"):
        output_file(f"{tmp_path}/new")
    (tmp_path / "file").touch()
    with pytest.raises(argparse.ArgumentTypeError, match="its folder cannot be made"):
        output_file(f"{tmp_path}/file/page.html")
