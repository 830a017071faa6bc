"""Milliseconds of the stages, all measured together: `stages, notes = time_entries(stages, progress=advance)`."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.formats.latency import inference, measure_milliseconds
from models.formats.weight_storage import SUFFIX
from models.student import build_student
from train.report_page.model_entries import EXPORTED, ModelEntry

ROUNDS = 10
_SECONDS = 0.7  # for each subject

Subject = Path | tuple[str, int]  # an ONNX file, or a network as JSON and its image size


def subjects(entries: Sequence[ModelEntry]) -> list[Subject]:
    """What is there to be timed. Weights do not change a time, so models of one network are one subject."""
    return [subject for subject in dict.fromkeys(map(_subject, entries)) if subject is not None]


def time_entries(
    entries: Sequence[ModelEntry], *, progress: Callable[[int], None] = lambda count: None
) -> tuple[list[ModelEntry], list[str]]:
    """The same stages, each with its time of one image on one thread, and what could not be timed, in words.

    All are measured in turn, so that a busy machine slows all of them, on the runtime of `models.formats.latency`.
    Files that cannot run here keep the time that export.json gives. progress: called with 1 after each of ROUNDS
    rounds.
    """
    ways: dict[str, Callable[[], object]] = {}
    runtimes: dict[Subject, str] = {}
    notes = []
    for subject in subjects(entries):
        try:
            ways[str(subject)], runtimes[subject] = _inference(subject)
        except Exception as error:  # torch's exporter and onnxruntime share no base class
            names = ", ".join(stage.name for stage in entries if _subject(stage) == subject)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            notes.append(f"{names}: cannot be timed: {reason}.")
    taken = measure_milliseconds(ways, rounds=ROUNDS, seconds=_SECONDS * len(ways), progress=progress)
    timed = []
    for stage in entries:
        own = _subject(stage)
        if own is not None and own in runtimes:
            stage = replace(stage, milliseconds=taken[str(own)], runtime=runtimes[own])
        timed.append(stage)
    return timed, notes


def _subject(stage: ModelEntry) -> Subject | None:
    """None for a file that cannot run here. Weights stored in 8 bits are computed with as float weights are."""
    if stage.role != EXPORTED or stage.file.name.endswith(SUFFIX):
        return stage.network, stage.image_size
    has_runtime = importlib.util.find_spec("onnxruntime") is not None
    return stage.file if stage.file.suffix == ".onnx" and stage.file.is_file() and has_runtime else None


def _inference(subject: Subject) -> tuple[Callable[[], object], str]:
    """A function that infers one image, and the name of what it runs on."""
    if isinstance(subject, Path):
        return _file_inference(subject)
    network, size = subject
    return inference(build_student(**json.loads(network)).eval(), image_size=size, threads=1)


def _file_inference(path: Path) -> tuple[Callable[[], object], str]:
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    shape = [side if isinstance(side, int) else 1 for side in taken.shape]  # the batch has a name
    image = np.zeros(shape, np.uint8 if taken.type == "tensor(uint8)" else np.float32)
    return lambda: session.run(None, {taken.name: image}), f"onnxruntime {onnxruntime.__version__}"
