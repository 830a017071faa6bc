"""One page that shows what was gained: runs, pruned and exported models in, a self-contained HTML file out.

    python -m train.report runs/teacher runs/student pruned exported --out report.html

A run that is going on or was cut off is shown as far as it came.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import write_result
from launch.arguments import not_negative, output_file
from launch.exit_codes import ExitCode
from train.cli.arguments import command_parser, parse_as
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device, num_decoders
from train.report_page.inputs import read_inputs
from train.report_page.page import build_page
from train.tracking.console import image_progress


@dataclass(frozen=True)
class ReportOptions:
    """folders: what the page is about. photos: how many each model is asked about. workers: None for as many as there
    are cores for. command: the words that started this, as they can be given to a shell."""

    folders: tuple[Path, ...]
    out: Path
    photos: int
    thumbnails: bool
    workers: int | None
    command: str


def parse_options(arguments: Sequence[str] | None = None) -> ReportOptions:
    parser = command_parser("train.report", __doc__)
    words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser.set_defaults(command=shlex.join(["python", "-m", "train.report", *words]))
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="RUN_DIR", help="runs, folders of python -m prune or models.export")
    add("--out", required=True, type=output_file, metavar="PAGE.html", help="file to write")
    add("--photos", type=not_negative, default=200, metavar="N", help="that each model is asked about (%(default)s)")
    add(
        "--thumbnails",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the photos of the worst mistakes; without them, a page to pass on names the photos alone",
    )
    add("--workers", type=not_negative, metavar="N", help="decoding processes (default: by cores)")
    return parse_as(ReportOptions, parser, arguments)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    options = parse_options(arguments)
    return run_command(lambda comm: _report(options, comm))


def _report(options: ReportOptions, comm: Comm) -> ExitCode:
    choose_device("cpu", comm, deterministic=True)  # the same page again, and memory that is not given back
    inputs = read_inputs(options.folders)
    page, warnings = build_page(
        inputs,
        command=options.command,
        max_images=options.photos,
        thumbnails=options.thumbnails,
        workers=num_decoders(comm) if options.workers is None else options.workers,
        bar=lambda what, total: image_progress(what, total=total),
    )
    write_result(options.out, page.encode("utf-8", "backslashreplace"))
    for run in inputs.runs:
        if run.state != "finished":
            warnings.append(f"{run.name} is {run.state}; it is shown as far as it came")
        warnings += [f"{run.name}: {warning}" for warning in run.warnings]
    for warning in warnings:
        print(f"note: {warning}")
    print(f"wrote {options.out}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
