"""Export a trained model for phones and servers, with its accuracy, size and speed beside it.

    python -m models.export --model runs/a/best --out exported --int8 --calibrate shards/train \\
        --data shards/val --gate 0.01

writes model.onnx, model.int8.onnx, model.json, export.json and predict.py, which needs onnxruntime, numpy and Pillow.
Ends with 1 where a task loses more than the gate allows, and names the layers that hurt most.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from models.model_path import exit_if_missing, given_as

if __name__ == "__main__":  # before torch is loaded
    exit_if_missing(*given_as("--model"))

import numpy as np
import torch
from rich.console import Console

from data.files import staged
from data.images import axis, orientation
from data.index import load_index
from data.loading.image_sets import ImageSubset, ShardImages
from data.sealed_json import seal
from launch.arguments import not_negative, positive
from launch.exit_codes import ExitCode
from models import formats
from models.artifact import META_NAME, WEIGHTS_NAME, ArtifactMeta, load_artifact
from models.export.calibration import Int8Choice, choose_int8, worst_parts
from models.export.measurement import calibration_batches, measure_files, shard_photos
from models.export.options import EXAMPLE_NAME, FILES, check_options, chosen_variants
from models.export.report import (
    export_report,
    export_table,
    gate_message,
    losses_over_gate,
    require_answers,
    require_measured,
)
from models.finite import require_finite
from models.formats.executorch import write_program
from models.formats.latency import measure_milliseconds
from models.formats.loading import load_model
from models.formats.manifest import EXPORT_NAME, REFERENCE, hashes_in, remove_left_overs
from models.formats.onnx_graph import export_graph, save_graph, with_pixel_input
from models.formats.parity import require_parity, require_same_logits
from models.formats.quantization import METHODS, require_enough_photos
from models.formats.standalone import standalone_text
from models.formats.weight_storage import write_uint8
from models.student import Student
from models.terminal import print_table
from models.trial_pass import require_size
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import num_decoders
from train.evaluation.comparison import Comparison

EXAMPLE = Path(str(formats.__file__)).with_name("predict_template.py")
MODULES = {module.__name__: Path(str(module.__file__)) for module in (axis, orientation)}  # that the example imports
SAMPLES = 256  # photos to calibrate with
LOOKED_AT = 32  # photos that show which tensors hurt most, where none were needed to calibrate


class GateMissed(Exception):
    """A task lost more than --gate; the message says which, and what to do."""


@dataclass
class Export:
    """One export under way. folder: where its files are made."""

    model: Student
    meta: ArtifactMeta
    options: argparse.Namespace
    folder: Path
    image_size: int
    workers: int
    batches: list[np.ndarray] = field(default_factory=list)  # photos to calibrate with
    int8: Int8Choice | None = None

    @property
    def files(self) -> dict[str, Path]:
        """variant -> file, in the order of the report; the reference is the weights that all were made from."""
        made = {variant: self.folder / FILES[variant] for variant in chosen_variants(self.options)}
        return {REFERENCE: self.meta.path / WEIGHTS_NAME, **made}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "-m", "models.export", *words])
    try:
        return run_command(lambda comm: _export(options, comm))
    except GateMissed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="folder of a saved model")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    add("--format", choices=["onnx", "executorch"], help="default: onnx, unless --storage alone is asked for")
    add("--storage", choices=["uint8"], help="weights in 8 bits (model.uint8.safetensors), a quarter of the bytes")
    add("--int8", action="store_true", help="int8, too; needs --calibrate")
    add("--calibrate", metavar="SHARDS", help="shard folder whose photos show how large activations get")
    add("--samples", type=positive, metavar="N", help=f"photos of it, evenly spaced (default: {SAMPLES})")
    add("--method", choices=["best", *METHODS], help="of calibration; best (the default): by measured accuracy")
    add("--keep-float", default="", metavar="N|NAMES", help="leave the N worst layers, or the named ones, in float")
    add("--data", metavar="SHARDS", help="labelled shard folder to measure on")
    add("--gate", type=_share, metavar="X", help="top-1 that a task may lose, as a share: 0.01 is one point")
    add("--preprocessing", choices=["described", "inside"], default="described", help="inside: ONNX input in pixels")
    add("--image-size", type=positive, metavar="S", help="pixels (default: the model's evaluation size)")
    add("--workers", type=not_negative, metavar="N", help="decoding processes (default: by cores)")
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a share from 0 to 1; 0.01 is one point")
    return value


def _export(options: argparse.Namespace, comm: Comm) -> ExitCode:
    check_options(options)
    model, meta = load_artifact(options.model)
    require_finite(model, meta.path)
    size = options.image_size or int(meta.preprocessing["eval_size"])
    require_size(model, size, whose=options.model)
    workers = num_decoders(comm) if options.workers is None else options.workers
    for option in ("calibrate", "data"):  # said before the work
        if folder := getattr(options, option):
            shard_photos(load_index(folder), meta, option=f"--{option}")
    remove_left_overs(options.out)
    with staged(options.out) as made:
        export = Export(model, meta, options, made, size, workers)
        _write_files(export)
        results = _measure(export)
        if options.gate is not None:
            require_measured(results, list(meta.tasks), data=options.data)
        _report(export, results, _latency(export))
        written = sorted(path.name for path in export.folder.iterdir())
    print(f"wrote {options.out}: {', '.join(written)}")
    if options.gate is not None and (lost := losses_over_gate(results, gate=options.gate)):
        photos = export.batches or _network_inputs(export, "data", count=LOOKED_AT)
        worst = worst_parts(lost, int8=export.int8, model=model, batches=photos)
        raise GateMissed(gate_message(lost, gate=options.gate, worst=worst))
    return ExitCode.DONE


def _photos(export: Export, option: str) -> ShardImages:
    return shard_photos(load_index(getattr(export.options, option)), export.meta, option=f"--{option}")


def _network_inputs(export: Export, option: str, *, count: int) -> list[np.ndarray]:
    return calibration_batches(_photos(export, option), export.meta, image_size=export.image_size, count=count)


def _write_files(export: Export) -> None:
    shutil.copyfile(export.meta.path / META_NAME, export.folder / META_NAME)
    if export.options.int8:
        export.batches = _network_inputs(export, "calibrate", count=export.options.samples or SAMPLES)
        require_enough_photos(export.batches)
    if "uint8 storage" in export.files:
        write_uint8(export.model, export.files["uint8 storage"], model_sha256=export.meta.sha256)
    if "onnx fp32" in export.files:
        _write_graphs(export)
    if "executorch fp32" in export.files:
        _write_programs(export)


def _write_graphs(export: Export) -> None:
    options = export.options
    with Console(stderr=True).status("exporting to ONNX"):
        graph = export_graph(export.model, export.meta, image_size=export.image_size)
    finish = with_pixel_input if options.preprocessing == "inside" else lambda made: made
    save_graph(finish(graph), export.files["onnx fp32"])
    (export.folder / EXAMPLE_NAME).write_text(standalone_text(EXAMPLE, MODULES), encoding="utf-8")
    if not options.int8:
        return
    photos = _photos(export, "data" if options.data else "calibrate")
    export.int8 = choose_int8(
        graph,
        export.meta,
        export.batches,
        photos if options.data else ImageSubset(photos, count=options.samples or SAMPLES),
        photos.index.tasks,
        methods=list(METHODS) if options.method in (None, "best") else [options.method],
        keep_float=options.keep_float,
        image_size=export.image_size,
        workers=export.workers,
    )
    save_graph(finish(export.int8.graph), export.files["onnx int8"])


def _write_programs(export: Export) -> None:
    for variant, photos in {"executorch fp32": None, "executorch int8": export.batches}.items():
        if variant in export.files:
            with Console(stderr=True).status(f"exporting to {variant}"):
                write_program(
                    export.model, export.meta, export.files[variant], image_size=export.image_size, photos=photos
                )


def _measure(export: Export) -> dict[str, Comparison]:
    """On --data; without it there is nothing to measure but whether the float files compute the same at all."""
    paths = {name: export.meta.path if name == REFERENCE else path for name, path in export.files.items()}
    if export.options.data:
        photos = _photos(export, "data")
        results = measure_files(
            paths, photos, photos.index.tasks, image_size=export.image_size, workers=export.workers, what="Measuring"
        )
        require_answers(results, data=export.options.data)
        for name, result in results.items():
            if name.endswith("fp32"):
                require_parity(name, result.difference, results[REFERENCE].largest)
        return results
    for name in paths:
        if name.endswith("fp32"):
            require_same_logits(export.model, paths[name], image_size=export.image_size)
    return {}


def _latency(export: Export) -> dict[str, float]:
    """Milliseconds of one image on one thread."""
    size = export.image_size
    ways = {}
    torch.set_num_threads(1)
    for name, path in export.files.items():
        if name == "uint8 storage":
            continue  # it computes as torch fp32 does
        loaded = load_model(export.meta.path if name == REFERENCE else path, threads=1)
        image = (
            torch.zeros(1, size, size, 3, dtype=torch.uint8) if loaded.takes_pixels else torch.zeros(1, 3, size, size)
        )
        ways[name] = partial(loaded.model, image)
    with torch.inference_mode():
        return measure_milliseconds(ways)


def _report(export: Export, results: Mapping[str, Comparison], milliseconds: Mapping[str, float]) -> None:
    options, int8 = export.options, export.int8
    quantisation: dict[str, Any] = {}
    if options.int8:
        photos = {"calibrate": options.calibrate, "photos": sum(map(len, export.batches))}
        quantisation = {**photos, **({} if int8 is None else int8.facts())}
    content = export_report(
        export.meta,
        files=export.files,
        image_size=export.image_size,
        results=results,
        milliseconds=milliseconds,
        data=options.data,
        quantisation=quantisation,
        gate=options.gate,
        command=options.command,
    )
    (export.folder / EXPORT_NAME).write_bytes(seal({**content, "files": hashes_in(export.folder)}, indent=2))
    print_table(export_table(content))


if __name__ == "__main__":
    sys.exit(main())
