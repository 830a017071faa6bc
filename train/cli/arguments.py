"""How this package's commands read their arguments: one kind of parser, and options as a frozen dataclass.

parser = command_parser("train.evaluate", __doc__)
add_evaluation_arguments(parser, data_help="shard folder")
options = parse_as(EvaluationOptions, parser, None)
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from launch.arguments import not_negative, positive

DEFAULT_BATCH_SIZE = 64

Options = TypeVar("Options")


def command_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Of `python -m module`; the description is shown line by line as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse_as(kind: type[Options], parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Options:
    """kind: a dataclass with a field for every argument. arguments: None for those of this process. Lists come as
    tuples. SystemExit where an argument is wrong."""
    values = vars(parser.parse_args(arguments))
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class EvaluationOptions:
    """What evaluating and predicting share, by the names of the arguments. workers: None for as many as there are cores
    for; image_size, precision: None for each model's own."""

    model: tuple[str, ...]
    data: str
    tta: int
    image_size: int | None
    batch_size: int
    workers: int | None
    precision: str | None
    device: str


def add_evaluation_arguments(parser: argparse.ArgumentParser, *, data_help: str, data_required: bool = True) -> None:
    """--model, --data, --tta, --image-size, --batch-size, --workers, --precision, --device: see EvaluationOptions. A
    --data that is not required is "" where it is not given."""
    from models.preprocessing import PRECISIONS  # loads torch, which the other commands' help need not wait for

    add = parser.add_argument
    add(
        "--model",
        required=True,
        action="append",
        metavar="PATH",
        help="folder of a saved model, or an exported file (.onnx, .uint8.safetensors, .pte); given several times: an "
        "ensemble, the mean of their probabilities",
    )
    add("--data", required=data_required, default="", help=data_help)
    add("--tta", type=positive, default=1, metavar="N", help="views per photo: centre, its mirror, then mild crops")
    add("--image-size", type=positive, metavar="S", help="pixels (default: each model's own evaluation size)")
    add("--batch-size", type=positive, default=DEFAULT_BATCH_SIZE, metavar="N", help="photos per rank (%(default)s)")
    add("--workers", type=not_negative, metavar="N", help="decoding processes per rank (default: by cores)")
    add(
        "--precision",
        choices=list(PRECISIONS),
        help="default: the one each model was trained in; an exported file has its own",
    )
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU where there is one")
