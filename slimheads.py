"""The command `slimheads`: everything that can be started, under one name and from any folder.

    slimheads build --source photos.csv --out shards/mine --holdout 0.2

`slimheads COMMAND ...` does what `python -m MODULE ...` does. Our packages have common names (data, models), and a
user's folder may hold others of these names: here ours come first, in this process and in all that it starts.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).resolve().parent  # that holds our packages, too
PACKAGES = ("data", "launch", "models", "prune", "train")


class Command(NamedTuple):
    name: str
    module: str
    about: str

    @property
    def is_there(self) -> bool:
        path = HOME / self.module.replace(".", "/")
        return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


COMMANDS = (
    Command("build", "data.build", "photos and labels to shards"),
    Command("index", "data.index", "index the tars of other tools"),
    Command("verify", "data.verify", "read all shards again and hold them against their index"),
    Command("correct", "data.correct", "change labels of finished shards"),
    Command("preview", "data.preview", "photos with their labels on one page"),
    Command("train", "train.main", "train or continue a run"),
    Command("launch", "launch.worker", "start a command on many ranks, without ssh and MPI"),
    Command("cache-teacher", "train.cache_teacher", "keep a teacher's answers for a distillation"),
    Command("evaluate", "train.evaluate", "measure models on labelled photos"),
    Command("compare", "train.compare", "tell whether two models differ"),
    Command("calibrate", "train.calibrate", "make a model's probabilities come true"),
    Command("suspects", "train.suspects", "find labels that are probably wrong"),
    Command("predict", "train.predict", "answers for photos"),
    Command("prune", "prune", "make a network narrower"),
    Command("prune-curve", "prune.curve", "prune to several sizes, and show what each is worth"),
    Command("export", "models.export", "files for phones and servers"),
    Command("summary", "models.summary", "the layers of a model and what they cost"),
    Command("report", "train.report", "one page about runs, models and exports"),
    Command("pipeline", "train.pipeline", "all of it, from photos to files for phones"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command as `python -m` would, in this process; it ends with SystemExit. arguments: None for those of this
    process."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    commands = {command.name: command for command in COMMANDS if command.is_there}
    if name in ("-h", "--help", "help"):
        print(_help(commands))
        return 0
    if name not in commands:
        print(f"error: {_unknown(name, list(commands))}", file=sys.stderr)
        return 2
    put_ours_first()
    if name != "launch":  # which starts commands of the user
        os.environ["PYTHONSAFEPATH"] = "1"  # children do not look into the folder that they are started in
    import runpy

    sys.argv = [sys.argv[0], *rest]
    runpy.run_module(commands[name].module, run_name="__main__", alter_sys=True)
    return 0


def put_ours_first() -> None:
    """`import data` means ours from now on, also in child processes.

    Where nothing can be mistaken the order stays as it is: a folder of installed packages that comes before Python's
    own could hide some of these.
    """
    before = sys.path[: sys.path.index(str(HOME))] if str(HOME) in sys.path else sys.path
    # Where this file itself was started, its folder is on the path of this process alone.
    is_installed = HOME.name in ("site-packages", "dist-packages") and str(HOME) in sys.path
    if is_installed and not any(_holds_a_namesake(Path(place or ".")) for place in before):
        return
    sys.path.insert(0, str(HOME))
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{HOME}{os.pathsep}{others}" if others else str(HOME)


def _holds_a_namesake(place: Path) -> bool:
    return any((place / name).is_dir() or (place / f"{name}.py").is_file() for name in PACKAGES)


def _help(commands: dict[str, Command]) -> str:
    width = max(map(len, commands))
    lines = [f"  {command.name:<{width}}  {command.about}" for command in commands.values()]
    return "\n".join(
        ["usage: slimheads COMMAND ...", "", *lines, "", "slimheads COMMAND --help shows what a command takes."]
    )


def _unknown(name: str, names: list[str]) -> str:
    import difflib

    if not name:
        return "slimheads needs a command; slimheads --help lists them"
    near = difflib.get_close_matches(name.replace("_", "-"), names, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"slimheads has no command {name!r}; {meant}slimheads --help lists all"


if __name__ == "__main__":
    sys.exit(main())
