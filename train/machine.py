"""What a machine gives one rank: its device, its decoding processes, its cache folder.

device = choose_device("auto", comm, deterministic=True)
"""

import os
from pathlib import Path

import torch

from train.allocator import keep_freed_memory
from train.comm import Comm
from train.config_file import ConfigError


def choose_device(kind: str, comm: Comm, *, deterministic: bool) -> torch.device:
    """One GPU a rank where there are GPUs (kind "auto" or "cuda"), else the CPU with this rank's share of the cores."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, cores // comm.local_size))
    if deterministic:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else every new tensor is filled first, in case something reads it before it is written: nothing here does.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if kind == "cpu" or not torch.cuda.is_available():
        if kind == "cuda":
            raise ConfigError("device: cuda, but torch finds no GPU on this machine")
        keep_freed_memory()
        return torch.device("cpu")
    if comm.local_rank >= torch.cuda.device_count():
        raise ConfigError(f"{comm.local_size} ranks on this host but {torch.cuda.device_count()} GPUs; start one a GPU")
    device = torch.device("cuda", comm.local_rank)
    torch.cuda.set_device(device)
    return device


def num_decoders(comm: Comm) -> int:
    """Decoding processes of a rank: what is left of its cores, between 1 and 8."""
    return min(8, max(1, len(os.sched_getaffinity(0)) // comm.local_size - 1))


def shard_cache_folder() -> Path:
    """Where ranges of remote shards are kept unless the user says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimheads" / "shards"
