"""A folder of shards is held by one build at a time."""

import multiprocessing
from pathlib import Path

import pytest

from data.errors import DataError
from data.shards.build_plan import lock_folder


def _lock(folder: Path) -> str:
    try:
        with lock_folder(folder):
            return "locked"
    except DataError as error:
        return str(error)


def test_a_second_build_of_one_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as other:
        with lock_folder(tmp_path):
            assert other.apply(_lock, (tmp_path,)) == f"{tmp_path}: another build is writing it at this moment"
        assert other.apply(_lock, (tmp_path,)) == "locked"


@pytest.mark.parametrize("name", ["new", "new/val"])
def test_a_folder_that_is_missing_is_made(name: str, tmp_path: Path) -> None:
    assert _lock(tmp_path / name) == "locked"
    assert (tmp_path / name).is_dir()
