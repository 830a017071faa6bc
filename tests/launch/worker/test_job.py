"""Workers start ranks together, pass signals and exit codes on, leave nothing behind; the ranks are small commands."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY, end_process_tree, rank_environment

SECRET = "shared by the workers of one test"
SHOW = "import json, os; print('ENV' + json.dumps({k: v for k, v in os.environ.items() if k.startswith('HOROVOD_')}))"
RANK = "import os; rank = int(os.environ['HOROVOD_RANK']); "
WAIT = "import time; time.sleep(100)"

Worker = subprocess.Popen[str]
Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("code of a rank", "--ranks", "2", index=0, count=2, port=29400)`: a worker, ended with the test."""
    started: list[Worker] = []

    def worker(
        code: str, *options: str, index: int = 0, count: int = 1, port: int = 0, env: dict[str, str] | None = None
    ) -> Worker:
        own = {"RANK": str(index), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "launch.worker", "--folder", str(tmp_path), *options]
        started.append(
            subprocess.Popen(
                [*command, "--", sys.executable, "-c", code],
                env=rank_environment({**(own if count > 1 else {}), "SLIMHEADS_SECRET": SECRET, **(env or {})}),
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield worker
    for process in started:
        if process.poll() is None:
            end_process_tree(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def result(worker: Worker, timeout: float = 30) -> tuple[int, str, str]:
    stdout, stderr = worker.communicate(timeout=timeout)
    return worker.returncode, stdout, stderr


def log_of(folder: Path, rank: int) -> str:
    return (folder / f"logs/rank-{rank}.log").read_text()


def environments(folder: Path, size: int) -> list[dict[str, str]]:
    return [json.loads(log_of(folder, rank).split("ENV")[1]) for rank in range(size)]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def takes_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it by now."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_two_workers_with_two_ranks_each_number_their_ranks_for_horovod(start: Start, tmp_path: Path) -> None:
    port = free_port()
    workers = [start(SHOW, "--ranks", "2", index=index, count=2, port=port) for index in (1, 0)]
    for worker in workers:
        assert result(worker)[0] == 0
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "HOSTNAME", "GLOO_IFACE")
    found = [[variables[f"HOROVOD_{name}"] for name in names] for variables in environments(tmp_path, 4)]
    # One host: four local ranks, whatever worker started them.
    assert found == [[str(rank), "4", str(rank), "4", "0", "1", "node0", "lo"] for rank in range(4)]


def test_tasks_on_one_node_meet_there_whatever_address_its_name_has(start: Start, tmp_path: Path) -> None:
    """As SLURM starts two tasks on a node that knows its own name, as Debian's do, as 127.0.1.1."""
    variables = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "127.0.1.1",
        "SLURMD_NODENAME": "n1",
        "SLIMHEADS_PORT": str(free_port()),
    }
    workers = [start(SHOW, "--wait", "10", env={**variables, "SLURM_PROCID": str(index)}) for index in (0, 1)]
    results = [result(worker) for worker in workers]
    assert [code for code, _, _ in results] == [0, 0], results
    assert [variables["HOROVOD_LOCAL_SIZE"] for variables in environments(tmp_path, 2)] == ["2", "2"]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("0", 0),
        ("1", 1),
        ("2", 2),
        ("65", 65),
        ("75", 75),
        ("76", 76),
        ("77", 77),
        ("os.kill(os.getpid(), 9)", 77),
        ("os.kill(os.getpid(), 11)", 77),
    ],
)
def test_the_exit_code_of_a_rank_is_that_of_every_worker(end: str, code: int, start: Start) -> None:
    port = free_port()
    ranks = RANK + f"import sys; sys.exit(({end}) if rank == 1 else {code})"
    workers = [start(ranks, index=index, count=2, port=port) for index in (0, 1)]
    results = [result(worker) for worker in workers]
    assert [code for code, _, _ in results] == [code, code]
    if code not in (0, 75):
        assert f"worker: exit {code}: rank " in results[0][2]


def test_a_rank_that_failed_counts_before_those_that_it_took_along(start: Start) -> None:
    """Rank 0 notices at once that rank 2 is gone and ends first; the reason is rank 2's all the same."""
    ranks = RANK + "import sys, time; time.sleep(0 if rank == 0 else 0.5); sys.exit([77, 77, 65][rank])"
    code, _, stderr = result(start(ranks, "--ranks", "3"))
    assert code == 65
    assert "worker: exit 65: rank 2 on " in stderr
    assert "the data cannot be used" in stderr


