"""What users meet: each mistake ends with its exit code and one message that names the place and the fix."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from data.correct import main as correct
from data.index import load_index
from data.shards.external_tars import index_tars
from tests.conftest import REPOSITORY, TINY_TASKS, end_process_tree, jpeg_bytes, rank_environment
from tests.edited_json import edit_json
from tests.end_to_end.test_resume import finish, process_of_rank, wait_for_step
from tests.photos import write_tar
from tests.small_run import Outcome, small_config, train_small
from train.checkpoint.store import CheckpointStore
from train.distributed.preemption import StopSignal


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(tiny_shards, tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture(scope="module")
def undisturbed(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    outcome = train_small(tiny_shards, tmp_path_factory.mktemp("undisturbed"))
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


def weights_of(outcome: Outcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.run / "last/model.safetensors")


def assert_same_weights(ours: Outcome, theirs: Outcome) -> None:
    expected = weights_of(theirs)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(ours).items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.shape.weight=1", "tasks.shape: {train} has no such task; it has colour, tone"),
        ("tasks={}", "tasks: at least one task is needed"),
        ("tasks.colour.class_weights=[1, 2]", "tasks.colour.class_weights: 2 weights for 3 classes"),
        (
            "tasks.tone.ordered=true",
            "tasks.tone.ordered: the classes are not all numbers, so their order must be given; write ordered: "
            "[dark, bright] with the names from the lowest to the highest",
        ),
        (
            "tasks.colour.ordered=[red, green]",
            "tasks.colour.ordered: the list lacks 'blue'; write ordered: [red, green, blue] with the names",
        ),
        ("model.backbone=mobilnetv2_050", "mobilenetv2_050"),
        ("model.head.kind=multi-fcc", "unknown head.kind 'multi-fcc'"),
        ("model.head.width=8", "head 'multi-fc' has no option 'width'"),
        ("model.max_params=1000", "model.max_params is 1,000; take a smaller backbone or head"),
        ("model.freeze=[backbone, heads]", "nothing is left to train: backbone, heads"),
        ("model.freeze=[bakbone]", "the model has no part 'bakbone'; did you mean 'backbone'?"),
        ("model.lr_multipliers={head: 0.1}", "the model has no part 'head'; did you mean 'heads'?"),
        (
            "checkpoint.monitor=tone.mean_absolute_error",
            "checkpoint.monitor: 'tone.mean_absolute_error' is not among mean_top1, colour.top1",
        ),
        ("checkpoint.monitor=tone.top5", "checkpoint.monitor: 'tone.top5' is not among mean_top1, colour.top1"),
        ("device=cuda", "device: cuda, but torch finds no GPU"),
        ("bach_size=3", "command line, 'bach_size=3': unknown key 'bach_size'; did you mean 'batch_size'?"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_with_the_key(
    override: str, message: str, tiny_shards: Path, tmp_path: Path
) -> None:
    if override == "device=cuda" and torch.cuda.is_available():
        message = "sample"  # there is a GPU: the run trains
    outcome = train_small(tiny_shards, tmp_path, override)
    if message != "sample":
        assert outcome.exit_code == 2
    assert message.format(train=tiny_shards / "train") in outcome.stderr + outcome.stdout
    assert "Traceback" not in outcome.stderr


def test_patience_without_validation_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path, "data.val=", "schedule.patience=3")
    assert outcome.exit_code == 2
    assert "schedule.patience: needs data.val" in outcome.stderr


def test_a_model_to_fine_tune_that_is_not_there(tiny_shards: Path, tmp_path: Path) -> None:
    outcome = train_small(tiny_shards, tmp_path, "model.backbone=", f"model.artifact={tmp_path}/gone")
    assert outcome.exit_code == 2
    assert f"{tmp_path}/gone" in outcome.stderr


def test_no_index_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    outcome = train_small(tmp_path, tmp_path / "a", "data.val=")
    assert outcome.exit_code == 65
    assert f"{tmp_path}/train/index.json" in outcome.stderr
    assert "make one with data.build or data.index" in outcome.stderr


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            {**TINY_TASKS, "colour": ("red", "green", "violet")},
            "task 'colour': {val} has classes that {train} does not know: 'violet' (4 samples)",
        ),
        ({"colour": TINY_TASKS["colour"]}, "task 'tone' is in {train} but not in {val}"),
    ],
)
def test_splits_with_different_classes(tasks: dict, message: str, shards: Path, tmp_path: Path) -> None:
    val = shards / "val"
    path = val / "index.json"
    edit_json(path, tasks={name: list(classes) for name, classes in tasks.items()})
    outcome = train_small(shards, tmp_path / "a")
    assert outcome.exit_code == 65
    assert message.format(train=shards / "train", val=val) in outcome.stderr


def break_image(shards: Path, shard: int, sample: int) -> str:
    """Flip a bit of an image where it lies; returns its shard and key."""
    index = load_index(shards / "train")
    rows = index.load_shard(shard)
    with Path(index.shard_url(shard)).open("r+b") as file:
        file.seek(int(rows.offset[sample]) + 100)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    return f"{shard}/{rows.key(sample)}"


def test_below_the_limit_a_run_finishes_and_all_other_samples_are_unchanged(
    shards: Path, tmp_path: Path, undisturbed: Outcome
) -> None:
    broken = [break_image(shards, 0, 2), break_image(shards, 2, 8)]
    outcome = train_small(shards, tmp_path / "a")
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.trained() == [(step, key) for step, key in undisturbed.trained() if key not in broken]
    records = outcome.lines("bad_samples.jsonl")
    assert {(line["split"], line["shard"], line["key"]) for line in records} == {
        ("train", "train-000.tar", "sample0002"),
        ("train", "train-002.tar", "sample0032"),
    }
    assert len(records) == 2  # once each, over two epochs
    assert all("crc32c" in line["reason"] for line in records)
    traced = [key for line in outcome.lines("trace-rank0.jsonl") for key in line["bad"]]
    assert sorted(traced) == sorted(broken * 2)
    said = [line for line in outcome.stdout.splitlines() if "cannot be used" in line]
    listed = f"listed in {outcome.run / 'bad_samples.jsonl'}"
    assert said == [f"epoch 1/2 samples that cannot be used: 2 of train new, 2 in all, {listed}"]
    assert "cannot be used" not in undisturbed.stdout


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 600)


def rewrite(path: Path) -> None:
    write_tar(path, [(f"new{number}.jpg", jpeg_bytes(colour=0, tone=0, seed=number)) for number in range(20)])


@pytest.mark.parametrize(
    ("damage", "reason"), [(remove, "cannot be opened (missing?)"), (truncate, "truncated"), (rewrite, "rewritten?")]
)
def test_a_lost_shard_stops_the_run_with_the_list(
    damage: Callable[[Path], None], reason: str, shards: Path, tmp_path: Path
) -> None:
    damage(shards / "train/train-001.tar")
    outcome = train_small(shards, tmp_path / "a")
    assert outcome.exit_code == 65
    assert "more than the 10 that data.max_bad_share allows" in outcome.stderr
    assert str(outcome.run / "bad_samples.jsonl") in outcome.stderr
    records = outcome.lines("bad_samples.jsonl")
    assert len(records) > 10
    for record in records:
        assert f"train/train-001.tar {record['key']}: " in outcome.stderr
        assert reason in record["reason"]


def test_the_limit_can_be_raised(shards: Path, tmp_path: Path) -> None:
    remove(shards / "train/train-001.tar")
    outcome = train_small(shards, tmp_path / "a", "data.max_bad_share=0.5")
    assert outcome.exit_code == 0, outcome.stderr
    assert len(outcome.lines("bad_samples.jsonl")) == 12


def test_bad_validation_samples_are_told_too(shards: Path, tmp_path: Path) -> None:
    remove(shards / "val/val-000.tar")
    outcome = train_small(shards, tmp_path / "a")
    assert outcome.exit_code == 65
    assert "val/val-000.tar sample1000: shard val-000.tar cannot be opened" in outcome.stderr


def write_shards(folder: Path, images: dict[str, bytes], labels: dict[str, dict[str, str]]) -> None:
    """One indexed shard in folder/train, and the same in folder/val."""
    members = []
    for key, image in images.items():
        members += [(f"{key}.jpg", image), (f"{key}.json", json.dumps(labels[key]).encode())]
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        index_tars([write_tar(folder / split / "a.tar", members)], tasks=TINY_TASKS, cls_task="class")


def test_undecodable_and_enormous_images_are_named_and_left_out(tmp_path: Path) -> None:
    images = {f"good{number}": jpeg_bytes(colour=number % 3, tone=0, seed=number) for number in range(12)}
    images["text"] = b"this is not an image" * 20
    images["cut"] = jpeg_bytes(colour=0, tone=1, seed=1)[:700]
    images["bomb"] = jpeg_bytes(colour=1, tone=1, seed=2, size=200)
    write_shards(tmp_path, images, {key: {"colour": "red", "tone": "dark"} for key in images})
    outcome = train_small(tmp_path, tmp_path / "a", "batch_size=5", "data.max_pixels=30000")
    assert outcome.exit_code == 0, outcome.stderr
    reasons = {line["key"]: line["reason"] for line in outcome.lines("bad_samples.jsonl") if line["split"] == "train"}
    assert reasons.keys() == {"text", "cut", "bomb"}
    assert "200x200 is larger than the limit of 30,000 pixels" in reasons["bomb"]
    assert len(outcome.trained()) == 2 * 12
    assert "epoch 1/2 samples that cannot be used: 3 of train, 3 of val new, 6 in all, listed in" in outcome.stdout


@pytest.mark.parametrize("num_labelled", [0, 1])
def test_a_task_without_labels_trains_the_others(num_labelled: int, tmp_path: Path) -> None:
    """In most batches, or in the whole set: its measures are null and no weight becomes NaN."""
    images = {f"photo{number:02}": jpeg_bytes(colour=number % 3, tone=0, seed=number) for number in range(15)}
    labels = {key: {"colour": TINY_TASKS["colour"][number % 3]} for number, key in enumerate(images)}
    for key in list(images)[:num_labelled]:
        labels[key]["tone"] = "dark"
    write_shards(tmp_path, images, labels)
    outcome = train_small(
        tmp_path, tmp_path / "a", "batch_size=4", "tasks={colour: {}, tone: {class_weights: balanced}}"
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert all(torch.isfinite(t).all() for t in weights_of(outcome).values() if t.is_floating_point())
    metrics = json.loads((outcome.run / "result.json").read_text(), parse_constant=pytest.fail)["metrics"]
    assert metrics["tone.count"] == num_labelled
    assert (metrics["tone.top1"] is None) == (num_labelled == 0)
    assert metrics["mean_top1"] is not None
    steps = [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]
    assert sum(line["loss.tone"] is not None for line in steps) == 2 * num_labelled
    assert all(line["loss.colour"] > 0 for line in steps)


def test_no_label_of_any_task_at_all_still_ends_well(tmp_path: Path) -> None:
    images = {f"photo{number}": jpeg_bytes(colour=0, tone=0, seed=number) for number in range(6)}
    write_shards(tmp_path, images, {key: {} for key in images})
    outcome = train_small(tmp_path, tmp_path / "a", "batch_size=3")
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads((outcome.run / "result.json").read_text())["metrics"]["mean_top1"] is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.lanes=1", "data.lanes is 1, but there are 2 ranks; every rank needs a lane: set it to 2 or more"),
        ("batch_size=1", "batch_size is 1 over all ranks, but there are 2 ranks; a rank would be idle: raise it"),
    ],
)
def test_more_ranks_than_lanes_or_samples_of_a_batch(
    override: str, message: str, tiny_shards: Path, tmp_path: Path, run_ranks: Callable
) -> None:
    result = run_ranks(2, ["train/main.py", "--config", str(small_config(tiny_shards, tmp_path)), override])
    assert result.exit_code != 0
    assert message in result.output
    assert "exit 2: the config or an argument is wrong" in result.output


def test_ranks_that_horovod_was_not_told_of(tiny_shards: Path, tmp_path: Path) -> None:
    """As `srun python train/main.py` would start them: four runs in one folder, were it not refused."""
    result = subprocess.run(
        [sys.executable, "train/main.py", "--config", str(small_config(tiny_shards, tmp_path))],
        env=rank_environment({"SLURM_STEP_NUM_TASKS": "4"}),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 2
    assert "SLURM_STEP_NUM_TASKS=4 promises 4 ranks" in result.stderr
    assert "horovodrun -np 4 python train/main.py" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask the next run to stop after about so many steps, as SIGTERM does."""

    def ask(step: int) -> None:
        calls = iter(range(10_000))
        monkeypatch.setattr(StopSignal, "requested", lambda self: next(calls) >= step)

    return ask


