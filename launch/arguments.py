"""Types for argparse that more than one command uses: a number or a file, or an error that says what it must be.

parser.add_argument("--workers", type=not_negative)
"""

import argparse
import math
from pathlib import Path


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 0")
    return int(text)


def duration(text: str) -> float:
    """Seconds, at least 0 and finite: a wait of NaN seconds would never end."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds")
    return seconds


def output_file(text: str) -> Path:
    """A path to write, found impossible now and not after an hour's work; its folder is made."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: its folder cannot be made ({error.strerror})") from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file in it")
    return path
