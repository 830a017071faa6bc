"""Build, cache and install the Horovod wheel that fits the installed torch.

python -m launch.horovod_build [--gpu] [--verify-only] [--check-tools]

The last Horovod release (0.28.1) does not compile against torch >= 2.1 as published. This command fetches its source
package, patches it (`launch.horovod.patches`), builds the wheel once and keeps it in
`${XDG_CACHE_HOME:-~/.cache}/slimheads/wheels`. The wheel's version carries the torch build and the patch level
(`0.28.1+torch2.14.1.cu130.cpu.p1a2b3c4d`), so the file name is the whole cache key and `pip list` shows what is
installed. Only the standard library is imported at the top: `make` runs `--check-tools` with the system's Python,
before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.cache_folder import cache_folder
from launch.exit_codes import ExitCode
from launch.file_lock import FileLock
from launch.horovod.compatibility import HorovodError, check_horovod_matches_torch, installed_version
from launch.horovod.patches import COMMON_FLAGS, GPU_FLAGS, apply_patches, patch_level

HOROVOD_VERSION = "0.28.1"
SOURCE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
LOG_TAIL_LINES = 40
BYTES_PER_COMPILER = 2_500_000_000  # torch's headers cost g++ 2.3 GB at the peak


def local_version(*, torch_version: str, gpu: bool) -> str:
    """The part after `+` in the wheel's version, e.g. `torch2.14.1.cu130.cpu.p1a2b3c4d`."""
    return f"torch{torch_version.replace('+', '.')}.{'gpu' if gpu else 'cpu'}.p{patch_level()}"


def wheel_name(*, local: str) -> str:
    """File name of the wheel for this Python and platform."""
    python_tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform_tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"horovod-{HOROVOD_VERSION}+{local}-{python_tag}-{python_tag}-{platform_tag}.whl"


def missing_tools() -> list[str]:
    """What the build needs and this machine lacks, each with the system package that brings it."""
    wanted = {
        "cmake": (shutil.which("cmake"), "cmake"),
        "make": (shutil.which("make"), "make"),
        "g++": (shutil.which("g++"), "g++ (Debian, Ubuntu) or gcc-c++ (Fedora)"),
        "Python.h": (
            Path(sysconfig.get_paths()["include"], "Python.h").exists(),
            "python3-dev (Debian, Ubuntu) or python3-devel (Fedora)",
        ),
    }
    return [f"{tool}: install {package}" for tool, (found, package) in wanted.items() if not found]


def require_tools() -> None:
    """Raise HorovodError that names every missing tool."""
    missing = missing_tools()
    if missing:
        raise HorovodError("building Horovod needs tools that are not here:\n  " + "\n  ".join(missing))


