"""Stages are done once, continue, and are done anew only when what they are made from changed."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from launch.exit_codes import ExitCode
from tests.conftest import rank_environment
from train.errors import ConfigError
from train.pipeline.workshop import StageFailed, StoppedEarly, Workshop


@pytest.fixture
def done():
    return []


def make(tmp_path, said=None, until=None):
    return Workshop(tmp_path, until=until, tell=(said if said is not None else []).append)


def write(tmp_path, done, text="x"):
    def work():
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / "file").write_text(text)
        done.append(text)
        return {"answer": 42, "files": Workshop(tmp_path).digest("a/file")}

    return work


def test_a_stage_is_done_once(tmp_path, done):
    first = make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))
    again = make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))
    assert first == again
    assert first["answer"] == 42
    assert len(done) == 1


def test_other_inputs_do_it_anew_and_keep_the_one_of_before(tmp_path, done):
    make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done, "old"))
    said = []
    make(tmp_path, said).stage("a", what="", inputs={"n": 2}, work=write(tmp_path, done, "new"))
    assert done == ["old", "new"]
    assert (tmp_path / "previous" / "a" / "file").read_text() == "old"
    assert any("what it is made from has changed" in line for line in said)


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_files_that_are_not_as_they_were_left_are_made_again(damage, tmp_path, done):
    make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))
    if damage == "removed":
        (tmp_path / "a" / "file").unlink()
    else:
        (tmp_path / "a" / "file").write_text("y")
    make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))
    assert len(done) == 2


def test_a_stage_that_was_begun_goes_on_in_its_folder(tmp_path):
    def stopped():
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path).stage("a", what="", inputs={"n": 1}, work=stopped)
    make(tmp_path).stage("a", what="", inputs={"n": 1}, work=lambda: {"there": (tmp_path / "a" / "half").exists()})
    assert not (tmp_path / "previous").exists()


def test_a_folder_that_the_pipeline_did_not_make_is_left_alone(tmp_path, done):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(ConfigError, match="holds something that this pipeline did not make"):
        make(tmp_path).stage("a", what="", inputs={}, work=write(tmp_path, done))
    assert (tmp_path / "a" / "mine").exists()
    assert done == []


def test_a_damaged_record_is_named(tmp_path, done):
    make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))
    record = tmp_path / ".pipeline" / "a.json"
    record.write_bytes(record.read_bytes().replace(b"42", b"43"))
    with pytest.raises(ConfigError, match=r"a\.json: is damaged .*delete it, and its stage is done again"):
        make(tmp_path).stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))


def test_it_stops_after_the_stage_that_is_named(tmp_path, done):
    with pytest.raises(StoppedEarly):
        make(tmp_path, until="a").stage("a", what="", inputs={"n": 1}, work=write(tmp_path, done))
    assert len(done) == 1


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path):
    code = "print('all is lost'); raise SystemExit(65)"
    with pytest.raises(
        StageFailed, match=r"(?s)a ended with 65; its whole log is .*logs/a\.log.*all is lost"
    ) as failed:
        make(tmp_path).run("a", [sys.executable, "-c", code])
    assert failed.value.code == 65


PARENT = """
import sys
from pathlib import Path
from train.pipeline.workshop import StageFailed, Workshop
child = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); Path = 1; "
child += "open(sys.argv[1], 'w').write('up'); time.sleep(60)"
try:
    Workshop(Path(sys.argv[1])).run("a", [sys.executable, "-c", child, sys.argv[1] + "/up"])
except StageFailed as failed:
    print(failed)
    sys.exit(failed.code)
"""


def start(tmp_path) -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)],
        env=rank_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return parent


def test_a_signal_is_passed_on_and_the_command_may_save(tmp_path):
    parent = start(tmp_path)
    parent.send_signal(signal.SIGTERM)
    out, _ = parent.communicate(timeout=30)
    assert parent.returncode == ExitCode.PREEMPTED
    assert "stopped by a signal; the same command continues" in out


def test_a_command_does_not_outlive_a_pipeline_that_is_killed(tmp_path):
    parent = start(tmp_path)
    children = [
        int(line)
        for line in subprocess.run(
            ["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
    ]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert children
