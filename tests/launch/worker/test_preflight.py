"""The preflight: one line per thing that a run needs of its hosts, and exit 1 with the fix where one is missing."""

import copy
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from launch.coordinator.membership import Quorum
from launch.worker.job import _quorum
from launch.worker.options import parse_options
from launch.worker.preflight import CheckResult, Host, check_hosts
from tests.conftest import REPOSITORY, rank_environment
from tests.end_to_end.test_ranks import write_config
from tests.launch.worker.test_job import free_port
from train.setup.launch_needs import LaunchNeeds

METADATA: dict[str, Any] = {
    "versions": {"python": "3.11.7", "torch": "2.14.1", "horovod": "0.28.1", "numpy": "2.4", "timm": "1.0"},
    "horovod": "",
    "interfaces": {"eth0": "10.0.0.1"},
    "interface": "eth0",
    "folder": "/runs",
    "token": "0",
    "write_error": "",
    "disk_gb": 100.0,
    "memory_gb": 10.0,
    "shared_memory_gb": 0.06,
    "gpus": 0,
    "clock": 0.0,
}


def results_of(**second: Any) -> dict[str, tuple[bool, str]]:
    """The checks of two hosts of which the second differs: first word -> (ok, line)."""
    other = {**copy.deepcopy(METADATA), "token": "1", **second}
    hosts = [Host("a", 1, METADATA), Host("b", 1, other)]
    return {
        result.text.split(":")[0].split()[0]: (result.ok, result.text)
        for result in check_hosts(hosts, promised=2, read_probe=lambda index: str(index), loader_gb=1.0)
    }


def test_fit_hosts_pass_every_line() -> None:
    results = results_of()
    things = ["ranks", "versions", "Horovod", "network", "folder", "free", "memory", "/dev/shm", "GPUs", "clock"]
    assert list(results) == things
    assert [line for ok, line in results.values() if not ok] == []


@pytest.mark.parametrize(
    ("what", "differs", "words"),
    [
        ("versions", {"versions": {**METADATA["versions"], "torch": "2.13.0"}}, "b has torch 2.13.0; install one set"),
        ("Horovod", {"horovod": "built for torch 2.1: run `make setup`"}, "b: built for torch 2.1: run `make setup`"),
        (
            "network",
            {"interfaces": {"ib0": "10.0.0.2", "lo": "127.0.0.1"}},
            "--interface: b has no eth0 with an IPv4 address, but ib0, lo; name one that all hosts have",
        ),
        (
            "folder",
            {"write_error": "Read-only file system"},
            "b cannot write there (Read-only file system); put",
        ),
        ("folder", {"token": "x"}, "a does not see what b wrote: not the same folder; put run.dir"),
        ("free", {"disk_gb": 0.5}, "0.5 GB on b, at least 5 wanted; free some"),
        (
            "memory",
            {"memory_gb": 1.5},
            "1.5 GB free on b, the batches of its 1 ranks' loaders take 1.00 GB; take a smaller batch_size",
        ),
        ("GPUs", {"gpus": 8}, "a 0, b 8; a has 1 ranks: start one rank a GPU"),
        ("clock", {"clock": -7.3}, "b differs by -7.3 s from a; start a time service"),
    ],
)
def test_what_is_not_fit_is_named_with_its_host_and_the_fix(what: str, differs: dict, words: str) -> None:
    results = results_of(**differs)
    assert [name for name, (ok, _) in results.items() if not ok] == [what]
    assert words in results[what][1]


@pytest.mark.parametrize(
    ("gpus", "free", "ok", "words"),
    [
        (0, 0.06, True, "not used"),
        (2, 0.06, False, "0.1 GB on a, at least 1 wanted; mount a larger one"),
        (2, 1.5, True, "1.5 GB on a"),
    ],
)
def test_shared_memory_is_asked_only_of_hosts_with_several_gpus(gpus: int, free: float, ok: bool, words: str) -> None:
    host = Host("a", 2, {**METADATA, "gpus": gpus, "shared_memory_gb": free})
    results = check_hosts([host], promised=1, read_probe=lambda index: "0")
    (result,) = [result for result in results if result.text.startswith("/dev/shm")]
    assert (result.ok, words in result.text) == (ok, True)


def test_without_a_config_free_memory_is_reported() -> None:
    results = check_hosts([Host("a", 4, METADATA)], promised=1, read_probe=lambda index: "0")
    (result,) = [result for result in results if result.text.startswith("memory")]
    assert result == CheckResult(
        True, "memory: 10.0 GB free on a; name the training command after -- to see what its loaders need"
    )


