"""What is to be exported and how, and which of the options do not go together.

options = parse_options(["--model", "runs/a/best", "--out", "exported"], description=None); check_options(options)
"""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import BadArgument
from launch.arguments import not_negative, positive
from models.formats.executorch import require_executorch
from models.formats.quantization import METHODS

SAMPLES = 256  # photos to calibrate with


@dataclass(frozen=True)
class ExportOptions:
    """The options of `python -m models.export`, by their names there.

    format: "onnx" or "executorch"; None: onnx, unless `storage` alone is asked for. storage: "uint8". calibrate, data:
    shard folders. gate: share of top-1 that a task may lose. preprocessing: "described" or "inside". image_size: in
    pixels, None for the model's own. workers: decoding processes, None by cores. command: what export.json says of it.
    """

    model: str
    out: Path
    format: str | None = None
    storage: str | None = None
    int8: bool = False
    calibrate: str | None = None
    samples: int | None = None
    method: str | None = None
    keep_float: str = ""
    data: str | None = None
    gate: float | None = None
    preprocessing: str = "described"
    image_size: int | None = None
    workers: int | None = None
    command: str = ""

    @property
    def variants(self) -> list[str]:
        """What is written, in the order of the report: "uint8 storage", "onnx fp32", "executorch int8" ..."""
        variants = ["uint8 storage"] if self.storage else []
        runtime = self.format or ("onnx" if self.int8 or not self.storage else None)
        if runtime:
            variants += [f"{runtime} fp32", f"{runtime} int8"] if self.int8 else [f"{runtime} fp32"]
        return variants

    @property
    def methods(self) -> list[str]:
        """Of calibration, to be compared."""
        return list(METHODS) if self.method in (None, "best") else [self.method]

    @property
    def num_samples(self) -> int:
        """Photos to calibrate with, at most."""
        return self.samples or SAMPLES


def parse_options(arguments: Sequence[str], *, description: str | None) -> ExportOptions:
    parser = argparse.ArgumentParser(
        prog="python -m models.export", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
    command = shlex.join(["python", "-m", "models.export", *arguments])
    return ExportOptions(**vars(parser.parse_args(arguments)), command=command)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a share from 0 to 1; 0.01 is one point")
    return value


def check_options(options: ExportOptions) -> None:
    """BadArgument naming the option and what to do; ModelError where executorch is asked for and missing."""
    if options.int8 and not options.calibrate:
        raise BadArgument("--int8: needs --calibrate SHARDS, photos that show how large activations get")
    if options.gate is not None and not options.data:
        raise BadArgument("--gate: needs --data SHARDS, labelled photos to measure the loss on")
    of_onnx = {"method": options.method, "keep-float": options.keep_float}
    for name, value in {"calibrate": options.calibrate, "samples": options.samples, **of_onnx}.items():
        if value and not options.int8:
            raise BadArgument(f"--{name}: is for --int8, which is not asked for; add --int8 or leave it out")
    for name, value in of_onnx.items():
        if value and options.format == "executorch":
            raise BadArgument(f"--{name}: is for --int8 of the onnx format; leave it out")
    if options.preprocessing == "inside" and "onnx fp32" not in options.variants:
        raise BadArgument("--preprocessing inside: is for the onnx format; add --format onnx or leave it out")
    if options.format == "executorch":
        require_executorch()