def test_each_rank_has_a_log_rank_0_the_console_and_errors_carry_their_rank(start: Start, tmp_path: Path) -> None:
    ranks = RANK + "import sys; print('out', rank); print('err', rank, file=sys.stderr); sys.exit(rank)"
    code, stdout, stderr = result(start(ranks, "--ranks", "2"))
    assert code == 1
    assert "out 0\n" in stdout
    assert "out 1" not in stdout
    assert "err 0\n" in stderr
    assert "[rank 1] err 1\n" in stderr
    for rank in (0, 1):
        assert log_of(tmp_path, rank).splitlines()[0].startswith(f"=== start 1: rank {rank} of 2 on ")
        assert {f"out {rank}", f"err {rank}"} <= set(log_of(tmp_path, rank).splitlines())


def test_no_secret_reaches_a_command_line_a_log_or_a_rank_that_has_no_need_of_it(start: Start, tmp_path: Path) -> None:
    key = "a-key-that-nobody-may-read"
    ranks = (
        "import os; print('key', os.environ['WANDB_API_KEY'], 'SLIMHEADS_SECRET' in os.environ)\n"
        "for pid in (os.getpid(), os.getppid()): print(open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' '))"
    )
    code, stdout, _ = result(start(ranks, env={"WANDB_API_KEY": key}))
    assert code == 0
    assert "key *** False\n" in stdout
    for text in (stdout, log_of(tmp_path, 0)):
        assert key not in text
        assert SECRET not in text