def test_workers_of_one_node_share_its_memory() -> None:
    hosts = [Host("a", 3, METADATA), Host("a", 3, METADATA), Host("b", 5, METADATA)]
    results = check_hosts(hosts, promised=3, read_probe=lambda index: "0", loader_gb=1.0)
    (result,) = [result for result in results if result.text.startswith("memory")]
    assert not result.ok
    assert "10.0 GB free on a, the batches of its 6 ranks' loaders take 6.00 GB" in result.text


def test_workers_that_did_not_come_are_counted() -> None:
    (result, *_) = check_hosts([Host("a", 4, METADATA)], promised=2, read_probe=lambda index: "0")
    assert str(result) == (
        "FAILED ranks: 4 by 1 of 2 promised workers on 1 nodes; see the logs of the workers that did not come"
    )


def check(
    folder: Path, index: int, port: int, *options: str, python: Sequence[str] = (sys.executable,)
) -> subprocess.Popen[str]:
    variables = {"RANK": str(index), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [*python, "-m", "launch.worker", "--check", "--folder", str(folder), *options],
        env=rank_environment({**variables, "SLIMHEADS_SECRET": "of this preflight alone"}),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_workers_check_each_other_and_leave_nothing(tmp_path: Path) -> None:
    port = free_port()
    workers = [check(tmp_path, index, port, "--ranks", "2") for index in (1, 0)]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    lines = outputs[1].splitlines()
    assert len(lines) == 10
    assert lines[0] == "ok     ranks: 4 by 2 of 2 promised workers on 1 nodes"
    assert all(line.startswith("ok     ") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_does_not_come_and_a_folder_that_cannot_be_made_fail_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker = check(tmp_path / "file/folder", 0, free_port(), "--wait", "1")
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert "FAILED ranks: 1 by 1 of 2 promised workers" in output
    assert "cannot write there (Not a directory)" in output
    assert "worker: exit 1: not fit to train yet, see above" in output


def check_alone(folder: Path, *options: str, python: Sequence[str] = (sys.executable,)) -> tuple[int, str]:
    """(exit code, output) of a worker that the other of two does not join."""
    worker = check(folder, 0, free_port(), "--wait", "1", *options, python=python)
    output, _ = worker.communicate(timeout=60)
    return worker.returncode, output


def test_an_interface_that_this_host_lacks_fails_the_check_with_those_that_it_has(tmp_path: Path) -> None:
    code, output = check_alone(tmp_path, "--interface", "eth99")
    assert code == 1
    line = next(line for line in output.splitlines() if "network" in line)
    assert line.startswith("FAILED network: --interface: ")
    assert " has no eth99 with an IPv4 address, but " in line
    assert line.endswith("; name one that all hosts have")
    assert "lo" in line


def test_a_host_without_horovod_fails_the_check_with_the_fix(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith("horovod"):
            (packages / path.name).symlink_to(path)
    # Without the environment's own packages, and with all of them but Horovod.
    path = f"PYTHONPATH={packages}:{REPOSITORY}"
    python = ["env", path, sys.executable, "-S"]
    code, output = check_alone(tmp_path / "run", python=python)
    assert code == 1
    assert "FAILED Horovod build: " in output
    assert "Horovod is not installed: run `make setup`" in output
    start = subprocess.run(
        [*python, "-m", "launch.worker", "--", "true"],
        env=rank_environment({"PYTHONPATH": ""}),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert start.returncode == 2
    assert start.stderr.startswith("worker: exit 2: Horovod is not installed: run `make setup`")


@pytest.mark.parametrize(("words", "bounds"), [(["--check"], None), ([], (1, 2))])
def test_the_check_of_an_elastic_job_waits_for_all_that_were_promised(
    words: list[str], bounds: tuple[int, int] | None
) -> None:
    training = LaunchNeeds(Path("run"), rank_bounds=(1, 2), batch_size=8, sample_bytes=0)
    assert _quorum(parse_options([*words, "--", "true"]), 2, training) == Quorum(2, bounds)


def test_the_check_of_a_training_command_reports_what_its_loaders_take(tmp_path: Path) -> None:
    config = write_config(tmp_path, tmp_path)
    _, output = check_alone(tmp_path, "--ranks", "2", "--", "python", "train/main.py", "--config", str(config))
    assert " GB free on " in output
    assert "the batches of its 2 ranks' loaders take 0.00 GB" in output


def test_a_run_folder_that_cannot_be_written_fails_the_check_and_the_start(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        reason = "a read-only mount needs root and util-linux"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path / "run"
    folder.mkdir()
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", mount, str(folder), sys.executable]
    code, output = check_alone(folder, python=inside)
    assert code == 1
    assert f"FAILED folder {folder}: " in output
    assert "cannot write there (Read-only file system); put run.dir where all hosts can write" in output
    start = subprocess.run(
        [*inside, "-m", "launch.worker", "--folder", str(folder), "--", "true"],
        env=rank_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert start.returncode == 74
    assert f"Read-only file system: '{folder}/logs'" in start.stderr
