"""The Horovod that is installed fits the torch beside it, and a wheel is built once, whole, or with a clear error."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from launch import horovod_build
from launch.horovod import patches as horovod_patches
from launch.horovod.compatibility import HorovodError, check_horovod_matches_torch
from tests.conftest import REPOSITORY, RankRun

STALLING_RANKS = """
import time, torch, horovod.torch as hvd
hvd.init()
if hvd.rank() == 0:
    hvd.allreduce(torch.ones(3), name="only_rank_0_calls_this")
else:
    time.sleep(60)
"""

SUMMING_RANKS = """
import torch, horovod.torch as hvd
hvd.init()
print(hvd.allreduce(torch.full((2,), hvd.rank() + 1.0), name="sum", op=hvd.Sum).tolist())
"""


def write_unpatched_source(folder: Path) -> None:
    for patch in horovod_patches.PATCHES:
        (folder / patch.file).parent.mkdir(parents=True, exist_ok=True)
        with (folder / patch.file).open("a") as file:
            file.write(f"before\n{patch.old}\nafter\n")


def test_three_ranks_sum_a_tensor(run_ranks: Callable[..., RankRun]) -> None:
    run = run_ranks(3, code=SUMMING_RANKS)
    assert run.exit_code == 0, run.output
    assert [text.strip() for text in run.stdout] == ["[6.0, 6.0]"] * 3


def test_a_collective_that_one_rank_never_calls_ends_the_job(run_ranks: Callable[..., RankRun]) -> None:
    limits = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "1", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "2"}
    run = run_ranks(2, code=STALLING_RANKS, env=limits, timeout=40)
    assert run.exit_code != 0
    assert "only_rank_0_calls_this" in run.stderr[0]
    assert "HorovodInternalError" in run.stderr[0]


def test_the_installed_horovod_fits_the_installed_torch() -> None:
    check_horovod_matches_torch(torch_version=torch.__version__)


def test_another_torch_is_refused_with_both_versions_and_the_fix() -> None:
    with pytest.raises(HorovodError, match=r"built for torch .*, but torch 9\.9\.9 is installed: run `make setup`"):
        check_horovod_matches_torch(torch_version="9.9.9")


def test_a_horovod_with_other_patches_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    horovod_patches.check_horovod_is_patched()
    monkeypatch.setattr(horovod_patches, "PATCHES", horovod_patches.PATCHES[:-1])
    with pytest.raises(HorovodError, match=r"was built with other patches than these \(\w{8}\): run `make setup`"):
        horovod_patches.check_horovod_is_patched()


def test_a_missing_horovod_is_told_in_words() -> None:
    code = (
        "from launch.horovod.compatibility import check_horovod_matches_torch as check; check(torch_version='2.14.1')"
    )
    bare = subprocess.run([sys.executable, "-S", "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "Horovod is not installed: run `make setup`" in bare.stderr


def test_verify_only_passes_here_and_says_what_it_found() -> None:
    command = [sys.executable, "-m", "launch.horovod_build", "--verify-only"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"fits torch {torch.__version__}" in result.stdout


def test_patches_change_every_file_and_gpu_builds_keep_the_cuda_test(tmp_path: Path) -> None:
    write_unpatched_source(tmp_path)
    horovod_patches.apply_patches(tmp_path, gpu=True)
    expected: dict[str, str] = {}
    for patch in horovod_patches.PATCHES:
        changed = patch.old if patch.cpu_only else patch.new
        expected[patch.file] = expected.get(patch.file, "") + f"before\n{changed}\nafter\n"
    assert {file: (tmp_path / file).read_text() for file in expected} == expected


def test_a_patch_that_no_longer_fits_names_the_file(tmp_path: Path) -> None:
    write_unpatched_source(tmp_path)
    (tmp_path / "CMakeLists.txt").write_text("another Horovod\n")
    with pytest.raises(HorovodError, match=r"CMakeLists\.txt: .*not found"):
        horovod_patches.apply_patches(tmp_path, gpu=False)


def test_the_cache_key_differs_by_torch_device_and_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> set[str]:
        builds = [("2.14.1+cu130", False), ("2.14.1+cu130", True), ("2.14.1+cpu", False), ("2.15.0+cu130", False)]
        locals_ = [horovod_build.local_version(torch_version=version, gpu=gpu) for version, gpu in builds]
        return {horovod_build.wheel_name(local=local) for local in locals_}

    before = names()
    monkeypatch.setattr(horovod_patches, "PATCHES", horovod_patches.PATCHES[:-1])
    assert len(before | names()) == 8


CALLER = """
import sys, time
from pathlib import Path
from launch.horovod_build import ensure_wheel
def build(folder):
    print("builds", flush=True)
    time.sleep(0.5)
    (folder / "built.whl").write_bytes(b"wheel")
    return folder / "built.whl"
ensure_wheel(Path(sys.argv[1]), name="horovod.whl", build=build)
"""


def test_three_callers_wanting_one_wheel_build_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CALLER, str(tmp_path)]
    callers = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [caller.communicate(timeout=20)[0] for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0, 0]
    assert "".join(outputs).count("builds") == 1
    assert (tmp_path / "horovod.whl").read_bytes() == b"wheel"


def test_a_failed_build_leaves_no_wheel_and_the_next_call_builds_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> Path:
        (folder / "half.whl").write_bytes(b"ha")
        raise HorovodError("compiler said no")

    def build(folder: Path) -> Path:
        (folder / "built.whl").write_bytes(b"wheel")
        return folder / "built.whl"

    with pytest.raises(HorovodError, match="compiler said no"):
        horovod_build.ensure_wheel(tmp_path, name="horovod.whl", build=fail)
    assert not list(tmp_path.rglob("*.whl"))
    assert horovod_build.ensure_wheel(tmp_path, name="horovod.whl", build=build).read_bytes() == b"wheel"


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "launch.horovod_build", "--check-tools"],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "cmake: install cmake" in result.stderr
    assert "g++: install g++ (Debian, Ubuntu)" in result.stderr


def test_make_refuses_an_old_python_in_words(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.18" && exit 0\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "--no-print-directory", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Python 3.9.18 will not do: Slimheads needs Python 3.11 or newer" in result.stderr
