"""What this machine is and what is installed on it: the CPU's name and the versions of packages.

processor(); package_versions(["torch", "numpy"])
"""

import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path


def package_versions(packages: Iterable[str], *, missing: str | None = None) -> dict[str, str]:
    """Of Python and of these distributions, in their order. missing: said of those that are not installed; with None
    they are left out."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if missing is not None:
                versions[package] = missing
    return versions


def processor() -> str:
    """The CPU's name."""
    return _cpuinfo("model name") or platform.machine()


def processor_flags() -> str:
    """The names of its instruction sets, as the kernel lists them; empty where it lists none."""
    return _cpuinfo("flags")


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")  # other systems say less
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")
