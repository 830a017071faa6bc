"""Free memory is what the tightest of the machine and the surrounding memory groups leaves."""

from pathlib import Path

import psutil
import pytest

from launch.free_memory import _left_in_groups, free_memory


def group(folder: Path, *, limit: str, used: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_every_group_up_to_the_root_counts(tmp_path: Path) -> None:
    group(tmp_path / "job", limit="1000", used=900, inactive=50)
    group(tmp_path / "job/step", limit="max", used=100)
    group(tmp_path / "job/step/task", limit="300", used=100)
    assert _left_in_groups("/job/step/task", tmp_path) == [200, 150]


@pytest.mark.parametrize("inside", ["/", "/nowhere/here"])
def test_a_container_sees_its_own_group_at_the_root(inside: str, tmp_path: Path) -> None:
    group(tmp_path, limit="1000", used=1200)
    assert _left_in_groups(inside, tmp_path) == [0]


def test_no_more_than_the_machine_has() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total
