"""int8 against fp32 ONNX on one thread, and the time of a report over five runs.

The networks have fresh weights with the statistics of the photos that they are calibrated on: bytes and speed do not
depend on what was learned. The report is the whole command in a process of its own, on students that are asked about
300 photos each.
"""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

from data.index.foreign import index_tars
from models.artifact import load_artifact, save_artifact
from models.deploy.graph import export_graph, save_graph
from models.deploy.int8 import measure_ranges, prepare, quantise
from models.deploy.runtime import OnnxModel
from models.student import build_student
from tests.benchmarks.figure import Figure
from tests.benchmarks.pairs import median_ratio, timed_in_turn
from tests.conftest import TINY_TASKS, write_tiny_tar

_TASKS = {"gender": ("f", "m"), "age": tuple("12345"), "beauty": ("low", "high")}
_RUNS, _EPOCHS, _LINES, _PHOTOS = 5, 100, 20, 300  # _LINES: training records per epoch
REPOSITORY = Path(__file__).resolve().parents[2]


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Changes this process's number of threads: for a process of its own."""
    torch.set_num_threads(1)
    size = 64 if quick else 224
    rounds = 5 if quick else 200
    figures = []
    for backbone, suffix in (("mobilenetv2_100", ""), ("mobilenetv2_050", "_x050")):
        figures += _int8(folder / backbone, backbone, suffix, size=size, rounds=rounds)
    return [*figures, _report(folder, num_runs=1 if quick else _RUNS, epochs=3 if quick else _EPOCHS)]


def _int8(folder: Path, backbone: str, suffix: str, *, size: int, rounds: int) -> list[Figure]:
    photos = [np.random.default_rng(seed).normal(size=(8, 3, size, size)).astype(np.float32) for seed in range(4)]
    model, meta = load_artifact(_save_student(folder, backbone, _TASKS, size=size, photos=photos[0]))
    graph = prepare(export_graph(model, meta, image_size=size))
    small = quantise(graph, measure_ranges(graph, photos, method="minmax"))
    num_bytes = [save_graph(made, folder / f"{name}.onnx") for name, made in (("fp32", graph), ("int8", small))]
    image = torch.from_numpy(photos[0][:1])
    ways = [partial(OnnxModel(folder / f"{name}.onnx", threads=1), image) for name in ("fp32", "int8")]
    timed_in_turn(ways, rounds=5)  # warm-up
    whole, quantised = timed_in_turn(ways, rounds=rounds).T
    ratio, interval = median_ratio(whole, quantised)
    promised = not suffix
    times = f"{1000 * np.median(quantised):.2f} against {1000 * np.median(whole):.2f} ms"
    note = f"{backbone}, three embedding heads, {size} px"
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


def _report(folder: Path, *, num_runs: int, epochs: int) -> Figure:
    shards = folder / "val"
    shards.mkdir()
    write_tiny_tar(shards / "000000.tar", first_sample=0, num_samples=_PHOTOS)
    index_tars([shards / "000000.tar"], tasks=TINY_TASKS, cls_task="class")
    runs = [_write_run(folder / f"run{number}", shards, epochs=epochs) for number in range(num_runs)]
    command = [sys.executable, "-m", "train.report", *map(str, runs), "--out", str(folder / "page.html")]
    begin = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    note = f"{num_runs} runs of {epochs} epochs, {_PHOTOS} photos at 96 px asked of each, mobilenetv2_050"
    return Figure("report_seconds", seconds, target=10, note=note)


def _write_run(folder: Path, shards: Path, *, epochs: int) -> Path:
    photos = np.random.default_rng(0).normal(size=(8, 3, 96, 96)).astype(np.float32)
    _save_student(folder / "best", "mobilenetv2_050", TINY_TASKS, size=96, photos=photos)
    data = {"train": str(shards), "val": str(shards), "image_size": 96}
    config = {"run": {"dir": str(folder)}, "data": data, "schedule": {"epochs": epochs}, "model": {"backbone": "x"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").write_text('{"step": 1, "model": "best", "metrics": {}}')
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(epochs):
            for line in range(_LINES):
                file.write(json.dumps(_training_record(epoch, epoch * _LINES + line, epochs)) + "\n")
            file.write(json.dumps(_evaluation_record(epoch, epoch * _LINES + _LINES - 1)) + "\n")
    return folder


def _training_record(epoch: int, step: int, epochs: int) -> dict[str, object]:
    losses = {f"loss.{task}": 1 / (1 + step) for task in TINY_TASKS}
    progress = (step + 1) / (_LINES * epochs)
    return {"kind": "train", "step": step, "epoch": epoch, "lr": 0.1, "progress": progress, "loss": 1.0, **losses}


def _evaluation_record(epoch: int, step: int) -> dict[str, object]:
    measures = {f"{task}.top1": 1 - 1 / (2 + epoch) for task in TINY_TASKS}
    return {"kind": "evaluation", "step": step, "epoch": epoch, "mean_top1": 1 - 1 / (2 + epoch), **measures}


def _save_student(
    folder: Path, backbone: str, tasks: dict[str, tuple[str, ...]], *, size: int, photos: np.ndarray
) -> Path:
    torch.manual_seed(0)
    counts = {task: len(names) for task, names in tasks.items()}
    model = build_student(backbone=backbone, head={"kind": "multi-embedding"}, tasks=counts)
    with torch.no_grad():
        model.train()(torch.from_numpy(photos))
    return save_artifact(
        model,
        folder,
        tasks=tasks,
        preprocessing={"mean": [0.5] * 3, "std": [0.25] * 3, "train_size": size, "eval_size": size},
        metrics={"mean_top1": 0.5},
        provenance={},
        ema=False,
    ).parent
