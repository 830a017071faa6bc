"""One page that shows what was gained: runs, pruned and exported models in, a self-contained HTML file out.

    python -m train.report runs/teacher runs/student pruned exported --out report.html

A run that is going on or was cut off is shown as far as it came.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from data.files import write_result
from launch.arguments import not_negative, output_file
from launch.exit_codes import ExitCode
from train.cli.command import run_command
from train.distributed.comm import Comm
from train.distributed.device import choose_device, num_decoders
from train.report_page.inputs import read_material
from train.report_page.page import build_page
from train.tracking.console import image_progress


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(
        prog="python -m train.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    options = parser.parse_args(arguments)
    words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    command = shlex.join(["python", "-m", "train.report", *words])
    return run_command(lambda comm: _report(options, comm, command))


def _report(options: argparse.Namespace, comm: Comm, command: str) -> ExitCode:
    choose_device("cpu", comm, deterministic=True)  # the same page again, and memory that is not given back
    material = read_material(options.folders)
    workers = num_decoders(comm) if options.workers is None else options.workers
    page, notes = build_page(
        material,
        command=command,
        most_photos=options.photos,
        thumbnails=options.thumbnails,
        workers=workers,
        bar=lambda what, total: image_progress(what, total=total),
    )
    write_result(options.out, page.encode("utf-8", "backslashreplace"))
    for record in material.records:
        if record.state != "finished":
            notes.append(f"{record.name} is {record.state}; it is shown as far as it came")
        notes += [f"{record.name}: {gap}" for gap in record.gaps]
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {options.out}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