@pytest.mark.parametrize(("number", "forwarded"), [("SIGTERM", "15"), ("SIGUSR1", "10"), ("SIGINT", "15")])
def test_a_signal_reaches_the_ranks_and_their_75_comes_back(number: str, forwarded: str, start: Start) -> None:
    ranks = (
        "import signal, sys, time\n"
        "def stop(number, frame): print('got', number, flush=True); sys.exit(75)\n"
        "for number in (10, 15): signal.signal(number, stop)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    worker = start(ranks)
    assert worker.stdout is not None
    wait_until(lambda: "ready" in worker.stdout.readline())
    worker.send_signal(getattr(signal, number))
    code, stdout, stderr = result(worker)
    assert (code, f"got {forwarded}" in stdout) == (75, True)
    assert "exit 75: stopped by a signal, saved" in stderr


def test_a_signal_before_a_rank_can_take_it_leaves_the_last_checkpoint(start: Start) -> None:
    worker = start("print('up', flush=True); " + WAIT)
    assert worker.stdout is not None
    wait_until(lambda: "up" in worker.stdout.readline())
    worker.terminate()
    code, _, stderr = result(worker)
    assert code == 75
    assert "the last checkpoint stands" in stderr


@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_while_waiting_for_the_others_ends_the_wait(index: int, start: Start) -> None:
    worker = start(SHOW, index=index, count=2, port=free_port())
    wait_until(lambda: takes_sigterm(worker.pid))
    worker.terminate()
    assert result(worker, timeout=10)[0] == 75


def test_a_log_folder_that_cannot_be_made_is_an_error(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, stderr = result(start(SHOW, "--logs", str(tmp_path / "file/logs")))
    assert code == 74
    assert "Not a directory" in stderr
    assert str(tmp_path / "file/logs") in stderr


@pytest.mark.parametrize("who", ["worker", "rank"])
def test_nothing_outlives_a_kill(who: str, start: Start, tmp_path: Path) -> None:
    """A rank dies with its worker, and what a rank started dies with the rank."""
    ranks = (
        RANK
        + "import pathlib, subprocess, time\n"
        + "child = subprocess.Popen(['sleep', '100'])\n"
        + f"pathlib.Path({str(tmp_path)!r}, f'pids-{{rank}}').write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        + WAIT
    )
    worker = start(ranks, "--ranks", "2")
    files = [tmp_path / f"pids-{rank}" for rank in (0, 1)]
    wait_until(lambda: all(file.exists() and " " in file.read_text() for file in files))
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    try:
        if who == "worker":
            worker.kill()
            wait_until(lambda: all(is_gone(pid) for pid in pids[::2]), seconds=5)
        else:
            os.kill(pids[2], signal.SIGKILL)
            code, _, stderr = result(worker, timeout=15)
            assert code == 77
            assert "rank 1 on " in stderr
            assert "was killed by SIGKILL" in stderr
            wait_until(lambda: all(is_gone(pid) for pid in pids), seconds=5)
    finally:
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_rank_that_hangs_on_is_ended_with_its_stack_in_the_log(start: Start, tmp_path: Path) -> None:
    ranks = RANK + "import sys, time\ndef the_place(): time.sleep(100)\nsys.exit(76) if rank == 1 else the_place()"
    begin = time.monotonic()
    code, _, _ = result(start(ranks, "--ranks", "2"))
    assert code == 76
    assert time.monotonic() - begin < 10
    assert "the_place" in log_of(tmp_path, 0)


FAILS_TWICE = """
import pathlib, sys
counter = pathlib.Path({folder!r}, "count")
number = int(counter.read_text()) + 1 if counter.exists() else 1
counter.write_text(str(number))
{each}
sys.exit(0 if number == 3 else 77)
"""


def test_a_failure_is_followed_by_a_new_start(start: Start, tmp_path: Path) -> None:
    code, stdout, _ = result(start(FAILS_TWICE.format(folder=str(tmp_path), each=""), "--restarts", "5"))
    assert code == 0
    assert "worker: restart 2 of 5\nworker: start 3: 1 rank on 1 node" in stdout
    assert log_of(tmp_path, 0).count("=== start") == 3


def test_restarts_end_when_they_are_used_up(start: Start, tmp_path: Path) -> None:
    code, _, stderr = result(start(FAILS_TWICE.format(folder=str(tmp_path), each=""), "--restarts", "1"))
    assert code == 77
    assert "1 of 1 restarts are used" in stderr


def test_a_crash_loop_ends_with_the_reason_and_progress_is_no_loop(start: Start, tmp_path: Path) -> None:
    code, _, stderr = result(start("import sys; sys.exit(77)", "--restarts", "50"))
    assert code == 77
    assert "3 starts in a row brought no new checkpoint (there is none): a crash loop" in stderr
    (tmp_path / "checkpoints").mkdir()
    save = f"pathlib.Path({str(tmp_path)!r}, f'checkpoints/step-{{number:010d}}.safetensors').touch()"
    ranks = FAILS_TWICE.format(folder=str(tmp_path), each=save).replace("== 3", "== 6")
    assert result(start(ranks, "--restarts", "50"))[0] == 0


@pytest.mark.parametrize("code", [2, 65, 74, 78])
def test_what_would_end_the_same_is_not_tried_again(code: int, start: Start) -> None:
    ended, stdout, _ = result(start(f"import sys; sys.exit({code})", "--restarts", "5"))
    assert ended == code
    assert "restart" not in stdout


def test_a_lost_worker_that_comes_back_is_taken_into_a_new_start(start: Start, tmp_path: Path) -> None:
    """As when Kubernetes replaces a pod; the other worker's rank, which would wait for ever, starts anew."""
    port = free_port()
    ranks = (
        RANK + f"import pathlib, sys, time; time.sleep(0 if pathlib.Path({str(tmp_path)!r}, 'go').exists() else 100)"
    )
    first = start(ranks, "--restarts", "2", index=0, count=2, port=port)
    lost = start(ranks, "--restarts", "2", index=1, count=2, port=port)
    wait_until(lambda: (tmp_path / "logs/rank-1.log").exists())
    lost.kill()
    (tmp_path / "go").touch()
    back = start(ranks, "--restarts", "2", index=1, count=2, port=port)
    code, stdout, stderr = result(first)
    assert (code, result(back)[0]) == (0, 0), stderr
    assert "start 2: 2 ranks" in stdout


def test_when_worker_0_is_lost_the_others_wait_for_the_new_one(start: Start, tmp_path: Path) -> None:
    port = free_port()
    ranks = f"import pathlib, time; time.sleep(0 if pathlib.Path({str(tmp_path)!r}, 'go').exists() else 100)"
    first = start(ranks, "--restarts", "2", index=0, count=2, port=port)
    other = start(ranks, "--restarts", "2", index=1, count=2, port=port)
    wait_until(lambda: (tmp_path / "logs/rank-1.log").exists())
    first.kill()
    (tmp_path / "go").touch()
    back = start(ranks, "--restarts", "2", index=0, count=2, port=port)
    assert (result(back)[0], result(other)[0]) == (0, 0)


def test_without_restarts_a_lost_worker_0_ends_the_others_with_77(start: Start, tmp_path: Path) -> None:
    port = free_port()
    workers = [start(WAIT, index=index, count=2, port=port) for index in (0, 1)]
    wait_until(lambda: (tmp_path / "logs/rank-1.log").exists())
    workers[0].kill()
    code, _, stderr = result(workers[1], timeout=15)
    assert code == 77
    assert "worker 0 at 127.0.0.1 was lost" in stderr


def test_a_worker_without_a_rendezvous_names_the_address_that_it_tried(start: Start) -> None:
    port = free_port()
    code, _, stderr = result(start(SHOW, "--wait", "1", index=1, count=2, port=port))
    assert code == 77
    assert f"no rendezvous at 127.0.0.1:{port} within 1 s: Connection refused" in stderr


def test_worker_0_names_who_did_not_come(start: Start) -> None:
    code, _, stderr = result(start(SHOW, "--wait", "1", index=0, count=4, port=free_port()))
    assert code == 77
    assert "after 1 s 1 of 4 workers are here; missing: 1, 2, 3" in stderr


def test_a_worker_with_another_secret_is_not_let_in(start: Start) -> None:
    port = free_port()
    first = start(SHOW, "--wait", "4", index=0, count=2, port=port)
    second = start(SHOW, "--wait", "2", index=1, count=2, port=port, env={"SLIMHEADS_SECRET": "b" * 32})
    code, _, stderr = result(second)
    assert code == 77
    assert "does not know this job's secret" in stderr
    assert "missing: 1" in result(first)[2]


def test_workers_that_expect_different_numbers_are_refused(start: Start) -> None:
    port = free_port()
    workers = [start(SHOW, index=0, count=2, port=port), start(SHOW, index=1, count=3, port=port)]
    results = [result(worker) for worker in workers]
    assert [code for code, _, _ in results] == [2, 2]
    assert "worker 1 on " in results[0][2]
    assert "was told of 3 workers, worker 0 of 2" in results[0][2]


def test_a_refused_newcomer_leaves_the_ranks_that_run_alone(start: Start, tmp_path: Path) -> None:
    port = free_port()
    ranks = (
        f"import pathlib, time; print('up', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path)!r}, 'go').exists(): time.sleep(0.05)"
    )
    workers = [start(ranks, index=index, count=2, port=port) for index in (0, 1)]
    wait_until(lambda: (tmp_path / "logs/rank-1.log").exists() and "up" in log_of(tmp_path, 1))
    code, _, stderr = result(start(ranks, index=1, count=3, port=port))
    assert code == 2
    assert "was told of 3 workers, worker 0 of 2" in stderr
    (tmp_path / "go").touch()
    results = [result(worker) for worker in workers]
    assert [code for code, _, _ in results] == [0, 0], results


def test_a_port_in_use_is_named(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, stderr = result(start(SHOW, index=0, count=2, port=port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in stderr


def test_an_interface_that_does_not_exist_is_refused_with_those_that_do(start: Start) -> None:
    code, _, stderr = result(start(SHOW, "--interface", "eth99"))
    assert code == 2
    assert "--interface eth99: this host has no such interface with an IPv4 address, but " in stderr
    assert "lo" in stderr


@pytest.mark.parametrize("secret", ["", "short"])
def test_several_workers_want_a_secret_worth_the_name(secret: str, start: Start) -> None:
    code, _, stderr = result(start(SHOW, index=0, count=2, port=free_port(), env={"SLIMHEADS_SECRET": secret}))
    assert code == 2
    assert "several workers need a secret of 16 characters or more" in stderr


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.worker", "--folder", str(tmp_path), "--", "no-such-program"]
    done = subprocess.run(command, env=rank_environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "error: no-such-program: No such file or directory" in done.stderr


def test_a_mistake_in_the_config_is_reported_once_before_any_rank_starts(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("run: {dir: somewhere}\ndata: {train: shards}\nmodel: {backbone: cifar_resnet20}\nbach_size: 3\n")
    command = [sys.executable, "-m", "launch.worker", "--ranks", "2", "--", "python", "train/main.py"]
    done = subprocess.run(
        [*command, "--config", str(config)],
        env=rank_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert done.stderr.count("unknown key 'bach_size'; did you mean 'batch_size'?") == 1
    assert "start 1" not in done.stdout


def test_a_training_command_without_the_name_of_its_config_is_refused() -> None:
    command = [sys.executable, "-m", "launch.worker", "--", "python", "train/main.py", "--config"]
    done = subprocess.run(command, env=rank_environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr == "worker: exit 2: the command after --: argument --config: expected one argument\n"