def download_source(folder: Path) -> Path:
    """Fetch the source package with pip, check its hash, unpack it; returns the source folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", "horovod", "--dest", str(folder), f"horovod=={HOROVOD_VERSION}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise HorovodError(f"pip could not download horovod=={HOROVOD_VERSION}:\n{result.stderr.strip()}")
    archive = folder / f"horovod-{HOROVOD_VERSION}.tar.gz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        raise HorovodError(f"{archive.name} has sha256 {found}, not {SOURCE_SHA256}: another file than the one tested")
    shutil.unpack_archive(archive, folder)
    return folder / f"horovod-{HOROVOD_VERSION}"


def nccl_home(folder: Path) -> Path:
    """A folder shaped as the linker wants NCCL: pip's package ships `libnccl.so.2` alone, without `libnccl.so`."""
    package = next(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/nccl"), None)
    if package is None:
        raise HorovodError("--gpu needs NCCL from pip (nvidia-nccl), which this torch did not bring: CPU-only torch?")
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(package / "include")
    (folder / "lib" / "libnccl.so").symlink_to(package / "lib" / "libnccl.so.2")
    return folder


def parallel_jobs() -> int:
    """Compilers to run at once: one per core, as far as memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_COMPILER))


def build_wheel(destination: Path, *, local: str, gpu: bool, log: Path) -> Path:
    """Compile the wheel into the folder `destination`; all output goes to `log`. Returns the wheel's path."""
    require_tools()
    with tempfile.TemporaryDirectory(prefix="slimheads-horovod-") as scratch:
        source = download_source(Path(scratch))
        apply_patches(source, gpu=gpu)
        # Inside `make`, MAKEFLAGS carries a job server that this build cannot reach: set our own.
        flags = COMMON_FLAGS | {"HOROVOD_LOCAL_VERSION": local, "MAKEFLAGS": f"-j{parallel_jobs()}"}
        if gpu:
            flags |= GPU_FLAGS | {"HOROVOD_NCCL_HOME": str(nccl_home(Path(scratch, "nccl")))}
        command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-build-isolation", "--no-deps"]
        command += ["--wheel-dir", str(destination), str(source)]
        with log.open("w") as output:
            process = subprocess.Popen(command, env=os.environ | flags, stdout=output, stderr=subprocess.STDOUT)
            watch_build(process, log=log)
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise HorovodError(f"{tail}\nbuilding Horovod failed; the whole log is {log}")
    return next(destination.glob("horovod-*.whl"))


def watch_build(process: subprocess.Popen[bytes], *, log: Path) -> None:
    """Wait for the build, showing cmake's percentage on a terminal and a line every half minute elsewhere."""
    started, next_line = time.monotonic(), 30.0
    while process.poll() is None:
        time.sleep(1)
        seconds = time.monotonic() - started
        percents = re.findall(r"\[ *(\d+)%\]", log.read_text(errors="replace"))
        line = f"building Horovod {HOROVOD_VERSION}: {percents[-1] if percents else 0} % after {seconds:.0f} s"
        if sys.stdout.isatty():
            print(f"\r{line}", end="", flush=True)
        elif seconds >= next_line:
            print(line, flush=True)
            next_line += 30
    if sys.stdout.isatty():
        print()


def ensure_wheel(cache: Path, *, name: str, build: Callable[[Path], Path]) -> Path:
    """The cached wheel, built first when absent.

    `build` gets an empty folder and returns the wheel that it put there. One process at a time builds a wheel, and the
    wheel appears in the cache whole or not at all.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wheel = cache / name
    with FileLock(cache / f"{name}.lock") as lock:
        if not lock.acquire():
            print("waiting for another process that is building the same wheel", flush=True)
            lock.acquire(wait=True)
        if not wheel.exists():
            with tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as folder:
                built = build(Path(folder))
                with built.open("rb") as file:
                    os.fsync(file.fileno())
                built.replace(wheel)
    return wheel


@dataclass(frozen=True)
class BuildOptions:
    """gpu: with NCCL. verify_only, check_tools: look at what is here and build nothing."""

    gpu: bool
    verify_only: bool
    check_tools: bool


def parse_options(arguments: Sequence[str] | None) -> BuildOptions:
    parser = argparse.ArgumentParser(
        prog="python -m launch.horovod_build",
        description="Build the Horovod wheel for the installed torch, cache it and install it.",
    )
    parser.add_argument("--gpu", action="store_true", help="build with NCCL (needs nvcc; this path is untested)")
    parser.add_argument("--verify-only", action="store_true", help="only check that the installed Horovod fits")
    parser.add_argument("--check-tools", action="store_true", help="only check that compiler, cmake and headers exist")
    return BuildOptions(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 when Horovod fits (after building where needed), 2 with the reason when it cannot."""
    options = parse_options(arguments)
    try:
        if options.check_tools:
            require_tools()
            return 0
        try:
            import torch  # only here: --check-tools runs before torch is installed
        except ImportError:
            raise HorovodError("torch is not installed here; run `make setup`, or install torch first") from None
        local = local_version(torch_version=torch.__version__, gpu=options.gpu)
        if not options.verify_only and installed_version() != f"{HOROVOD_VERSION}+{local}":
            install(local=local, gpu=options.gpu)
        check_horovod_matches_torch(torch_version=torch.__version__)
    except HorovodError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    print(f"Horovod {installed_version()} fits torch {torch.__version__}")
    return 0


def install(*, local: str, gpu: bool) -> None:
    """Put the wheel with this local version into the running environment, building it when the cache lacks it."""
    cache, name = cache_folder("wheels"), wheel_name(local=local)
    log = cache / f"{name}.log"
    wheel = ensure_wheel(cache, name=name, build=lambda folder: build_wheel(folder, local=local, gpu=gpu, log=log))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    if subprocess.run([*command, str(wheel)], check=False).returncode:
        raise HorovodError(f"pip could not install {wheel}: delete it and run this again")
    print(f"installed {wheel}")


if __name__ == "__main__":
    sys.exit(main())
