"""One process, data in memory: our update against a bare PyTorch loop with the same model, precision and optimizer.

The bare loop is given what helps it: channels_last, the fused SGD, gradients set to None. Against torch's default SGD
(not fused) there is a figure for the record.
"""

from pathlib import Path

from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.training import SIZE, bare_optimizer, bare_step, new_student, our_step, random_batch
from train.comm import SingleProcess

_BATCH = 32


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    rounds = 3 if quick else 60
    return [*_against_bare("fp32", "", rounds), *_against_bare("bf16", "_bf16", rounds)]


def _against_bare(precision: str, suffix: str, rounds: int) -> list[Figure]:
    batch = random_batch(_BATCH)
    fused, default = new_student(), new_student()
    ways = [
        our_step(new_student(), batch, SingleProcess(), precision=precision),
        bare_step(fused, batch, bare_optimizer(fused), precision=precision),
        bare_step(default, batch, bare_optimizer(default, fused=None), precision=precision),
    ]
    for way in ways:
        way(), way()  # warm-up
    ours, bare, plain = timed_in_turn(ways, rounds=rounds).T
    ratio, interval = median_ratio(ours, bare)
    plain_ratio, plain_interval = median_ratio(ours, plain)
    note = f"{precision}, {SIZE} px, batch {_BATCH}, {rounds} pairs"
    return [
        Figure(f"step_vs_bare{suffix}", ratio, target=1.03, interval=interval, note=note),
        Figure(f"step_vs_bare_default_sgd{suffix}", plain_ratio, interval=plain_interval, note=note),
    ]
