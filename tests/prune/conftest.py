"""What all tests of pruning share."""

from pathlib import Path

import pytest

from models.cost import count_cost
from models.formats.latency import Latency
from models.student import Student
from tests.prune.sparse_models import save, sparse_student


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(sparse_student(), tmp_path_factory.mktemp("model") / "best")


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(sparse_student("mobilenetv2_050"), tmp_path_factory.mktemp("mobile") / "best")


@pytest.fixture(autouse=True)
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency as a function of MACs, so that no test waits for a clock or depends on one."""

    def measure(student: Student, *, image_size: int, threads: int) -> Latency:
        macs = count_cost(student, image_size=image_size).macs
        return Latency(macs / 1e6, "a calculation", threads, image_size)

    for place in ("prune.goal", "prune.saved_model", "prune.curve"):
        monkeypatch.setattr(f"{place}.measure_latency", measure)
