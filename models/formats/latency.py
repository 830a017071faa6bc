"""Time of one image, for several models in turn, so that a busy machine slows all of them.

milliseconds = measure_milliseconds({"fp32": run_float, "int8": run_small})
"""

import copy
import importlib.util
import io
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from models.formats.fusing import TaskOutputs
from models.student import Student

_WARM_UP, _ROUNDS, _BURST = 5, 15, 20
_ROUNDS_ALONE = 5  # of one model, which is in no turn with others


def measure_milliseconds(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int = _ROUNDS,
    seconds: float = 20.0,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, float]:
    """Milliseconds of each way: the smallest of the medians of its bursts, since what else a machine does can only
    lengthen one. Bursts and not single calls: the first calls after another way's find its weights in no cache.

    Each of at most `rounds` rounds has one burst of every way; no round is begun after `seconds`. progress: called with
    1 after each round.
    """
    bursts: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(_WARM_UP):
            way()
    begin = time.perf_counter()
    for _ in range(rounds):
        for name, way in ways.items():
            bursts[name].append(median(_seconds(way) for _ in range(_BURST)))
        progress(1)
        if time.perf_counter() - begin > seconds:
            break
    return {name: 1000 * min(medians) for name, medians in bursts.items()}


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Latency:
    """Of single images, with how it was measured."""

    milliseconds: float
    runtime: str
    threads: int
    image_size: int


def measure_latency(student: Student, *, image_size: int, threads: int) -> Latency:
    """Of one float32 image on the CPU, as `measure_milliseconds` measures it."""
    run, runtime = inference(student, image_size=image_size, threads=threads)
    milliseconds = measure_milliseconds({runtime: run}, rounds=_ROUNDS_ALONE)[runtime]
    return Latency(milliseconds, runtime, threads, image_size)


def inference(student: Student, *, image_size: int, threads: int) -> tuple[Callable[[], object], str]:
    """A function that infers one image, and the name of what it runs on."""
    if importlib.util.find_spec("onnxruntime") is None:
        return _torch_inference(student, image_size, threads), f"torch {torch.__version__}"
    return _onnx_inference(student, image_size, threads)


def _onnx_inference(student: Student, image_size: int, threads: int) -> tuple[Callable[[], object], str]:
    import onnxruntime

    image = torch.zeros(1, 3, image_size, image_size)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter takes a tenth of the time of its successor, which it warns about.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TaskOutputs(_for_inference(student)),
            (image,),
            file,  # type: ignore[arg-type]  # only paths are declared; the tracing exporter writes to files, too
            dynamo=False,
            input_names=["image"],
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(file.getvalue(), settings, providers=["CPUExecutionProvider"])
    pixels = image.numpy()
    return lambda: session.run(None, {"image": pixels}), f"onnxruntime {onnxruntime.__version__}"


def _torch_inference(student: Student, image_size: int, threads: int) -> Callable[[], object]:
    image = torch.zeros(1, 3, image_size, image_size)
    model = _for_inference(student)

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                model(image)
        finally:
            torch.set_num_threads(before)

    return run


def _for_inference(student: Student) -> Student:
    return copy.deepcopy(student).cpu().float().eval()
