"""One export from the saved model to the folder of files: written, measured, timed and reported.

exported = export_model(ExportOptions(model="runs/a/best", out=Path("exported"), storage="uint8"))
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from data.files import staged
from data.index import load_index
from data.loading.image_sets import ImageSubset, ShardImages
from data.sealed_json import seal
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta, load_artifact
from models.export.calibration import Int8Choice, choose_int8, worst_parts
from models.export.measurement import (
    calibration_batches,
    measure_files,
    require_parity,
    require_same_logits,
    shard_images,
)
from models.export.options import ExportOptions, check_options
from models.export.output_folder import EXAMPLE_NAME, FILES, example_text, require_writable
from models.export.report import (
    export_report,
    gate_message,
    losses_over_gate,
    require_finite_predictions,
    require_measured,
)
from models.finite import require_finite
from models.formats.executorch import write_program
from models.formats.int8_size import predicted_int8_bytes
from models.formats.latency import measure_milliseconds
from models.formats.loading import load_model
from models.formats.manifest import EXPORT_NAME, REFERENCE, hashes_in, remove_left_overs
from models.formats.onnx_graph import export_graph, save_graph, with_pixel_input
from models.formats.quantization import require_enough_images
from models.formats.weight_storage import write_uint8
from models.student import Student
from models.trial_pass import require_size
from train.distributed.comm import Comm, SingleProcess
from train.distributed.device import num_decoders
from train.evaluation.comparison import Comparison

_NUM_SHOWN = 32  # images that show which tensors hurt most, where none were needed to calibrate


@dataclass(frozen=True)
class Exported:
    """What was written. record: the content of export.json. files: names, sorted. gate_error: which tasks lost more
    than the gate allows, and what to do; empty where none did."""

    record: dict[str, Any]
    files: tuple[str, ...]
    gate_error: str


@dataclass
class _Export:
    """One export under way. folder: where its files are made."""

    model: Student
    meta: ArtifactMeta
    options: ExportOptions
    folder: Path
    image_size: int
    workers: int
    batches: list[np.ndarray] = field(default_factory=list)  # images to calibrate with
    int8: Int8Choice | None = None

    @property
    def files(self) -> dict[str, Path]:
        """variant -> file, in the order of the report; the reference is the weights that all were made from."""
        made = {variant: self.folder / FILES[variant] for variant in self.options.variants}
        return {REFERENCE: self.meta.path / WEIGHTS_NAME, **made}


def export_model(options: ExportOptions, *, comm: Comm | None = None) -> Exported:
    """Write the files that the options name into the folder `options.out`; an earlier export there is whole until this
    one is. comm: of a command that was started as one of several ranks.

    BadArgument for options that do not go together, ModelError for models that cannot be exported so, DataError for
    photos that do not fit or cannot be used, AssertionError where a float file computes something else than the model.
    """
    require_writable(options.out, options.variants)
    check_options(options)
    model, meta = load_artifact(options.model)
    require_finite(model, meta.path)
    size = options.image_size or int(meta.preprocessing["eval_size"])
    require_size(model, size, whose=options.model)
    workers = num_decoders(comm or SingleProcess()) if options.workers is None else options.workers
    for option, folder in {"--calibrate": options.calibrate, "--data": options.data}.items():  # before the work
        if folder:
            shard_images(load_index(folder), meta, option=option)
    remove_left_overs(options.out)
    with staged(options.out) as made:
        export = _Export(model, meta, options, made, size, workers)
        _write_files(export)
        results = _measure(export)
        if options.gate is not None:
            assert options.data is not None
            require_measured(results, list(meta.tasks), data=options.data)
        record = _write_report(export, results, _latency(export))
        written = tuple(sorted(path.name for path in export.folder.iterdir()))
    return Exported(record, written, _gate_error(export, results))


def _images(export: _Export, option: str) -> ShardImages:
    """option: --data or --calibrate, which is set."""
    folder = export.options.data if option == "--data" else export.options.calibrate
    assert folder is not None
    return shard_images(load_index(folder), export.meta, option=option)


def _network_inputs(export: _Export, option: str, *, count: int) -> list[np.ndarray]:
    return calibration_batches(_images(export, option), export.meta, image_size=export.image_size, count=count)


def _write_files(export: _Export) -> None:
    shutil.copyfile(export.meta.path / META_NAME, export.folder / META_NAME)
    if export.options.int8:
        export.batches = _network_inputs(export, "--calibrate", count=export.options.num_samples)
        require_enough_images(export.batches)
    if "uint8 storage" in export.files:
        write_uint8(export.model, export.files["uint8 storage"], model_sha256=export.meta.sha256)
    if "onnx fp32" in export.files:
        _write_graphs(export)
    if "executorch fp32" in export.files:
        _write_programs(export)


def _write_graphs(export: _Export) -> None:
    options = export.options
    with Console(stderr=True).status("exporting to ONNX"):
        graph = export_graph(export.model, export.meta, image_size=export.image_size)
    finish = with_pixel_input if options.preprocessing == "inside" else lambda made: made
    save_graph(finish(graph), export.files["onnx fp32"])
    (export.folder / EXAMPLE_NAME).write_text(example_text(), encoding="utf-8")
    if not options.int8:
        return
    images = _images(export, "--data" if options.data else "--calibrate")
    export.int8 = choose_int8(
        graph,
        export.meta,
        export.batches,
        images if options.data else ImageSubset(images, count=options.num_samples),
        images.index.tasks,
        methods=options.methods,
        keep_float=options.keep_float,
        image_size=export.image_size,
        workers=export.workers,
    )
    save_graph(finish(export.int8.graph), export.files["onnx int8"])


def _write_programs(export: _Export) -> None:
    for variant, images in {"executorch fp32": None, "executorch int8": export.batches}.items():
        if variant in export.files:
            with Console(stderr=True).status(f"exporting to {variant}"):
                write_program(
                    export.model, export.meta, export.files[variant], image_size=export.image_size, images=images
                )


def _measure(export: _Export) -> dict[str, Comparison]:
    """On --data; without it there is nothing to measure but whether the float files compute the same at all."""
    paths = {name: export.meta.path if name == REFERENCE else path for name, path in export.files.items()}
    if export.options.data:
        images = _images(export, "--data")
        results = measure_files(
            paths, images, images.index.tasks, image_size=export.image_size, workers=export.workers, what="Measuring"
        )
        require_finite_predictions(results, data=export.options.data)
        for name, result in results.items():
            if name.endswith("fp32"):
                require_parity(name, result.difference, results[REFERENCE].largest)
        return results
    for name in paths:
        if name.endswith("fp32"):
            require_same_logits(export.model, paths[name], image_size=export.image_size)
    return {}


def _latency(export: _Export) -> dict[str, float]:
    """Milliseconds of one image on one thread."""
    size = export.image_size
    ways = {}
    num_threads = torch.get_num_threads()
    for name, path in export.files.items():
        if name == "uint8 storage":
            continue  # it computes as torch fp32 does
        loaded = load_model(export.meta.path if name == REFERENCE else path, threads=1)
        image = (
            torch.zeros(1, size, size, 3, dtype=torch.uint8) if loaded.takes_pixels else torch.zeros(1, 3, size, size)
        )
        ways[name] = partial(loaded.model, image)
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return measure_milliseconds(ways)
    finally:
        torch.set_num_threads(num_threads)


def _write_report(
    export: _Export, results: Mapping[str, Comparison], milliseconds: Mapping[str, float]
) -> dict[str, Any]:
    options, int8 = export.options, export.int8
    quantisation: dict[str, Any] = {}
    if options.int8:
        calibrated = {"calibrate": options.calibrate, "photos": sum(map(len, export.batches))}
        quantisation = {**calibrated, **({} if int8 is None else int8.metadata())}
    content = export_report(
        export.meta,
        files=export.files,
        image_size=export.image_size,
        results=results,
        milliseconds=milliseconds,
        data=options.data,
        predicted_bytes=_predicted_bytes(export),
        quantisation=quantisation,
        gate=options.gate,
        command=options.command,
    )
    record = {**content, "files": hashes_in(export.folder)}
    (export.folder / EXPORT_NAME).write_bytes(seal(record, indent=2))
    return record


def _predicted_bytes(export: _Export) -> dict[str, int]:
    if export.int8 is None:
        return {}
    size, kept = export.image_size, export.int8.float_layers
    return {"onnx int8": predicted_int8_bytes(export.model, export.meta.tasks, image_size=size, keep_float=kept)}


def _gate_error(export: _Export, results: Mapping[str, Comparison]) -> str:
    gate = export.options.gate
    if gate is None or not (lost := losses_over_gate(results, gate=gate)):
        return ""
    images = export.batches or _network_inputs(export, "--data", count=_NUM_SHOWN)
    worst = worst_parts(lost, int8=export.int8, model=export.model, batches=images)
    return gate_message(lost, gate=gate, worst=worst)
