"""What `python -m train.calibrate` can be asked for, and what can be found wrong with it before torch is loaded.

options = parse_options(["--model", "runs/a/best", "--data", "shards/val"], about="Fit."); check_options(options)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import BadArgument
from launch.arguments import not_negative, positive
from models.model_path import EXPORTED, META_NAME, require_models
from train.cli.arguments import DEFAULT_BATCH_SIZE, command_parser, parse_as
from train.evaluation.thresholds import Wanted, parse_wanted

# What lists the hash of the model.json beside it.
_LISTS_META = ("prune.json", "export.json")


@dataclass(frozen=True)
class CalibrateOptions:
    """model: folder of a saved model, or its model.json. out: folder to write, None for the model's own. threshold: as
    they are written. check_halves: also measure on the half that was not fitted on. workers: None for as many as there
    are cores for."""

    model: str
    data: str
    out: Path | None
    threshold: tuple[str, ...]
    check_halves: bool
    batch_size: int
    workers: int | None
    device: str

    @property
    def wanted(self) -> dict[str, Wanted]:
        """Task -> what its threshold is to reach. BadArgument for words that do not say it."""
        wanted: dict[str, Wanted] = {}
        for text in self.threshold:
            task, _, goal = text.rpartition("=")
            try:
                goal_of_task = parse_wanted(goal)
            except ValueError as error:
                raise BadArgument(f"--threshold {text}: {error}") from error
            if not task:
                raise BadArgument(f"--threshold {text}: say of which task, as in age={goal}")
            if task in wanted:
                raise BadArgument(f"--threshold {text}: task {task!r} has one already, {wanted[task]}")
            wanted[task] = goal_of_task
        return wanted

    @property
    def target(self) -> Path:
        """The folder to write."""
        path = Path(self.model)
        return self.out or (path if path.is_dir() else path.parent)


def parse_options(arguments: Sequence[str] | None, *, about: str | None) -> CalibrateOptions:
    parser = command_parser("train.calibrate", about)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="folder of a saved model")
    add("--data", required=True, metavar="DIR", help="shard folder with labels (path, http(s):// or s3://)")
    add("--out", type=Path, metavar="DIR", help="write a copy of the model (default: its own model.json anew)")
    add(
        "--threshold",
        action="append",
        default=[],
        metavar="TASK=KIND:SHARE",
        help="withhold the answers below a probability: age=precision:0.95, so that of the others this share is right, "
        "or age=coverage:0.8, so that this share of the photos has one; given once for each task",
    )
    add("--check-halves", action="store_true", help="also fit on one half and measure on the other, both ways")
    add("--batch-size", type=positive, default=DEFAULT_BATCH_SIZE, metavar="N", help="photos (%(default)s)")
    add("--workers", type=not_negative, metavar="N", help="decoding processes (default: by cores)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU where there is one")
    return parse_as(CalibrateOptions, parser, arguments)


def check_options(options: CalibrateOptions) -> None:
    """BadArgument, or ModelError where there is no model."""
    if options.model.endswith(EXPORTED):
        raise BadArgument(
            f"--model {options.model}: is an export; calibrate the model that it was made from, and export that again"
        )
    require_models(options.model)
    assert options.wanted is not None  # reads the words
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise BadArgument(f"--out {options.out}: is a file; name a folder")
    for name in _LISTS_META:
        if (options.target / name).exists():
            raise BadArgument(
                f"{options.target}: its {name} was written for the {META_NAME} as it stands; name another folder with "
                "--out"
            )
