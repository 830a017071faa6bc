"""One process, data in memory: our update against a bare PyTorch loop with the same model, precision and optimizer.

The bare loop is given what helps it: channels_last, the fused SGD, gradients set to None, our fast normalising. Against
torch's default SGD (not fused) there is a figure for the record. One thread, CPU time of the process.
"""

from functools import partial
from pathlib import Path

import torch

from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.training import bare_optimizer, bare_steps, new_student, our_steps, random_batch
from train.distributed.comm import SingleProcess
from train.distributed.device import keep_freed_memory

_SIZE, _BATCH = 96, 32


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Changes this process's number of threads: for a process of its own."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as train.main does; the bare loop has the benefit, too
    rounds = 3 if quick else 60
    return [*_against_bare("fp32", "", rounds), *_against_bare("bf16", "_bf16", rounds)]


def _against_bare(precision: str, suffix: str, rounds: int) -> list[Figure]:
    batch = random_batch(_BATCH, size=_SIZE)
    fused, default = new_student(), new_student()
    ways = [
        our_steps(new_student(), batch, SingleProcess(), precision=precision),
        bare_steps(fused, batch, bare_optimizer(fused), precision=precision),
        bare_steps(default, batch, bare_optimizer(default, fused=None), precision=precision),
    ]
    for way in ways:
        way(2)  # warm-up
    ours, bare, plain = timed_in_turn([partial(way, 1) for way in ways], rounds=rounds).T
    ratio, interval = median_ratio(ours, bare)
    plain_ratio, plain_interval = median_ratio(ours, plain)
    note = f"{precision}, {_SIZE} px, batch {_BATCH}, {rounds} pairs"
    return [
        Figure(f"step_vs_bare{suffix}", ratio, target=1.03, interval=interval, note=note),
        Figure(f"step_vs_bare_default_sgd{suffix}", plain_ratio, interval=plain_interval, note=note),
    ]
