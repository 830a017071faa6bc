"""Milliseconds of models, all measured together: `entries, warnings = time_entries(entries, progress=advance)`."""

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
    """The same entries, each with its time of one image on one thread, and what could not be timed, in words.

    All are measured in turn, so that a busy machine slows all of them, on the runtime of `models.formats.latency`.
    Files that cannot run here keep the time that export.json gives. progress: called with 1 after each of ROUNDS
    rounds.
    """
    inferences: dict[str, Callable[[], object]] = {}
    runtimes: dict[Subject, str] = {}
    warnings = []
    for subject in subjects(entries):
        try:
            inferences[str(subject)], runtimes[subject] = _inference(subject)
        except Exception as error:  # torch's exporter and onnxruntime share no base class
            names = ", ".join(entry.name for entry in entries if _subject(entry) == subject)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.append(f"{names}: cannot be timed: {reason}.")
    times = measure_milliseconds(inferences, rounds=ROUNDS, seconds=_SECONDS * len(inferences), progress=progress)
    timed = []
    for entry in entries:
        own = _subject(entry)
        if own is not None and own in runtimes:
            entry = replace(entry, milliseconds=times[str(own)], runtime=runtimes[own])
        timed.append(entry)
    return timed, warnings


def _subject(entry: ModelEntry) -> Subject | None:
    """None for a file that cannot run here. Weights stored in 8 bits are computed with as float weights are."""
    if entry.role != EXPORTED or entry.file.name.endswith(SUFFIX):
        return entry.network, entry.image_size
    has_runtime = importlib.util.find_spec("onnxruntime") is not None
    return entry.file if entry.file.suffix == ".onnx" and entry.file.is_file() and has_runtime else None


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
