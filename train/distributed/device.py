"""What a machine gives one rank: its device, its decoding processes, its cache folder.

device = choose_device("auto", comm, deterministic=True)
"""

import ctypes
import os

import torch

from train.distributed.comm import Comm
from train.errors import ConfigError


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


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Freed blocks stay with the process instead of going back to the kernel.

    Every step frees its gradients and activations and soon asks for the same sizes again. By default glibc returns
    them in between (large blocks each time, since they are maps of their own), and the kernel clears the pages anew:
    about a third of a step of MobileNetV2 at 224 pixels in fp32. C libraries without mallopt are left alone.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
