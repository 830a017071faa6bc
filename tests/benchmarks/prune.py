"""Pruning MobileNetV2 x1.0 with three heads: how long it takes, what a sparse step costs, what narrower layers gain.

One thread. The gammas are drawn, since times do not depend on what was learned.
"""

import contextlib
import io
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from launch.exit_codes import ExitCode
from models.artifact import save_artifact
from models.channel_groups.narrow import Norm
from models.cost import count_cost
from models.formats.latency import inference, measure_latency
from models.student import Student, build_student
from prune.__main__ import main
from prune.equivalence import random_images
from prune.goal import Goal
from prune.pruner import Limits, prune_student
from prune.selection import find_candidates
from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.training import TASKS, new_student, our_steps, random_batch
from train.distributed.comm import SingleProcess
from train.distributed.device import keep_freed_memory
from train.losses.bn_sparsity import ProximalSparsity, SubgradientSparsity, penalised_norms

_SIZE, _BATCH, _TRAIN_SIZE = 224, 32, 96
_STRENGTH = 1e-4
_NOISE = 1.1  # the pruned model is timed once more than the search timed it


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Changes this process's number of threads: for a process of its own."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as train.main does
    student = _drawn_student()
    speedup = _speedup(student, rounds=5 if quick else 200)
    return [*_prunes(student, folder), speedup, *_sparse_steps(3 if quick else 60)]


def _drawn_student() -> Student:
    torch.manual_seed(0)
    head = {"kind": "multi-embedding", "width": 512}
    student = build_student(backbone="mobilenetv2_100", head=head, tasks=TASKS)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(0, 1)
    return student.eval()


def _prunes(student: Student, folder: Path) -> list[Figure]:
    """As the command does it, from the saved model to the written one."""
    save_artifact(
        student,
        folder / "model",
        tasks={task: [str(number) for number in range(count)] for task, count in TASKS.items()},
        preprocessing={"mean": [0.5] * 3, "std": [0.25] * 3, "train_size": _SIZE, "eval_size": _SIZE},
        metrics={},
        provenance={},
        ema=False,
    )
    half = 0.5 * measure_latency(student, image_size=_SIZE, threads=1).milliseconds
    model = ["--model", str(folder / "model"), "--multiple", "8"]
    ratio = seconds_of([*model, "--out", str(folder / "ratio"), "--ratio", "0.3"])
    budget = seconds_of([*model, "--out", str(folder / "latency"), f"--max-latency-ms={half}"])
    require_latency(folder / "latency", half)
    note = f"MobileNetV2 x1.0, three heads, {_SIZE} px, measured latency included"
    return [
        Figure("prune_seconds", ratio, target=5, note=note),
        Figure("prune_latency_seconds", budget, target=60, note=f"{note}, to half the latency"),
    ]


def seconds_of(arguments: Sequence[str]) -> float:
    """One `python -m prune`. Raises RuntimeError with its words where it fails: a refusal is quick."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as words:
        code = main(arguments)
    seconds = time.perf_counter() - begin
    if code is not ExitCode.DONE:
        raise RuntimeError(f"python -m prune {' '.join(arguments)} failed: {words.getvalue()}")
    return seconds


def require_latency(folder: Path, milliseconds: float) -> None:
    """Raises RuntimeError where the pruned model in the folder is slower than was asked for."""
    after = json.loads((folder / "prune.json").read_text())["latency_ms"]["after"]
    if after > _NOISE * milliseconds:
        raise RuntimeError(f"{folder} takes {after:.3g} ms, the budget was {milliseconds:.3g} ms")


def _speedup(student: Student, *, rounds: int) -> Figure:
    before = count_cost(student, image_size=_SIZE)
    pruned = prune_student(
        student,
        find_candidates(student),
        limits=Limits(threshold_cap=False, multiple=8),
        goal=Goal(budgets={"macs": before.macs / 2}, image_size=_SIZE),
        inputs={"random": random_images(_SIZE)},
    )
    wide, runtime = inference(student, image_size=_SIZE, threads=1)
    narrow, _ = inference(pruned.student, image_size=_SIZE, threads=1)
    timed_in_turn([wide, narrow], rounds=3)  # warm-up
    seconds = timed_in_turn([wide, narrow], rounds=rounds, warm=True)
    gained = pruned.before.macs / pruned.after.macs
    ratio, (low, high) = median_ratio(*seconds.T)
    return Figure(
        "prune_speedup_vs_macs",
        ratio / gained,
        target=0.8,
        at_least=True,
        interval=(low / gained, high / gained),
        note=f"{runtime}, {gained:.2f} times fewer MACs, {ratio:.2f} times faster, multiples of 8, {rounds} pairs",
    )


def _sparse_steps(rounds: int) -> list[Figure]:
    """An update with the penalty on every norm, in both forms, against the same update without, MobileNetV2 x0.5."""
    batch = random_batch(_BATCH, size=_TRAIN_SIZE)
    subgradient, proximal = new_student(), new_student()
    stage = SubgradientSparsity(penalised_norms(subgradient), strength=lambda step: _STRENGTH)
    ways = [
        our_steps(new_student(), batch, SingleProcess()),
        our_steps(subgradient, batch, SingleProcess(), gradient_hooks=[stage]),
        our_steps(
            proximal,
            batch,
            SingleProcess(),
            update_hooks=lambda optimizer: [
                ProximalSparsity(penalised_norms(proximal), optimizer, strength=lambda step: _STRENGTH)
            ],
        ),
    ]
    for way in ways:
        way(2)  # warm-up
    plain, *penalised = timed_in_turn([partial(way, 1) for way in ways], rounds=rounds).T
    note = f"fp32, {_TRAIN_SIZE} px, batch {_BATCH}, {rounds} pairs"
    figures = []
    for name, seconds in zip(("sparse_vs_plain", "sparse_proximal_vs_plain"), penalised, strict=True):
        ratio, interval = median_ratio(seconds, plain)
        figures.append(Figure(name, ratio, target=1.02, interval=interval, note=note))
    return figures
