"""`python -m train.cache_teacher`: exact logits for every view, the same files on more ranks and after any kill."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from data.images.augment import POLICIES
from data.images.transform import ImageTransform
from data.index import load_index
from data.shards.shard_reader import ShardReader
from data.teacher_logits import LogitReader, SidecarWriter, load_manifest
from launch.exit_codes import ExitCode
from models.artifact import load_artifact
from tests.conftest import REPOSITORY, TINY_TASKS, RankRun, end_process_tree, rank_environment
from tests.range_server import serve
from tests.tiny_models import save_tiny_model
from train import cache_teacher
from train.distillation.cache.compute import Stage, plan_stages
from train.distillation.cache.fill import caching_progress, deal_shards
from train.distillation.cache.verify import draw_entries
from train.setup import teacher_caching

SIZE, CLASSES, SAMPLES = 40, 5, 33
RECORD = 2 * CLASSES + 4


@pytest.fixture(scope="module", autouse=True)
def _one_thread_and_own_signals() -> Iterator[None]:
    """One thread, because the last bits depend on their number; the command takes over signals for its process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda count: None)
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("teachers") / "a", seed=1)


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_shards / "train", tmp_path / "shards"))


def write_config(folder: Path, shards: Path | str, teacher: Path | Mapping[str, str], **changes: Any) -> Path:
    """A shard is three batches or two; the student sees smaller photos than the teacher."""
    model = str(teacher) if isinstance(teacher, Path) else dict(teacher)
    config = {
        "run": {"dir": str(folder / "run")},
        "data": {"train": str(shards), "image_size": 24, "workers": 0},
        "augment": {"policy": "strong"},
        "model": {"backbone": "food11_student"},
        "teacher": {"model": model, "cache": str(folder / "cache"), "image_size": SIZE},
        "batch_size": 5,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def cache(config: Path, views: int, *arguments: str) -> ExitCode:
    return cache_teacher.main(["--config", str(config), "--views", str(views), *arguments])


def files_of(folder: Path) -> dict[str, bytes]:
    """All that a cache holds."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def sidecars_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(folder).items() if name.endswith(".logits")}


def answers(teacher: Path, shards: Path, view: int, *, policy: str = "strong", seed: int = 0) -> list[np.ndarray]:
    """float32 [count, 5] per shard: every photo on its own through the model as it was saved."""
    model, meta = load_artifact(teacher)
    mean, std = (torch.tensor(meta.preprocessing[name]) for name in ("mean", "std"))
    index = load_index(shards)
    reader = ShardReader(index)
    pixels = ImageTransform(size=SIZE, operations=POLICIES[policy], seed=seed)
    found = []
    for shard, info in enumerate(index.shards):
        rows = []
        for sample in range(info.count):
            image = np.empty((SIZE, SIZE, 3), np.uint8)
            key = reader.info(shard).key(sample)
            pixels.make(reader.read(shard, sample), shard=info.name, key=key, view=view, out=image)
            with torch.no_grad():
                logits = model(((torch.tensor(image) / 255 - mean) / std).permute(2, 0, 1)[None])
            rows.append(torch.cat([logits[task][0] for task in TINY_TASKS]).numpy())
        found.append(np.stack(rows))
    return found


def stored(folder: Path, shards: Path | str, view: int, *, num_views: int) -> list[np.ndarray]:
    """float16 [count, 5] per shard."""
    index = load_index(shards)
    reader = LogitReader(str(folder), index, num_views=num_views, cache=None)
    return [
        np.stack([reader.read(shard, sample, view) for sample in range(info.count)])
        for shard, info in enumerate(index.shards)
    ]


@pytest.fixture(scope="module")
def three_views(tiny_shards: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed caching of three views."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    assert cache(write_config(folder, tiny_shards / "train", teacher), 3) == 0
    return files_of(folder / "cache")


def test_every_view_of_every_photo_has_the_teachers_logits(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 3) == 0
    for view in range(3):
        expected = answers(teacher, tiny_shards / "train", view)
        for ours, theirs in zip(
            stored(tmp_path / "cache", tiny_shards / "train", view, num_views=3), expected, strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
    first, second = (np.concatenate(answers(teacher, tiny_shards / "train", view)) for view in (0, 1))
    assert np.abs(first - second).max(axis=1).min() > 4e-3  # so a view in another's place would be seen


def test_the_manifest_says_what_was_cached(three_views: dict[str, bytes], teacher: Path, tmp_path: Path) -> None:
    for name, data in three_views.items():
        (tmp_path / name).write_bytes(data)
    manifest = load_manifest(str(tmp_path))
    weights = json.loads((teacher / "model.json").read_text())["weights"]["sha256"]
    assert manifest.tasks == TINY_TASKS
    assert {source.sha256 for source in manifest.teachers.values()} == {weights}
    assert (manifest.precision, manifest.image_size, manifest.operations) == ("fp32", SIZE, POLICIES["strong"])
    assert (manifest.views, manifest.non_finite, manifest.non_finite_samples) == (3, (0, 0, 0), ())
    assert [shard.count for shard in manifest.shards] == [12, 12, 9]
    assert sum(map(len, (data for name, data in three_views.items() if name.endswith(".logits")))) == 3 * 33 * RECORD


def test_each_task_may_have_a_teacher_of_its_own(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "b", seed=2, mean=(0.1, 0.2, 0.3))
    config = write_config(tmp_path, tiny_shards / "train", {"colour": str(other), "tone": str(teacher)})
    assert cache(config, 1) == 0
    ours = np.concatenate(stored(tmp_path / "cache", tiny_shards / "train", 0, num_views=1))
    colour = np.concatenate(answers(other, tiny_shards / "train", 0))[:, :3]
    tone = np.concatenate(answers(teacher, tiny_shards / "train", 0))[:, 3:]
    np.testing.assert_allclose(ours, np.concatenate([colour, tone], axis=1), rtol=2e-3, atol=2e-3)
    assert load_manifest(str(tmp_path / "cache")).teachers["colour"].mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_files_do_not_depend_on_the_number_of_workers(
    workers: int, three_views: dict[str, bytes], tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 3, f"data.workers={workers}") == 0
    assert files_of(tmp_path / "cache") == three_views


def test_called_again_it_is_complete_without_the_teachers_weights(
    three_views: dict[str, bytes],
    tiny_shards: Path,
    teacher: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    config = write_config(tmp_path, tiny_shards / "train", model)
    assert cache(config, 3) == 0
    (model / "model.safetensors").unlink()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.*")}
    capfd.readouterr()
    assert cache(config, 3) == 0
    assert f"{tmp_path}/cache is complete: 3 views of 33 photos, {3 * 33 * RECORD:,} bytes" in capfd.readouterr().out
    assert cache(config, 2) == 0
    assert "3 views of 33 photos (2 were asked for)" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.*")} == written
    assert sidecars_of(tmp_path / "cache") == {name: three_views[name] for name in sidecars_of(tmp_path / "cache")}


def test_more_views_are_appended(
    three_views: dict[str, bytes], tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 1) == 0
    first = sidecars_of(tmp_path / "cache")
    assert all(three_views[name].startswith(data) for name, data in first.items())
    capfd.readouterr()
    assert cache(config, 3) == 0
    assert files_of(tmp_path / "cache") == three_views
    output = capfd.readouterr().out
    assert "view 1 of 3" not in output
    assert "view 2 of 3: 33 photos" in output


@pytest.mark.parametrize("cut", [0, 1, 12 * RECORD, 2 * 12 * RECORD + 5], ids=str)
def test_a_sidecar_that_a_kill_left_behind_is_completed_to_the_same_bytes(
    cut: int,
    three_views: dict[str, bytes],
    tiny_shards: Path,
    teacher: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As a kill leaves it: one shard ahead, one torn, the manifest behind both."""
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 1) == 0
    for name in ("train-000.logits", "train-001.logits"):
        (tmp_path / "cache" / name).write_bytes(three_views[name][: cut if name == "train-001.logits" else None])
    capfd.readouterr()
    assert cache(config, 3) == 0
    assert files_of(tmp_path / "cache") == three_views
    torn = cut % (12 * RECORD)
    assert (f"train-001.logits: cut {torn} bytes of an unfinished view" in capfd.readouterr().out) == bool(torn)


