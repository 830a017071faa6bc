"""A student that learns from cached logits learns what it would from the teacher itself, on any number of ranks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data.index import load_index
from data.sampling.view_schedule import ViewSchedule
from tests.conftest import TINY_TASKS
from tests.edited_json import edit_json
from tests.range_server import serve
from tests.small_run import OPTIONS, Outcome, small_config, train_small
from tests.tiny_models import save_tiny_model
from train.cache_teacher import main as cache_teacher
from train.main import main

pytestmark = pytest.mark.usefixtures("one_thread")
STRONG = ("augment.policy=strong", "schedule.epochs=4")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1)


@pytest.fixture(scope="module")
def cache(tiny_shards: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three views of every tiny photo under the strong augmentation."""
    folder = tmp_path_factory.mktemp("cache")
    config = small_config(tiny_shards, folder)
    overrides = [*STRONG, f"teacher={{model: {teacher}, cache: {folder / 'logits'}}}"]
    assert cache_teacher(["--config", str(config), "--views", "3", *overrides]) == 0
    return folder / "logits"


def trained(shards: Path, folder: Path, *overrides: str) -> Outcome:
    outcome = train_small(shards, folder, *STRONG, *overrides)
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


def curve(outcome: Outcome, name: str) -> list[float]:
    return [line[name] for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last/model.safetensors")


def assert_close(ours: Path, theirs: Path, *, tolerance: float) -> None:
    expected = weights(theirs)
    for name, tensor in weights(ours).items():
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", ["kl", "js", "mse", "dkd"])
def test_the_loss_is_that_of_the_computing_teacher_up_to_fp16(
    loss: str, tiny_shards: Path, teacher: Path, cache: Path, tmp_path: Path
) -> None:
    """One step: the same views, the same fresh student, so only the rounding of the stored logits differs."""
    computed, cached = (
        trained(tiny_shards, tmp_path / name, setting, "augment.views=3", "schedule.epochs=1")
        for name, setting in (
            ("computed", f"teacher={{model: {teacher}, loss: {loss}}}"),
            ("cached", f"teacher={{cache: {cache}, loss: {loss}}}"),
        )
    )
    for task in TINY_TASKS:
        assert curve(cached, f"loss.{task}")[0] == curve(computed, f"loss.{task}")[0]
        expected = curve(computed, f"loss.{task}.teacher")[0]
        assert curve(cached, f"loss.{task}.teacher")[0] == pytest.approx(expected, rel=2e-3)
        assert curve(cached, f"loss.{task}.teacher")[0] != expected


def test_a_whole_run_stays_close_to_that_of_the_computing_teacher(
    tiny_shards: Path, teacher: Path, cache: Path, tmp_path: Path
) -> None:
    student = (
        "model.backbone=test_convnext",
        "data.image_size=32",
    )  # no batch norm, which would blow up any difference
    settings = ("augment.views=3", f"teacher={{model: {teacher}, image_size: 24}}")
    computed = trained(tiny_shards, tmp_path / "a", *student, *settings)
    cached = trained(tiny_shards, tmp_path / "b", *student, f"teacher={{cache: {cache}, image_size: 24}}")
    plain = trained(tiny_shards, tmp_path / "c", *student, "augment.views=3")
    assert_close(cached.run, computed.run, tolerance=1e-3)
    with pytest.raises(AssertionError):
        assert_close(plain.run, computed.run, tolerance=1e-3)


def test_the_teacher_is_not_loaded_at_all(tiny_shards: Path, teacher: Path, cache: Path, tmp_path: Path) -> None:
    """Its description is enough to see that the cache is its own."""
    shutil.copytree(teacher, tmp_path / "teacher")
    (tmp_path / "teacher/model.safetensors").unlink()
    named = trained(tiny_shards, tmp_path / "a", f"teacher={{model: {tmp_path / 'teacher'}, cache: {cache}}}")
    nameless = trained(tiny_shards, tmp_path / "b", f"teacher={{cache: {cache}}}")
    assert_close(named.run, nameless.run, tolerance=0.0)
    assert "cached logits of 3 views from" in named.stdout


def test_fewer_views_than_cached_can_be_used_and_more_cannot(tiny_shards: Path, cache: Path, tmp_path: Path) -> None:
    two = trained(tiny_shards, tmp_path / "a", f"teacher={{cache: {cache}, views: 2}}")
    three = trained(tiny_shards, tmp_path / "b", f"teacher={{cache: {cache}}}")
    assert curve(two, "loss")[:6] == curve(three, "loss")[:6]  # epochs 0 and 1
    assert curve(two, "loss")[6] != curve(three, "loss")[6]
    four = train_small(tiny_shards, tmp_path / "c", *STRONG, f"teacher={{cache: {cache}, views: 4}}")
    assert four.exit_code == 65
    assert "4 views are asked for, 3 are cached" in four.stderr


def test_a_share_of_the_steps_sees_new_views_and_the_teacher_itself(
    tiny_shards: Path, teacher: Path, cache: Path, tmp_path: Path
) -> None:
    """The steps before the first new view are, to the bit, those of a run from the cache alone."""
    setting = ("seed=3", f"teacher={{model: {teacher}, cache: {cache}, fresh_share: 0.5}}")
    mixed = trained(tiny_shards, tmp_path / "a", *setting)
    assert "50% of the steps" in mixed.stdout
    cached = trained(tiny_shards, tmp_path / "b", "seed=3", f"teacher={{cache: {cache}}}")
    steps = [divmod(number, 3) for number in range(12)]
    fresh = [ViewSchedule(3, fresh_share=0.5, seed=3).at(epoch, step)[1] for epoch, step in steps]
    same = [one == other for one, other in zip(curve(mixed, "loss"), curve(cached, "loss"), strict=True)]
    assert same.index(False) == fresh.index(True) == 2
    again = trained(tiny_shards, tmp_path / "c", *setting)
    assert_close(mixed.run, again.run, tolerance=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("augment.policy=mild", "it was cached with another value of augment."),
        ("augment.seed=7", "it was cached with another value of augment.seed: 0, now 7"),
        ("data.image_size=32", "it was cached with another value of the teacher's image size: 24, now 32"),
        ("precision=bf16", "it was cached with another value of precision: fp32, now bf16"),
        ("teacher.model=OTHER", "was cached from another teacher: weights"),
        ("augment.views=2", "augment.views is 2, teacher.views 3"),
    ],
)
def test_a_cache_of_something_else_is_refused_with_the_reason(
    change: str, message: str, tiny_shards: Path, teacher: Path, cache: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other", seed=9)
    setting = f"teacher={{model: {teacher}, cache: {cache}, views: 3}}"
    outcome = train_small(tiny_shards, tmp_path, *STRONG, setting, change.replace("OTHER", str(other)))
    assert outcome.exit_code in (2, 65)
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_damaged_entry_stops_the_run_and_names_it(tiny_shards: Path, cache: Path, tmp_path: Path) -> None:
    broken = tmp_path / "logits"
    shutil.copytree(cache, broken)
    sidecar = min(broken.glob("*.logits"))
    data = bytearray(sidecar.read_bytes())
    data[5] ^= 1
    sidecar.write_bytes(data)
    outcome = train_small(tiny_shards, tmp_path, *STRONG, f"teacher={{cache: {broken}}}")
    assert outcome.exit_code == 65
    assert f"{sidecar}: the logits of sample 0, view 0, are damaged" in outcome.stderr


def test_a_truncated_cache_is_refused_at_the_start(tiny_shards: Path, cache: Path, tmp_path: Path) -> None:
    broken = tmp_path / "logits"
    shutil.copytree(cache, broken)
    sidecar = max(broken.glob("*.logits"))
    sidecar.write_bytes(sidecar.read_bytes()[:-1])
    outcome = train_small(tiny_shards, tmp_path, *STRONG, f"teacher={{cache: {broken}}}")
    assert outcome.exit_code == 65
    assert f"{sidecar}: has " in outcome.stderr
    assert "(truncated?); python -m train.cache_teacher completes the cache" in outcome.stderr


def test_a_cache_without_a_complete_view_is_refused(tiny_shards: Path, cache: Path, tmp_path: Path) -> None:
    begun = tmp_path / "logits"
    shutil.copytree(cache, begun)
    edit_json(begun / "manifest.json", views=0, non_finite=[])
    outcome = train_small(tiny_shards, tmp_path, *STRONG, f"teacher={{cache: {begun}}}")
    assert outcome.exit_code == 65
    assert f"{begun}: no view is complete; python -m train.cache_teacher goes on with it" in outcome.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_behind_http_teaches_the_same(workers: int, tiny_shards: Path, cache: Path, tmp_path: Path) -> None:
    """Its ranges are announced with those of the photos and come in few requests."""
    local = trained(tiny_shards, tmp_path / "a", f"teacher={{cache: {cache}}}")
    with serve(cache) as server:
        remote = trained(
            tiny_shards,
            tmp_path / "b",
            f"teacher={{cache: '{server.url}'}}",
            f"data.workers={workers}",
            f"data.cache.dir={tmp_path / 'ranges'}",
        )
        assert server.num_requests < 60  # 4 epochs of 33 samples, a request each, would be more
    assert_close(remote.run, local.run, tolerance=0.0)


def test_workers_bring_the_same_logits(tiny_shards: Path, cache: Path) -> None:
    from data.images.augment import POLICIES
    from data.images.transform import ImageTransform
    from data.loading.loader import Loader, TeacherData
    from data.sampling.sampler import TrainSampler

    index = load_index(tiny_shards / "train")
    order = TrainSampler(index.counts, seed=1, batch_size=10, lanes=8, window=3)
    pixels = ImageTransform(size=8, operations=POLICIES["strong"])
    batches = [
        list(
            Loader(
                index,
                order,
                pixels,
                workers=workers,
                view_schedule=ViewSchedule(3),
                teacher=TeacherData(cache=str(cache)),
            ).batches(stop_epoch=2)
        )
        for workers in (0, 3)
    ]
    for one, other in zip(*batches, strict=True):
        assert one.teacher is not None
        assert other.teacher is not None
        assert one.teacher.shape == (len(one), 5)
        assert torch.equal(one.teacher, other.teacher)


@pytest.mark.parametrize("kind", ["cached", "computed"])
def test_two_ranks_equal_one(
    kind: str, tiny_shards: Path, teacher: Path, cache: Path, tmp_path: Path, run_ranks: Callable
) -> None:
    """A student without batch norm; hints with a trained bridge where the teacher is computed."""
    hints = "[{kind: mse, student: backbone.stages.1, teacher: backbone.layer1, bridge: regressor}]"
    settings = {
        "cached": {"cache": str(cache), "image_size": 24},
        "computed": {"model": str(teacher), "hints": yaml.safe_load(hints)},
    }
    runs = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        config = small_config(tiny_shards, folder)
        content = {
            **yaml.safe_load(config.read_text()),
            "augment": {"policy": "strong", "views": 3},
            "data": {**yaml.safe_load(config.read_text())["data"], "image_size": 32},
            "model": {"backbone": "test_convnext", "head": {"kind": "multi-fc"}},
            "batch_size": 10,
            "optimizer": {"lr": OPTIONS["optimizer"]["lr"], "clip_norm": 5.0},
            "teacher": settings[kind],
        }
        config.write_text(yaml.safe_dump(content))
        if ranks == 1:
            assert main(["--config", str(config)]) == 0
        else:
            result = run_ranks(2, ["train/main.py", "--config", str(config), "micro_batch=3"])
            assert result.exit_code == 0, result.output
        runs.append(folder / "run")
    assert_close(runs[1], runs[0], tolerance=2e-5)
