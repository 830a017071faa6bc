"""From photos to a phone: pack, fine-tune a network with published weights, prune it, fine-tune, export, report.

    python -m train.pipeline photos.csv --out phone
    python -m train.pipeline photos.csv --out phone --max-bytes 500K --hours 2 --launcher "horovodrun -np 8"
    python -m train.pipeline --config chain.yaml [key=value ...]

Everything that is not said is chosen, and what was chosen is said. Stages are folders in --out: shards, teacher,
student, tuned, exported, report.html. A stage that is done is taken as it is: stopped at any moment, the same command
continues, and after a change only what depends on it is done again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.errors import BadArgument, DataError
from data.files import write_atomically
from data.names import print_any_name
from launch.exit_codes import ExitCode
from launch.file_lock import FileLock
from train.config.loading import parse_as_model
from train.errors import ConfigError
from train.pipeline.chain import Chain
from train.pipeline.config import PipelineConfig
from train.pipeline.photos import look_at
from train.pipeline.workshop import RECORDS, StageFailed, StoppedEarly, Workshop

STAGES = ("shards", "recipe", "teacher", "size", "tuned", "exported", "report.html")
# Options that stand for keys of the config: those that are words whatever they look like, and the others.
_WORDS = ("out", "launcher", "start", "student")
_KEYS = {
    "hours": "recipe.hours",
    "max_bytes": "budget.max_bytes",
    "max_macs": "budget.max_macs",
    "max_params": "budget.max_params",
    "max_latency_ms": "budget.max_latency_ms",
    "threads": "budget.threads",
    "max_points_lost": "budget.max_points_lost",
}


@dataclass(frozen=True)
class PipelineOptions:
    """config: of the YAML file and all options. until: a stage, or None."""

    config: PipelineConfig
    until: str | None
    dry_run: bool


def parse_options(arguments: Sequence[str] | None) -> PipelineOptions:
    """Raises ConfigError; exits with 2 where an option does not exist."""
    parser = argparse.ArgumentParser(
        prog="python -m train.pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="PHOTOS | key=value", help="a table, a folder or KIND:PATH; settings of the config")
    add("--config", metavar="YAML", help="a file with any of the keys")
    add("--out", metavar="DIR", help="folder of everything that is made")
    add("--start", metavar="NETWORK", help="efficientnet-lite0 (default), efficientnet-lite2, or a timm network")
    add("--student", metavar="HOW", help="pruned (default), or a smaller backbone that learns from the teacher")
    add("--launcher", metavar="WORDS", help='before the trainings, as "horovodrun -np 8"')
    add("--hours", metavar="H", help="all training may take so long")
    add("--max-bytes", metavar="N", help="of the exported int8 file, as 1M")
    add("--max-macs", metavar="N", help="multiply-accumulates, as 40M or 30%%")
    add("--max-params", metavar="N", help="parameters, as 300K or 20%%")
    add("--max-latency-ms", metavar="T", help="of one photo here, on --threads threads")
    add("--threads", metavar="N", help="of --max-latency-ms (1)")
    add("--max-points-lost", metavar="P", help="the smallest network of which no task loses more points of top-1")
    add("--until", choices=STAGES, help="stop after this stage")
    add("--dry-run", action="store_true", help="say what would be done, and how long it may take")
    given: dict[str, Any] = vars(parser.parse_intermixed_args(arguments))
    photos = [word for word in given["words"] if "=" not in word]
    if len(photos) > 1:
        parser.error(f"{photos[1]}: photos come from one source, {photos[0]} is given already")
    overrides = [word for word in given["words"] if "=" in word]
    overrides += [f"{key}={given[option]}" for option, key in _KEYS.items() if given[option] is not None]
    overrides += [f"{key}={json.dumps(given[key])}" for key in _WORDS if given[key] is not None]
    overrides += [f"source={json.dumps(word)}" for word in photos]
    text = "{}" if given["config"] is None else _read(given["config"])
    config = parse_as_model(PipelineConfig, text, overrides, name=given["config"] or "command line")
    return PipelineOptions(config, given["until"], given["dry_run"])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    print_any_name()
    try:
        options = parse_options(arguments)
        return _run(options)
    except (ConfigError, BadArgument) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_CONFIG
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_DATA
    except StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(
            f"error: {error.filename}: {error.strerror}; put it right, and the same command continues", file=sys.stderr
        )
        return ExitCode.CANNOT_WRITE


def _run(options: PipelineOptions) -> int:
    config = options.config
    photos = look_at(config.source, options=config.build.options)
    out = Path(config.out)
    print(f"{config.source}: {photos.count:,} photos, short side {photos.side} pixels", flush=True)
    if options.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            for line in Chain(config, photos, Workshop(Path(scratch))).plan():
                print(line)
        return ExitCode.DONE
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    with FileLock(out / RECORDS / "lock") as lock:
        if not lock.acquire():
            raise ConfigError(f"{out}: another pipeline works in it at this moment")
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomically(out / "pipeline.yaml", text.encode())
        try:
            Chain(config, photos, Workshop(out, until=options.until)).run()
        except StoppedEarly as stage:
            print(f"stopped after {stage}, as --until says; without it the same command goes on")
            return ExitCode.DONE
    print(f"done: {out / 'exported'} is for the phone, {out / 'report.html'} says what was gained")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
