"""A real two-node SLURM cluster: jobs train, stop on a signal, go back to the queue, end as if nothing had happened."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm_cluster import SlurmCluster, missing_programs
from tests.small_run import small_config

STEPS = 90


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    reason = "" if os.geteuid() == 0 else "two slurmd on one host need root"
    if missing := missing_programs():
        reason = f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def submit(cluster: SlurmCluster, shards: Path, folder: Path, *options: str) -> str:
    """A training job on both nodes that writes folder/run and folder/job.log."""
    config = small_config(shards, folder)
    return cluster.submit(
        *("launch/slurm/train.sbatch", "--config", str(config), f"schedule.epochs={STEPS // 3}", "watchdog_seconds=60"),
        options=[*options, f"--output={folder}/job.log"],
    )


def wait_for_step(folder: Path, step: int, cluster: SlurmCluster, seconds: float = 60) -> None:
    trace = folder / "run/trace-rank1.jsonl"
    deadline = time.monotonic() + seconds
    while not (trace.exists() and f'"step": {step},' in trace.read_text()):
        log = folder / "job.log"
        assert time.monotonic() < deadline, (log.read_text() if log.exists() else "") + cluster.logs()
        time.sleep(0.02)


def weights_and_samples(folder: Path) -> tuple[str, list[tuple[int, str]]]:
    weights = hashlib.sha256((folder / "run/last/model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for trace in folder.glob("run/trace-*") for line in trace.read_text().splitlines()]
    return weights, sorted((line["step"], key) for line in lines for key in line["keys"])


@pytest.fixture(scope="module")
def undisturbed(
    cluster: SlurmCluster, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[tuple[int, str]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    job = submit(cluster, tiny_shards, folder)
    cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")
    log = (folder / "job.log").read_text()
    assert "start 1: 2 ranks on 2 nodes" in log
    assert "model saved in" in log
    return weights_and_samples(folder)


def test_a_job_trains_on_two_nodes_each_sample_once(undisturbed: tuple[str, list[tuple[int, str]]]) -> None:
    samples = undisturbed[1]
    assert len(samples) == len(set(samples)) == STEPS // 3 * 33


@pytest.mark.parametrize("number", ["USR1", "TERM"])
def test_a_signalled_job_saves_goes_back_to_the_queue_and_ends_with_the_same_bits(
    number: str,
    cluster: SlurmCluster,
    tiny_shards: Path,
    tmp_path: Path,
    undisturbed: tuple[str, list[tuple[int, str]]],
) -> None:
    """USR1 is what the script's `--signal` sends before the time limit; TERM is what SLURM itself sends."""
    job = submit(cluster, tiny_shards, tmp_path)
    wait_for_step(tmp_path, 5, cluster)
    cluster.run("scancel", f"--signal={number}", job)
    fields = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")
    log = (tmp_path / "job.log").read_text()
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1"), log
    assert f"exit 75: job {job} goes back to the queue" in log
    assert "continues after step" in log
    assert weights_and_samples(tmp_path) == undisturbed


def test_a_preempted_job_saves_makes_room_and_ends_with_the_same_bits(
    cluster: SlurmCluster, tiny_shards: Path, tmp_path: Path, undisturbed: tuple[str, list[tuple[int, str]]]
) -> None:
    job = submit(cluster, tiny_shards, tmp_path)
    wait_for_step(tmp_path, 5, cluster)
    (tmp_path / "urgent.sh").write_text("#!/bin/sh\nsleep 1\n")
    urgent = cluster.submit(
        str(tmp_path / "urgent.sh"), options=["--partition=urgent", "--nodes=2", "--output=/dev/null"]
    )
    cluster.wait_for(urgent, "COMPLETED")
    assert not (tmp_path / "run/result.json").exists()
    fields = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")
    log = (tmp_path / "job.log").read_text()
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1"), log
    assert "stopped by a signal, saved" in log
    assert "continues after step" in log
    assert weights_and_samples(tmp_path) == undisturbed