def test_while_a_deleted_sidecar_is_missing_the_manifest_promises_less(
    three_views: dict[str, bytes], tiny_shards: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 3) == 0
    (tmp_path / "cache/train-002.logits").unlink()
    promised = []
    monkeypatch.setattr(
        teacher_caching, "load_teacher", lambda *_, **__: promised.append(load_manifest(str(tmp_path / "cache")).views)
    )
    with pytest.raises(AttributeError):  # there is no teacher to look at
        cache(config, 3)
    assert promised == [0]
    monkeypatch.undo()
    assert cache(config, 3) == 0
    assert files_of(tmp_path / "cache") == three_views


def command(config: Path, views: int, *arguments: str) -> list[str]:
    return ["-m", "train.cache_teacher", "--config", str(config), "--views", str(views), *arguments]


def start(config: Path, views: int, *, num_ranks: int = 1) -> subprocess.Popen[str]:
    launcher = ["horovodrun", "-np", str(num_ranks), "--gloo", "--network-interface", "lo"] if num_ranks > 1 else []
    return subprocess.Popen(
        [*launcher, sys.executable, *command(config, views)],
        env=rank_environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=one_core if num_ranks == 1 else None,
    )


def one_core() -> None:
    """A rank of two on two cores computes with one thread; so shall a process on its own, for the same last bits."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def finish(process: subprocess.Popen[str], timeout: float = 150) -> str:
    try:
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        end_process_tree(process)
        pytest.fail(f"did not end within {timeout} s:\n{process.communicate()[0][-4000:]}")


def wait_for_view(folder: Path, view: int, process: subprocess.Popen[str]) -> None:
    """Until the manifest promises so many views."""
    deadline = time.monotonic() + 120
    while not ((folder / "manifest.json").exists() and load_manifest(str(folder)).views >= view):
        if process.poll() is not None or time.monotonic() > deadline:
            end_process_tree(process) if process.poll() is None else None
            pytest.fail(f"view {view} was not reached:\n{process.communicate()[0][-4000:]}")
        time.sleep(0.002)


def process_of_rank(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    for child in psutil.Process(launcher.pid).children(recursive=True):
        is_rank = "train.cache_teacher" in child.cmdline() and child.environ().get("HOROVOD_RANK") == str(rank)
        if is_rank and not any("python" in grandchild.name() for grandchild in child.children()):
            return child
    raise AssertionError(f"rank {rank} not found")


MANY = 30  # views, so that a kill finds work to interrupt


@pytest.fixture(scope="module")
def many_views(tiny_shards: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one undisturbed process."""
    folder = tmp_path_factory.mktemp("many")
    process = start(write_config(folder, tiny_shards / "train", teacher), MANY)
    output = finish(process)
    assert process.returncode == 0, output
    return files_of(folder / "cache")