def test_a_full_disk_while_saving_keeps_the_older_checkpoint_and_the_run_continues(
    tiny_shards: Path, tmp_path: Path, undisturbed: Outcome, stop_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(1)
    first = train_small(tiny_shards, tmp_path)
    assert first.exit_code == 75
    monkeypatch.undo()
    before = {path.name: path.read_bytes() for path in (first.run / "checkpoints").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        second = train_small(tiny_shards, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert second.exit_code == 74
    assert "File too large" in second.stderr
    assert "free the disk and repeat the command, it continues" in second.stderr
    assert {path.name: path.read_bytes() for path in (first.run / "checkpoints").iterdir()} == before
    left_over = first.run / "checkpoints" / "step-0000000099.part"  # of a save that was killed
    left_over.write_bytes(b"x")
    third = train_small(tiny_shards, tmp_path)
    assert third.exit_code == 0, third.stderr
    assert "continues after step" in third.stdout
    assert not left_over.exists()
    assert_same_weights(third, undisturbed)
    assert third.trained() == undisturbed.trained()


def test_a_run_folder_in_use_is_refused_until_its_owner_is_dead(tiny_shards: Path, tmp_path: Path) -> None:
    """Also at once after a kill, while the killed run's loader process still lives."""
    overrides = ["schedule.epochs=2000", "data.workers=1"]
    owner = subprocess.Popen(
        [sys.executable, "train/main.py", "--config", str(small_config(tiny_shards, tmp_path)), *overrides],
        env=rank_environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_step(tmp_path / "run", 0, 3, owner)
        refused = train_small(tiny_shards, tmp_path, *overrides)
        assert refused.exit_code == 2
        assert f"run.dir {tmp_path}/run: another run is using it; wait for it or choose another" in refused.stderr
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        continued = train_small(tiny_shards, tmp_path, "schedule.epochs=1", "run.allow_changes=true")
        assert continued.exit_code == 0, continued.stderr
    finally:
        if owner.poll() is None:
            end_process_tree(owner)
        owner.communicate()


def forget_pixel_version(run: Path) -> None:
    """The checkpoints as a Slimheads wrote them that knew of no version."""
    store = CheckpointStore(run / "checkpoints")
    for step in store.steps():
        tensors, values = store.load(step)
        assert values.pop("pixel_version") == 2
        store.save(tensors, values, step=step)


def test_a_run_whose_labels_were_corrected_is_refused_unless_told(
    shards: Path, tmp_path: Path, stop_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(2)
    assert train_small(shards, tmp_path).exit_code == 75
    monkeypatch.undo()
    (tmp_path / "fixes.csv").write_text("image,task,label\nsample0003,colour,blue\n")
    assert correct([str(shards / "train"), str(tmp_path / "fixes.csv")]) == 0
    refused = train_small(shards, tmp_path)
    assert refused.exit_code == 2
    assert "not the ones that the run began with (photos, labels or classes differ)" in refused.stderr
    assert "run.allow_changes=true" in refused.stderr
    told = train_small(shards, tmp_path, "run.allow_changes=true")
    assert told.exit_code == 0, told.stderr


def test_a_config_that_changed_is_named_and_refused_unless_told(
    tiny_shards: Path, tmp_path: Path, stop_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(2)
    assert train_small(tiny_shards, tmp_path).exit_code == 75
    monkeypatch.undo()
    changes = ["optimizer.lr=0.005", "augment.flip=0.25", "tracking.log_every=2"]
    refused = train_small(tiny_shards, tmp_path, *changes)
    assert refused.exit_code == 2
    assert "optimizer.lr: 0.02 -> 0.005" in refused.stderr
    assert "augment.flip: None -> 0.25" in refused.stderr
    assert "log_every" not in refused.stderr  # changes nothing that is learned
    assert "run.allow_changes=true" in refused.stderr
    forget_pixel_version(tmp_path / "run")
    refused = train_small(tiny_shards, tmp_path)
    assert refused.exit_code == 2
    assert "photos of pixel version 1, this Slimheads crops and resizes them by version 2" in refused.stderr
    assert "run.allow_changes=true" in refused.stderr
    told = train_small(tiny_shards, tmp_path, *changes, "run.allow_changes=true")
    assert told.exit_code == 0, told.stderr
    rates = {line["step"]: line["lr"] for line in told.lines("metrics.jsonl") if line["kind"] == "train"}
    assert rates[0] == pytest.approx(0.02)
    assert rates[3] == pytest.approx(0.0025)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["optimizer.kind=adamw"], "the checkpoint was made with SGD, optimizer.kind is now AdamW"),
        (["model.backbone=cifar_resnet20"], "the checkpoint is of another network than the config's"),
    ],
)
def test_a_change_that_no_checkpoint_survives_is_refused_even_when_told(
    changes: list[str], message: str, tiny_shards: Path, tmp_path: Path, stop_at: Callable
) -> None:
    stop_at(2)
    assert train_small(tiny_shards, tmp_path).exit_code == 75
    refused = train_small(tiny_shards, tmp_path, *changes, "run.allow_changes=true")
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert "take another run.dir" in refused.stderr


def test_what_a_run_gains_by_a_change_starts_afresh(
    tiny_shards: Path, tmp_path: Path, stop_at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moving average, a loss scale, thawed parts and other parameter groups: none of them is in the checkpoint."""
    stop_at(2)
    assert train_small(tiny_shards, tmp_path, "model.freeze=[backbone]").exit_code == 75
    monkeypatch.undo()
    changes = ["ema.decay=0.9", "precision=fp16", "model.lr_multipliers={backbone: 0.5}", "run.allow_changes=true"]
    told = train_small(tiny_shards, tmp_path, *changes)
    assert told.exit_code == 0, told.stderr


def test_resume_never_refuses_a_folder_that_holds_a_run(tiny_shards: Path, tmp_path: Path, stop_at: Callable) -> None:
    stop_at(2)
    assert train_small(tiny_shards, tmp_path).exit_code == 75
    refused = train_small(tiny_shards, tmp_path, "run.resume=never")
    assert refused.exit_code == 2
    assert "holds a run already and run.resume is never" in refused.stderr


def test_dry_run_writes_nothing(tiny_shards: Path, tmp_path: Path) -> None:
    small_config(tiny_shards, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outcome = train_small(tiny_shards, tmp_path, "--dry-run")
    assert outcome.exit_code == 0, outcome.stderr
    assert "dry run: " in outcome.stdout
    assert "loader: no processes of its own" in outcome.stdout
    outcome = train_small(tiny_shards, tmp_path, "--dry-run", "data.workers=2")
    size = 11 * 24 * 24 * 3 / 1e6
    assert f"loader: 2 processes a rank and 5 batches of {size:.1f} MB that they share with it" in outcome.stdout
    assert "3 steps an epoch" in outcome.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_foreign_packages_of_our_names_do_not_shadow_ours(tiny_shards: Path, tmp_path: Path) -> None:
    """Packages called `models` and `data` in the working directory and on PYTHONPATH, as in site-packages."""
    for folder in ("here", "installed"):
        for name in ("models", "data", "train", "prune"):
            package = tmp_path / folder / name
            package.mkdir(parents=True)
            (package / "__init__.py").write_text("raise ImportError('a foreign package was imported')")
    config = small_config(tiny_shards, tmp_path)
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "train/main.py"), "--config", str(config), "schedule.epochs=1"],
        env=rank_environment({"PYTHONPATH": str(tmp_path / "installed")}),
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/last/model.json").exists()


def start_three(config: Path, *overrides: str) -> subprocess.Popen[str]:
    launcher = ["horovodrun", "-np", "3", "--gloo", "--network-interface", "lo"]
    return subprocess.Popen(
        [*launcher, sys.executable, "train/main.py", "--config", str(config), "schedule.epochs=2000", *overrides],
        env=rank_environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_dead_rank_ends_the_job_within_seconds(tiny_shards: Path, tmp_path: Path) -> None:
    process = start_three(small_config(tiny_shards, tmp_path))
    wait_for_step(tmp_path / "run", 1, 3, process)
    process_of_rank(process, 1).send_signal(signal.SIGKILL)
    begin = time.monotonic()
    output = finish(process, timeout=30)
    assert time.monotonic() - begin < 15
    assert process.returncode != 0
    for rank in (0, 2):
        assert f"rank {rank}: exit 77: another rank or a loader process was lost" in output


def test_a_killed_loader_process_ends_the_run_in_words(tiny_shards: Path, tmp_path: Path) -> None:
    config = small_config(tiny_shards, tmp_path)
    command = [sys.executable, "train/main.py", "--config", str(config), "schedule.epochs=2000", "data.workers=1"]
    process = subprocess.Popen(
        command, env=rank_environment(), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_step(tmp_path / "run", 0, 3, process)
    loader = min(psutil.Process(process.pid).children(), key=psutil.Process.create_time)  # the other one validates
    loader.kill()
    output = finish(process, timeout=60)
    assert process.returncode == 77, output
    assert "error: loader process 0 was killed by SIGKILL, often for lack of memory, at epoch" in output
    assert output.rstrip().splitlines()[-1].startswith("exit 77: another rank or a loader process was lost")
    assert "Traceback" not in output


def test_a_stuck_rank_is_ended_by_the_others_watchdogs(tiny_shards: Path, tmp_path: Path) -> None:
    process = start_three(small_config(tiny_shards, tmp_path), "watchdog_seconds=5")
    wait_for_step(tmp_path / "run", 1, 3, process)
    process_of_rank(process, 1).send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    output = finish(process, timeout=60)
    assert time.monotonic() - begin < 30
    assert process.returncode != 0
    assert re.search(r"no progress for \d+ s in: epoch ", output), output
    assert "exit 76: a step did not finish in time" in output
