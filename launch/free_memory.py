"""How much memory a process can still get: what the machine has, within what its container or job allows.

free_memory()  # bytes
"""

from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that can be had without swapping; the tightest of the machine and the memory cgroups around us."""
    return min([int(psutil.virtual_memory().available), *_left_in_groups(_own_group(), _GROUPS)])


def _own_group() -> str:
    """Path of this process's cgroup below the mount; version 2 has one line, "0::PATH"."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return "/"
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def _left_in_groups(group: str, mount: Path) -> list[int]:
    """What each group from ours up to the root allows beyond what it holds. Pages of files count as free where nobody
    used them lately: the kernel drops them first."""
    left = []
    inside = mount / group.lstrip("/")
    for folder in [inside, *inside.parents]:
        if folder == mount.parent:
            break
        try:
            limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # the root group has no limit; in a container the path may not be visible
            continue
        if limit != "max":
            left.append(max(0, int(limit) - used + int(statistics.get("inactive_file", 0))))
    return left
