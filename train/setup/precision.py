"""`precision: auto`: the number format that this machine computes with quickly.

config = choose_precision(config)
"""

import re
from pathlib import Path

import torch

from train.config.schema import Config

_CPU_INFO = Path("/proc/cpuinfo")
# AMX multiplies bf16 matrices. Instructions that only multiply bf16 vectors (avx512_bf16) were slower than fp32:
# EfficientNet-lite0 at 128 pixels took 0.49 s instead of 0.40 s for a step of 16 photos.
_FAST_BF16 = re.compile(r"\bamx_bf16\b")


def choose_precision(config: Config) -> Config:
    """The config with what `auto` stands for here. It is settled before ranks compare their configs and before a run
    folder keeps it: hosts that differ, and a run that goes on elsewhere, are told so."""
    if config.precision != "auto":
        return config
    return config.model_copy(update={"precision": fast_precision(on_gpu=_on_gpu(config))})


def fast_precision(*, on_gpu: bool) -> str:
    """bf16 or fp32."""
    if on_gpu:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    try:
        flags = _CPU_INFO.read_text()
    except OSError:  # another system than Linux
        return "fp32"
    return "bf16" if _FAST_BF16.search(flags) else "fp32"


def _on_gpu(config: Config) -> bool:
    return config.device != "cpu" and torch.cuda.is_available()