@pytest.mark.parametrize(("victim", "view"), [(0, 9), (1, 1)])
def test_killed_on_two_ranks_and_called_again_it_ends_with_the_files_of_one_undisturbed_process(
    victim: int, view: int, many_views: dict[str, bytes], tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    process = start(config, MANY, num_ranks=2)
    wait_for_view(tmp_path / "cache", view, process)
    process_of_rank(process, victim).send_signal(signal.SIGKILL)
    finish(process, timeout=60)
    assert process.returncode != 0
    assert load_manifest(str(tmp_path / "cache")).views < MANY
    (tmp_path / "cache" / ".manifest.json.1.tmp").write_bytes(b"left over")
    again = start(config, MANY, num_ranks=2)
    output = finish(again)
    assert again.returncode == 0, output
    assert f"view {MANY} of {MANY}" in output
    assert "view 1 of" not in output
    assert files_of(tmp_path / "cache") == many_views


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_the_same_command_continues(
    number: signal.Signals, many_views: dict[str, bytes], tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    process = start(config, MANY)
    wait_for_view(tmp_path / "cache", 2, process)
    process.send_signal(number)
    output = finish(process, timeout=60)
    assert process.returncode == 75, output
    assert "exit 75: stopped by a signal, saved; the same command continues" in output
    assert "Traceback" not in output
    assert load_manifest(str(tmp_path / "cache")).views < MANY
    again = start(config, MANY)
    output = finish(again)
    assert again.returncode == 0, output
    assert files_of(tmp_path / "cache") == many_views


SLOW_DISK = """
import sys, time
from train import cache_teacher
from train.distillation.cache import folder as cache_folder
write = cache_folder.write_manifest
cache_folder.write_manifest = lambda *arguments: (time.sleep(0.5), write(*arguments))
sys.exit(cache_teacher.main({arguments}))
"""


def test_more_ranks_than_shards_verify_what_a_slow_disk_has_taken(
    tiny_shards: Path, teacher: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]
) -> None:
    config = write_config(tmp_path, tiny_shards / "val", teacher)  # one shard
    arguments = ["--config", str(config), "--views", "2", "--verify", "12"]
    result = run_ranks(3, code=SLOW_DISK.format(arguments=arguments))
    assert result.exit_code == 0, result.output
    assert "view 2 of 2: 12 photos" in result.output
    assert "verified 12 entries" in result.output
    assert load_manifest(str(tmp_path / "cache")).views == 2


def damage(shard: Path, sample: int) -> str:
    """Flip a byte of a photo after the shard was indexed; returns its key."""
    index = load_index(shard.parent)
    number = [info.name for info in index.shards].index(shard.name)
    rows = index.load_shard(number)
    data = bytearray(shard.read_bytes())
    data[int(rows.offset[sample]) + int(rows.size[sample]) // 2] ^= 255
    shard.write_bytes(data)
    return rows.key(sample)


def test_a_damaged_photo_has_no_logits_and_is_named(
    three_views: dict[str, bytes], shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = damage(shards / "train-001.tar", 7)
    assert cache(write_config(tmp_path, shards, teacher), 3) == 0
    manifest = load_manifest(str(tmp_path / "cache"))
    assert manifest.non_finite == (1, 1, 1)
    ((shard, named, reason),) = manifest.non_finite_samples
    assert (shard, named) == ("train-001.tar", key)
    assert "crc32c" in reason
    (line,) = (tmp_path / "cache/bad_samples.jsonl").read_text().splitlines()
    assert (json.loads(line)["key"], json.loads(line)["reason"]) == (key, reason)
    assert "3 rows without finite logits" in capfd.readouterr().out
    for view in range(3):
        for number, rows in enumerate(stored(tmp_path / "cache", shards, view, num_views=3)):
            lost = np.isnan(rows).all(axis=1)
            assert np.flatnonzero(lost).tolist() == ([7] if number == 1 else [])
            if number != 1:
                assert (
                    sidecars_of(tmp_path / "cache")[f"train-00{number}.logits"]
                    == three_views[f"train-00{number}.logits"]
                )


def test_too_many_bad_photos_stop_it_with_the_list(
    shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = [damage(shards / name, sample) for name in ("train-000.tar", "train-002.tar") for sample in range(6)]
    config = write_config(tmp_path, shards, teacher)
    assert cache(config, 2) == 65
    errors = capfd.readouterr().err
    assert "12 samples have no finite logits so far, more than the 10 that data.max_bad_share allows" in errors
    assert [key for key in keys if key not in errors] == []
    assert load_manifest(str(tmp_path / "cache")).views == 0
    assert cache(config, 2, "data.max_bad_share=0.5") == 0
    assert load_manifest(str(tmp_path / "cache")).non_finite == (12, 12)


def test_bad_photos_that_only_all_ranks_together_are_too_many_stop_it(
    shards: Path, teacher: Path, tmp_path: Path, run_ranks: Callable[..., RankRun]
) -> None:
    for name in ("train-000.tar", "train-001.tar"):  # dealt to two ranks
        for sample in range(6):
            damage(shards / name, sample)
    result = run_ranks(2, command(write_config(tmp_path, shards, teacher), 2))
    assert "exit 65" in result.output
    assert "12 bad samples are more than the 10 that data.max_bad_share allows" in result.output
    assert load_manifest(str(tmp_path / "cache")).views == 0


def change_weights(teacher: Path, folder: Path, change: Callable[[torch.Tensor], object]) -> Path:
    """A saved model with another bias of the first task, and a description that fits it."""
    shutil.copytree(teacher, folder)
    path = folder / "model.safetensors"
    weights = load_file(path)
    (name,) = [name for name in weights if "colour" in name and name.endswith("bias")]
    change(weights[name])
    save_file(weights, path)
    from hashlib import sha256

    described = json.loads((folder / "model.json").read_text())
    described["weights"] |= {"sha256": sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    (folder / "model.json").write_text(json.dumps(described))
    return folder


def test_a_teacher_with_a_broken_weight_is_refused_at_once(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = change_weights(teacher, tmp_path / "broken", lambda bias: bias[0].fill_(math.nan))
    assert cache(write_config(tmp_path, tiny_shards / "train", broken), 2) == 2
    assert "weights or statistics are not finite (NaN or inf)" in capfd.readouterr().err


def test_a_teacher_without_finite_logits_stops_it_before_the_first_view_is_over(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = change_weights(teacher, tmp_path / "broken", lambda bias: bias[0].fill_(1e6))  # beyond fp16
    assert cache(write_config(tmp_path, tiny_shards / "train", broken), 2) == 65
    errors = capfd.readouterr().err
    assert "12 samples have no finite logits so far" in errors  # the first shard's
    assert "overflow in precision fp32" in errors
    assert "train-000.tar sample0000: the teacher's logits are not finite" in errors


def test_an_interrupted_view_counts_the_bad_photos_that_were_met_before(
    shards: Path, teacher: Path, tmp_path: Path
) -> None:
    damage(shards / "train-000.tar", 3)
    damage(shards / "train-002.tar", 4)
    config = write_config(tmp_path, shards, teacher)
    assert cache(config, 2) == 0
    whole = sidecars_of(tmp_path / "cache")
    manifest = load_manifest(str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache")
    assert cache(config, 1) == 0
    (tmp_path / "cache/train-000.logits").write_bytes(whole["train-000.logits"])  # the second view, then a kill
    assert cache(config, 2) == 0
    assert sidecars_of(tmp_path / "cache") == whole
    assert load_manifest(str(tmp_path / "cache")) == manifest


MISMATCHES = {
    "augment.seed=3": "another value of augment.seed: 0, now 3",
    "augment.flip=0.1": "another value of augment.flip: 0.5, now 0.1",
    "precision=bf16": "another value of precision: fp32, now bf16",
    "teacher.image_size=32": "another value of the teacher's image size: 40, now 32",
    "data.max_pixels=1000000": "another value of data.max_pixels: 64000000, now 1000000",
}


@pytest.mark.parametrize("override", MISMATCHES)
def test_a_folder_with_logits_of_something_else_is_refused(
    override: str, tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 1) == 0
    before = files_of(tmp_path / "cache")
    assert cache(config, 2, override) == 65
    assert MISMATCHES[override] in capfd.readouterr().err
    assert files_of(tmp_path / "cache") == before


def test_another_teacher_or_other_shards_are_refused(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 1) == 0
    other = save_tiny_model(tmp_path / "b", seed=2)
    assert cache(config, 2, f"teacher.model={other}") == 65
    assert "task 'colour' was cached from another teacher" in capfd.readouterr().err
    assert cache(config, 2, f"data.train={tiny_shards / 'val'}") == 65
    assert "the cache has shard train-000.tar where the data has val-000.tar" in capfd.readouterr().err


def test_bad_arguments_are_told_in_one_line(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)

    def refused(*overrides: str) -> str:
        assert cache(config, 1, *overrides) == 2
        return capfd.readouterr().err

    assert "caching needs teacher.model" in refused("teacher=")
    assert "caching needs teacher.model" in refused("teacher.cache=")
    assert "caching needs teacher.model" in refused("teacher.model=")
    assert "teacher.cache s3://bucket/x: a cache is written to a local folder" in refused("teacher.cache=s3://bucket/x")
    (tmp_path / "file").touch()
    assert f"teacher.cache {tmp_path}/file/x: cannot be made" in refused(f"teacher.cache={tmp_path}/file/x")
    assert f"{tmp_path}/nothing" in refused(f"teacher.model={tmp_path}/nothing")
    other = save_tiny_model(tmp_path / "other", seed=3, tasks={"colour": ("red", "green", "black")})
    assert "task 'colour': the teacher does not know 'blue', classes of the data" in refused(f"teacher.model={other}")
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray/train-000.logits").touch()
    assert "holds logits but no manifest.json says of what" in refused(f"teacher.cache={tmp_path}/stray")
    for arguments in (["--views", "0"], ["--views", "x"], ["--views", "1", "--verify", "0"]):
        with pytest.raises(SystemExit, match="2"):
            cache_teacher.main(["--config", str(config), *arguments])
    assert not (tmp_path / "cache").exists()


def test_two_cachings_of_one_folder_are_refused(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    (tmp_path / "cache").mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    arguments = [sys.executable, "-c", code, str(tmp_path / "cache/.lock")]
    holder = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert cache(config, 1) == 2
    assert f"teacher.cache {tmp_path}/cache: another caching is writing it" in capfd.readouterr().err
    holder.communicate("\n")
    assert cache(config, 1) == 0


def test_verifying_finds_a_wrong_entry_and_names_it(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 3, "seed=1", "--verify", "1000", "batch_size=4") == 0  # overrides may stand anywhere
    assert "verified 99 entries: largest difference 0.0" in capfd.readouterr().out
    path = tmp_path / "cache/train-001.logits"
    writer = SidecarWriter(tmp_path / "cache", shard_name="train-001.tar", num_samples=12, num_classes=CLASSES)
    views = [writer.read(view) for view in range(3)]
    path.unlink()
    writer = SidecarWriter(tmp_path / "cache", shard_name="train-001.tar", num_samples=12, num_classes=CLASSES)
    for view, logits in enumerate(views):
        assert logits is not None
        if view == 1:
            logits[[4, 5]] = logits[[5, 4]]  # with good checksums
            logits[6] = np.nan
        writer.append(logits)
    assert cache(config, 3, "--verify", "1000") == 65
    errors = capfd.readouterr().err
    assert "3 of 99 verified entries are wrong" in errors
    assert "train-001.tar sample0016, view 1: differs by" in errors
    assert "train-001.tar sample0017, view 1: differs by" in errors
    assert "train-001.tar sample0018, view 1: the stored logits are not finite, now they are" in errors


def test_verifying_takes_a_damaged_photo_for_what_it_is(shards: Path, teacher: Path, tmp_path: Path) -> None:
    damage(shards / "train-001.tar", 7)
    assert cache(write_config(tmp_path, shards, teacher), 2, "--verify", "1000") == 0


def test_verifying_names_a_damaged_file(
    tiny_shards: Path, teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_shards / "train", teacher)
    assert cache(config, 2) == 0
    path = tmp_path / "cache/train-002.logits"
    data = bytearray(path.read_bytes())
    data[3 * RECORD] ^= 1
    path.write_bytes(data)
    assert cache(config, 2, "--verify", "66") == 65
    assert "train-002.logits: the logits of sample 3, view 0, are damaged (crc32c)" in capfd.readouterr().err


def test_remote_shards_give_the_logits_of_local_ones(
    three_views: dict[str, bytes], tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    with serve(tiny_shards / "train") as server:
        data = {"train": server.url, "image_size": 24, "workers": 1, "cache": {"dir": str(tmp_path / "ranges")}}
        config = write_config(tmp_path, "", teacher, data=data)
        assert cache(config, 3, "--verify", "9") == 0
    assert files_of(tmp_path / "cache") == three_views


def test_it_tells_on_a_terminal_and_elsewhere_how_far_it_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.distillation.cache.fill._LINE_SECONDS", 0.0)
    counts = np.array([12, 12, 9])
    with caching_progress([Stage(0, 1, (0,)), Stage(1, 3, (0, 2))], counts, shown=True) as advance:
        advance(5)
        advance(5)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("5 of this rank's 54 photos, ")
    assert lines[1].startswith("10 of this rank's 54 photos, ")
    with caching_progress([Stage(0, 1, (0,))], counts, shown=False) as advance:
        advance(5)
    assert capfd.readouterr().out == ""


COUNTS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@settings(deadline=None)
@given(counts=COUNTS, num_ranks=st.integers(1, 9))
def test_shards_are_dealt_once_and_evenly(counts: list[int], num_ranks: int) -> None:
    dealt = deal_shards(counts, num_ranks)
    assert sorted(shard for shards in dealt for shard in shards) == list(range(len(counts)))
    load = [sum(counts[shard] for shard in shards) for shards in dealt]
    assert max(load) - min(load) <= max(counts)


@settings(deadline=None)
@given(has=st.lists(st.integers(0, 6), max_size=8), views=st.integers(1, 5))
def test_stages_hold_exactly_what_is_missing_view_by_view(has: list[int], views: int) -> None:
    computed = [
        (view, shard)
        for stage in plan_stages(dict(enumerate(has)), views)
        for view in range(stage.first, stage.stop)
        for shard in stage.shards
    ]
    assert computed == sorted((view, shard) for shard, count in enumerate(has) for view in range(count, views))


def test_entries_to_verify_are_different_ones_from_everywhere() -> None:
    counts = np.array([3, 1, 2])
    everything = draw_entries(counts, views=4, num=10**6, seed=0)
    assert everything == [(view, shard, at) for view in range(4) for shard in range(3) for at in range(counts[shard])]
    some = draw_entries(counts, views=4, num=10, seed=0)
    assert len(set(some)) == 10
    assert set(some) < set(everything)
    assert some == draw_entries(counts, views=4, num=10, seed=0) != draw_entries(counts, views=4, num=10, seed=1)
