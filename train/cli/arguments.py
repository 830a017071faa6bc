"""The command-line arguments that evaluating and predicting share.

add_evaluation_arguments(parser, data_help="shard folder"); options = parser.parse_args()
"""

import argparse

from launch.arguments import not_negative, positive
from models.preprocessing import PRECISIONS

DEFAULT_BATCH_SIZE = 64


def add_evaluation_arguments(parser: argparse.ArgumentParser, *, data_help: str) -> None:
    """--model, --data, --tta, --image-size, --batch-size, --workers, --precision, --device."""
    add = parser.add_argument
    add(
        "--model",
        required=True,
        action="append",
        metavar="PATH",
        help="folder of a saved model, or an exported file (.onnx, .uint8.safetensors, .pte); given several times: an "
        "ensemble, the mean of their probabilities",
    )
    add("--data", required=True, help=data_help)
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
