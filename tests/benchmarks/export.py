"""int8 against fp32 ONNX on one thread, and the time of a report over five runs.

The networks have fresh weights with the statistics of the photos that they are calibrated on: bytes and speed do not
depend on what was learned. The report is the whole command in a process of its own and with its defaults, on students
for 224 pixels that are asked about real photos.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

from data.index import load_index
from models.artifact import load_artifact, save_artifact
from models.channel_groups.narrow import Norm
from models.cost import count_cost
from models.formats.onnx_graph import export_graph, save_graph
from models.formats.onnx_model import OnnxModel
from models.formats.quantization import measure_ranges, prepare, quantise
from models.student import Student, build_student
from prune.equivalence import random_images
from prune.goal import Goal
from prune.pruner import Limits, prune_student
from prune.selection import find_candidates
from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.benchmarks.photos import photo_shards

Tasks = Mapping[str, Sequence[str]]
_TASKS = {"gender": ("f", "m"), "age": tuple("12345"), "beauty": ("low", "high")}
_RUNS, _EPOCHS, _LINES = 5, 100, 20  # _LINES: training records per epoch
REPOSITORY = Path(__file__).resolve().parents[2]


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Changes this process's number of threads: for a process of its own."""
    torch.set_num_threads(1)
    size = 64 if quick else 224
    rounds = 5 if quick else 200
    figures = []
    for name, backbone, pruned in (
        ("", "mobilenetv2_100", False),
        ("_x050", "mobilenetv2_050", False),
        ("_pruned", "mobilenetv2_100", True),
    ):
        student = _known_student(backbone, _TASKS, size=size)
        if pruned:
            student = _halved(student, size=size)
        figures += _int8(folder / f"int8{name}", student, backbone, name, size=size, rounds=rounds)
    return [*figures, _report(folder, num_runs=1 if quick else _RUNS, epochs=3 if quick else _EPOCHS, size=size)]


def _halved(student: Student, *, size: int) -> Student:
    """Half the multiply-accumulates, all widths multiples of 8."""
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(0.5, 1.5)  # something to rank the channels by
    pruned = prune_student(
        student,
        find_candidates(student),
        limits=Limits(threshold_cap=False, multiple=8),
        goal=Goal(budgets={"macs": count_cost(student, image_size=size).macs / 2}, image_size=size),
        inputs={"random": random_images(size)},
    )
    return pruned.student


def _int8(folder: Path, student: Student, backbone: str, suffix: str, *, size: int, rounds: int) -> list[Figure]:
    photos = [_noise(size, seed=seed) for seed in range(4)]
    model, meta = load_artifact(_save_student(folder, student, _TASKS, size=size))
    graph = prepare(export_graph(model, meta, image_size=size))
    small = quantise(graph, measure_ranges(graph, photos, method="minmax"))
    num_bytes = [save_graph(made, folder / f"{name}.onnx") for name, made in (("fp32", graph), ("int8", small))]
    image = torch.from_numpy(photos[0][:1])
    ways = [partial(OnnxModel(folder / f"{name}.onnx", threads=1), image) for name in ("fp32", "int8")]
    timed_in_turn(ways, rounds=5)  # warm-up
    whole, quantised = timed_in_turn(ways, rounds=rounds, warm=True).T
    ratio, interval = median_ratio(whole, quantised)
    promised = not suffix
    macs = count_cost(model, image_size=size).macs
    times = f"{1000 * np.median(quantised):.2f} against {1000 * np.median(whole):.2f} ms"
    what = f"{backbone}, pruned" if suffix == "_pruned" else backbone
    note = f"{what}, three embedding heads, {size} px, {macs / 1e6:.0f}M MACs"
    return [
        Figure(
            f"int8_bytes_vs_fp32{suffix}", num_bytes[1] / num_bytes[0], target=0.30 if promised else None, note=note
        ),
        Figure(
            f"int8_speedup{suffix}",
            ratio,
            target=1.5 if promised else None,
            at_least=True,
            interval=interval,
            note=f"{note}, one thread, {times}",
        ),
    ]


def _report(folder: Path, *, num_runs: int, epochs: int, size: int) -> Figure:
    shards = photo_shards(folder / "photos")
    tasks = {task: tuple(classes) for task, classes in load_index(shards).tasks.items()}
    runs = [_write_run(folder / f"run{number}", shards, tasks, epochs=epochs, size=size) for number in range(num_runs)]
    command = [sys.executable, "-m", "train.report", *map(str, runs), "--out", str(folder / "page.html")]
    begin = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    asked = re.findall(r"Asked about ([\d,]+ evenly spaced of [\d,]+ photos)", (folder / "page.html").read_text())
    assert len(asked) == num_runs
    note = f"{num_runs} runs of {epochs} epochs, mobilenetv2_050 at {size} px, each asked about {asked[0]}"
    return Figure("report_seconds", seconds, target=10, note=note)


def _write_run(folder: Path, shards: Path, tasks: Tasks, *, epochs: int, size: int) -> Path:
    _save_student(folder / "best", _known_student("mobilenetv2_050", tasks, size=size), tasks, size=size)
    data = {"train": str(shards), "val": str(shards), "image_size": size}
    config = {"run": {"dir": str(folder)}, "data": data, "schedule": {"epochs": epochs}, "model": {"backbone": "x"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").write_text('{"step": 1, "model": "best", "metrics": {}}')
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(epochs):
            for line in range(_LINES):
                file.write(json.dumps(_training_record(tasks, epoch, epoch * _LINES + line, epochs)) + "\n")
            file.write(json.dumps(_evaluation_record(tasks, epoch, epoch * _LINES + _LINES - 1)) + "\n")
    return folder


def _training_record(tasks: Tasks, epoch: int, step: int, epochs: int) -> dict[str, object]:
    losses = {f"loss.{task}": 1 / (1 + step) for task in tasks}
    progress = (step + 1) / (_LINES * epochs)
    return {"kind": "train", "step": step, "epoch": epoch, "lr": 0.1, "progress": progress, "loss": 1.0, **losses}


def _evaluation_record(tasks: Tasks, epoch: int, step: int) -> dict[str, object]:
    measures = {f"{task}.top1": 1 - 1 / (2 + epoch) for task in tasks}
    return {"kind": "evaluation", "step": step, "epoch": epoch, "mean_top1": 1 - 1 / (2 + epoch), **measures}


def _noise(size: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(8, 3, size, size)).astype(np.float32)


def _known_student(backbone: str, tasks: Tasks, *, size: int) -> Student:
    torch.manual_seed(0)
    counts = {task: len(names) for task, names in tasks.items()}
    student = build_student(backbone=backbone, head={"kind": "multi-embedding"}, tasks=counts)
    with torch.no_grad():
        student.train()(torch.from_numpy(_noise(size, seed=0)))
    return student.eval()


def _save_student(folder: Path, student: Student, tasks: Tasks, *, size: int) -> Path:
    return save_artifact(
        student,
        folder,
        tasks=tasks,
        preprocessing={"mean": [0.5] * 3, "std": [0.25] * 3, "train_size": size, "eval_size": size},
        metrics={"mean_top1": 0.5},
        provenance={},
        ema=False,
    ).parent
