"""Fixtures that several test files share: real Horovod ranks and small real shards."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
TINY_TASKS = {"colour": ("red", "green", "blue"), "tone": ("dark", "bright")}
# Files that take longest, in this order, start first, so that no process is left with one of them at the end.
LONGEST = (
    *(
        "end_to_end/test_pipeline",
        "end_to_end/test_resume",
        "end_to_end/test_food11",
        "launch/test_slurm",
        "train/test_main_bad_input",
    ),
    *("end_to_end/test_ranks", "train/test_cache_teacher", "launch/test_elastic", "end_to_end/test_soak"),
    *("launch/horovod/test_horovodrun", "models/export/test_export", "train/report_page/test_report"),
    *("train/loop/test_due_evaluation", "launch/test_kubernetes", "train/distributed/test_watchdog", "test_docs"),
)


@dataclass(frozen=True)
class RankRun:
    """What a `horovodrun` call left: its exit code (1 for any failing rank), its whole output, and each rank's own."""

    exit_code: int
    output: str
    stdout: list[str]
    stderr: list[str]


def rank_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a subprocess of a test: this repository importable, one thread per process."""
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        **(extra or {}),
    }


def end_process_tree(process: subprocess.Popen[str]) -> None:
    """Kill a process and everything it started; horovodrun's ranks live in sessions of their own."""
    parent = psutil.Process(process.pid)
    for child in [*parent.children(recursive=True), parent]:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def own_lines(log: Path) -> str:
    """What a rank wrote, without the `[0]<stdout>:` that horovodrun puts before each line."""
    return re.sub(r"^\[\d+\]<std(out|err)>:", "", log.read_text(), flags=re.MULTILINE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of LONGEST, then the others; within a file nothing moves."""
    places = {REPOSITORY / "tests" / f"{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[..., RankRun]:
    """Start real Horovod ranks on this machine: `run_ranks(2, ["train/main.py", ...])` or `run_ranks(3, code="...")`.

    Works offline (loopback, Gloo) and fails the test, with the output so far, when the ranks outlive `timeout` seconds.
    """

    def run(
        num_ranks: int,
        arguments: Sequence[str] = (),
        *,
        code: str | None = None,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
    ) -> RankRun:
        command = ["-c", code] if code is not None else list(arguments)
        logs = tmp_path / f"ranks-{len(list(tmp_path.glob('ranks-*')))}"
        launcher = ["horovodrun", "-np", str(num_ranks), "--gloo", "--network-interface", "lo"]
        process = subprocess.Popen(
            [*launcher, "--output-filename", str(logs), sys.executable, *command],
            env=rank_environment(env),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            end_process_tree(process)
            pytest.fail(f"{num_ranks} ranks did not end within {timeout} s:\n{process.communicate()[0][-4000:]}")
        ranks = [logs / f"rank.{rank}" for rank in range(num_ranks)]
        stdout, stderr = ([own_lines(rank / name) for rank in ranks] for name in ("stdout", "stderr"))
        return RankRun(process.returncode, output, stdout, stderr)

    return run


def jpeg_bytes(*, colour: int, tone: int, seed: int, size: int = 40) -> bytes:
    """A noisy JPEG of `size` pixels whose dominant channel is `colour` and whose brightness follows `tone`."""
    noise = np.random.default_rng(seed).integers(0, 60, (size, size, 3))
    noise[..., colour] += 60 + 120 * tone
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_tiny_tar(path: Path, *, first_sample: int, num_samples: int) -> None:
    """A tar as webdataset lays it out; every seventh sample has no label for `tone`."""
    with tarfile.open(path, "w") as tar:
        for number in range(first_sample, first_sample + num_samples):
            colour, tone = number % 3, number // 3 % 2
            labels = {"colour": TINY_TASKS["colour"][colour], "tone": TINY_TASKS["tone"][tone]}
            if number % 7 == 6:
                labels.pop("tone")
            image = jpeg_bytes(colour=colour, tone=tone, seed=number)
            for suffix, content in (("jpg", image), ("json", json.dumps(labels).encode())):
                member = tarfile.TarInfo(f"sample{number:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train/` (3 shards, 33 samples) and `val/` (1 shard, 12 samples), indexed; read it, never write it.

    Tasks: colour (red, green, blue) and tone (dark, bright), both learnable from the 40x40 pictures.
    """
    from data.shards.external_tars import index_tars

    root = tmp_path_factory.mktemp("tiny-shards")
    for split, counts in {"train": (12, 12, 9), "val": (12,)}.items():
        folder = root / split
        folder.mkdir()
        tars = [folder / f"{split}-{number:03d}.tar" for number in range(len(counts))]
        for number, (tar, count) in enumerate(zip(tars, counts, strict=True)):
            write_tiny_tar(tar, first_sample=(1000 if split == "val" else 0) + 12 * number, num_samples=count)
        index_tars(tars, tasks=TINY_TASKS, cls_task="class")
    return root


@pytest.fixture(autouse=True)
def _a_core_for_each_process() -> None:
    """Where pytest runs in several processes: threads that wait for each other on cores that others use take many times
    as long. What a run chooses for itself it still chooses."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are too small for several threads, which only wait for each other when tests run side by side."""
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