def test_a_job_whose_node_died_starts_again_when_it_is_back(
    cluster: SlurmCluster, tiny_shards: Path, tmp_path: Path, undisturbed: tuple[str, list[tuple[int, str]]]
) -> None:
    job = submit(cluster, tiny_shards, tmp_path)
    wait_for_step(tmp_path, 8, cluster)
    cluster.kill_node("n2")
    cluster.wait_for(job, "PENDING", seconds=40)
    assert not (tmp_path / "run/result.json").exists()
    cluster.start_node("n2")
    fields = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")
    log = (tmp_path / "job.log").read_text()
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1"), log
    assert "was lost with its worker" in log
    assert weights_and_samples(tmp_path) == undisturbed


def test_two_tasks_on_one_node_train_together(cluster: SlurmCluster, tiny_shards: Path, tmp_path: Path) -> None:
    job = submit(cluster, tiny_shards, tmp_path, "--nodes=1", "--ntasks-per-node=2", "--overcommit")
    fields = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")
    log = (tmp_path / "job.log").read_text()
    assert fields["JobState"] == "COMPLETED", log
    assert "start 1: 2 ranks on 1 node, via 127.0.0.1" in log


def test_the_check_in_the_manual_finds_two_nodes_fit(cluster: SlurmCluster, tmp_path: Path) -> None:
    """With the folder given, since what is looked at otherwise is the repository."""
    output = cluster.run(
        *("srun", "--nodes=2", "--ntasks-per-node=1", "python", "-m", "launch.worker", "--check"),
        *("--folder", str(tmp_path)),
        env={"SLIMHEADS_SECRET": "of this preflight alone"},
    )
    assert "ok     ranks: 2 by 2 of 2 promised workers on 2 nodes" in output
    assert "ok     network: n1 " in output
    assert f"ok     folder {tmp_path}: all can write there and see each other's files" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_the_time_limit_sends_a_job_back_to_the_queue_with_all_that_it_did(
    cluster: SlurmCluster, tiny_shards: Path, tmp_path: Path
) -> None:
    """SLURM counts in minutes and may signal up to a minute early, so this takes some."""
    config = small_config(tiny_shards, tmp_path)
    job = cluster.submit(
        *("launch/slurm/train.sbatch", "--config", str(config), "schedule.epochs=200000"),
        options=["--time=2", "--signal=USR1@30", f"--output={tmp_path}/job.log"],
    )
    deadline = time.monotonic() + 240
    while "continues after step" not in (tmp_path / "job.log").read_text() if (tmp_path / "job.log").exists() else True:
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.5)
    cluster.run("scancel", job)
    assert f"exit 75: job {job} goes back to the queue" in (tmp_path / "job.log").read_text()


def test_a_sweep_trains_each_line_in_a_folder_of_its_own(
    cluster: SlurmCluster, tiny_shards: Path, tmp_path: Path
) -> None:
    config = small_config(tiny_shards, tmp_path)
    (tmp_path / "settings").write_text("optimizer.lr=0.5\noptimizer.lr=0.25 seed=7\n")
    job = cluster.submit(
        *("launch/slurm/sweep.sbatch", str(tmp_path / "settings"), "--config", str(config), "schedule.epochs=1"),
        f"run.dir={tmp_path}/runs",
        options=["--array=1-3", f"--output={tmp_path}/job-%a.log"],
    )
    states = [cluster.wait_for(f"{job}_{number}", "COMPLETED", "FAILED")["JobState"] for number in (1, 2, 3)]
    logs = [(tmp_path / f"job-{number}.log").read_text() for number in (1, 2, 3)]
    assert states == ["COMPLETED", "COMPLETED", "FAILED"], logs
    assert "lr: 0.5" in (tmp_path / "runs/1/config.yaml").read_text()
    second = (tmp_path / "runs/2/config.yaml").read_text()
    assert "lr: 0.25" in second
    assert "seed: 7" in second
    assert "settings has no line 3; fit --array to its lines" in logs[2]
