"""Which files an export writes, and which of its options do not go together.

check_options(options); chosen_variants(options)  # ["onnx fp32", "onnx int8"]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data.errors import BadArgument
from data.files import settle, sha256_of
from models.artifact import META_NAME, WEIGHTS_NAME
from models.errors import ModelError
from models.formats.executorch import require_executorch
from models.formats.manifest import EXPORT_NAME, read_hashes

EXAMPLE_NAME = "predict.py"

FILES = {
    "uint8 storage": "model.uint8.safetensors",
    "onnx fp32": "model.onnx",
    "onnx int8": "model.int8.onnx",
    "executorch fp32": "model.pte",
    "executorch int8": "model.int8.pte",
}


def chosen_variants(options: argparse.Namespace) -> list[str]:
    """Keys of FILES, in the order of the report."""
    variants = ["uint8 storage"] if options.storage else []
    runtime = options.format or ("onnx" if options.int8 or not options.storage else None)
    if runtime:
        variants += [f"{runtime} fp32", f"{runtime} int8"] if options.int8 else [f"{runtime} fp32"]
    return variants


def check_options(options: argparse.Namespace) -> None:
    """BadArgument naming the option and what to do; ModelError where executorch is asked for and missing."""
    _check_folder(options)
    if options.int8 and not options.calibrate:
        raise BadArgument("--int8: needs --calibrate SHARDS, photos that show how large activations get")
    if options.gate is not None and not options.data:
        raise BadArgument("--gate: needs --data SHARDS, labelled photos to measure the loss on")
    for option in ("calibrate", "samples", "method", "keep-float"):
        if getattr(options, option.replace("-", "_")) and not options.int8:
            raise BadArgument(f"--{option}: is for --int8, which is not asked for; add --int8 or leave it out")
    for option in ("method", "keep-float"):
        if getattr(options, option.replace("-", "_")) and options.format == "executorch":
            raise BadArgument(f"--{option}: is for --int8 of the onnx format; leave it out")
    if options.preprocessing == "inside" and "onnx fp32" not in chosen_variants(options):
        raise BadArgument("--preprocessing inside: is for the onnx format; add --format onnx or leave it out")
    if options.format == "executorch":
        require_executorch()


def _check_folder(options: argparse.Namespace) -> None:
    out = options.out
    if out.exists() and not out.is_dir():
        raise BadArgument(f"--out {out}: is a file; name a folder")
    settle(out)
    if (out / WEIGHTS_NAME).exists():  # that model's own model.json would be lost
        raise BadArgument(f"--out {out}: holds a saved model ({WEIGHTS_NAME}); name another folder")
    written = [FILES[variant] for variant in chosen_variants(options)]
    stale = [name for name in FILES.values() if name not in written and (out / name).exists()]
    if stale:  # beside the new export.json, which does not name them, they would pass for files of this export
        raise BadArgument(
            f"--out {out}: holds {', '.join(stale)} of an earlier export, which this one does not write; remove it or "
            "name another folder"
        )
    _require_own(out, [*written, META_NAME, EXAMPLE_NAME])


def _require_own(out: Path, names: Sequence[str]) -> None:
    """BadArgument where a file that no export wrote would be replaced."""
    found = [name for name in names if (out / name).exists()]
    try:
        listed = read_hashes(out)
    except ModelError:  # damaged, but of an export
        return
    if found and listed is None:
        raise BadArgument(
            f"--out {out}: holds a {found[0]} that no {EXPORT_NAME} speaks of; move it away or name another folder"
        )
    if listed and EXAMPLE_NAME in found and listed.get(EXAMPLE_NAME) != sha256_of(out / EXAMPLE_NAME):
        raise BadArgument(
            f"--out {out}: its {EXAMPLE_NAME} was changed since it was exported; move it away or name another folder"
        )
