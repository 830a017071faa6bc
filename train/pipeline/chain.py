"""The stages from photos to a phone: shards, recipe, teacher, size, student, tuned, exported, report.html.

Chain(config, look_at(config.source, options=()), Workshop(Path("phone"))).run()

Every stage is one of our commands, in a process of its own; training goes through the launcher.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.index import INDEX_NAME, load_index
from train.errors import ConfigError
from train.pipeline.config import STARTS, PipelineConfig
from train.pipeline.photos import Photos
from train.pipeline.recipe import DEFAULT_SHARE, SIZES, Recipe, choose_recipe, sizes_to_ask
from train.pipeline.steps import Model, Steps
from train.pipeline.student import MadeStudent, amount, budget_words, make_student
from train.pipeline.workshop import Workshop, python

_AS_GOOD = 0.002  # of mean top-1: the smaller of two sizes is taken


class Chain:
    """One pipeline: `run` does its stages one after the other."""

    def __init__(self, config: PipelineConfig, photos: Photos, workshop: Workshop) -> None:
        self.config = config
        self.photos = photos
        self.workshop = workshop
        self.out = workshop.out

    def run(self) -> None:
        """Raises StageFailed, StoppedEarly and ConfigError."""
        shards = self.shards()
        steps = Steps(self.config, self.workshop, shards, self.recipe(shards))
        teacher = self.teacher(steps)
        eval_size = self.size(steps, teacher)
        student = make_student(steps, teacher, eval_size=eval_size)
        exported = self.exported(shards, student.model, eval_size)
        self.report(student, exported)

    def plan(self) -> list[str]:
        """What `run` would do, with the time of the trainings, as lines. It measures, and writes to the workshop's
        folder alone."""
        held_out = 0.0 if self.photos.publishes_val else self.config.build.holdout
        num_photos = max(1, round(self.photos.count * (1 - held_out)))
        seconds, precision = self.measure()
        recipe = choose_recipe(
            self.config.recipe,
            num_photos=num_photos,
            photo_side=self.photos.side,
            seconds=seconds,
            precision=precision,
        )
        minutes = num_photos * seconds[min(seconds, key=lambda size: abs(size - recipe.image_size))] / 60
        asked = ", ".join(map(str, sizes_to_ask(recipe.image_size)))
        limits = " ".join(budget_words(self.config.budget)) or f"{100 * DEFAULT_SHARE:g} % of the multiply-accumulates"
        lines = [
            f"shards       {self.photos.count:,} photos, short side at most {self._stored_side()} pixels",
            f"recipe       {recipe.image_size} pixels, batches of {recipe.batch_size}, learning rate {recipe.lr:g}, "
            f"{recipe.precision}",
            f"teacher      {self.config.start}, {recipe.epochs} epochs: about {recipe.epochs * minutes:.1f} minutes",
            f"size         asked at {asked} pixels, the best on val is kept",
        ]
        if self.config.student == "pruned":
            tuning = 0.4 * recipe.tune_epochs * minutes
            lines.append(f"student      pruned in rounds to {limits}; {recipe.round_epochs} epochs after each")
            lines.append(f"tuned        {recipe.tune_epochs} epochs: about {tuning:.1f} minutes")
        else:
            lines.append(f"tuned        {self.config.student} learns from the teacher, {2 * recipe.epochs} epochs")
        return [
            *lines,
            "exported     int8, with its accuracy on val",
            "report.html  one page about all of it",
            f"all trainings: about {recipe.hours:.2f} hours here",
        ]

    def shards(self) -> dict[str, Any]:
        """{"train", "val": folders, "files": index.json of both}, or the shards that were given."""
        if self.photos.are_shards:
            folder = Path(self.config.source)
            return {"train": str(folder / "train"), "val": str(folder / "val"), "fingerprint": self.photos.fingerprint}
        words = ["--source", self.config.source, "--seed", str(self.config.seed), "--resize", str(self._stored_side())]
        words += self.config.build.options
        if not self.photos.publishes_val:
            words += ["--holdout", str(self.config.build.holdout)]
            words += [word for group in self.config.build.group for word in ("--group", group)]
        folders = {split: self.out / "shards" / split for split in ("train", "val")}

        def work() -> dict[str, Any]:
            self.workshop.run("shards", python("data.build", *words, "--out", self.out / "shards"))
            if missing := [split for split, folder in folders.items() if not (folder / INDEX_NAME).is_file()]:
                raise ConfigError(
                    f"{self.config.source}: has splits, but no {missing[0]}; publish train and val, or no splits at all"
                )
            files = self.workshop.digest(*(f"shards/{split}/{INDEX_NAME}" for split in folders))
            return {**{split: str(folder) for split, folder in folders.items()}, "files": files}

        what = f"{self.photos.count:,} photos, short side at most {self._stored_side()} pixels"
        inputs = {"words": words, "photos": self.photos.fingerprint}
        return self.workshop.stage("shards", what=what, inputs=inputs, work=work)

    def recipe(self, shards: Mapping[str, Any]) -> Recipe:
        """Chosen once, from what was measured once."""
        num_photos = load_index(shards["train"]).num_samples

        def work() -> dict[str, Any]:
            seconds, precision = self.measure()
            return asdict(
                choose_recipe(
                    self.config.recipe,
                    num_photos=num_photos,
                    photo_side=self.photos.side,
                    seconds=seconds,
                    precision=precision,
                )
            )

        inputs = {
            "choices": self.config.recipe.model_dump(mode="json"),
            "start": self.start,
            "launcher": self.config.launcher,
            "photos": num_photos,
        }
        recipe = Recipe(**self.workshop.stage("recipe", what="measure, and choose", inputs=inputs, work=work))
        self.workshop.tell(
            f"recipe: {recipe.image_size} pixels, {recipe.epochs} epochs, batches of {recipe.batch_size}, learning "
            f"rate {recipe.lr:g}, {recipe.precision}; about {recipe.hours:.2f} hours of training"
        )
        return recipe

    def measure(self) -> tuple[dict[int, float], str]:
        """(size -> seconds a photo in the quicker precision, that precision)."""
        path = self.out / "throughput.json"
        sizes = [self.config.recipe.image_size] if self.config.recipe.image_size else SIZES
        command = python("train.pipeline.throughput", "--backbone", self.start, "--json", path, "--sizes", *sizes)
        self.workshop.run("recipe", [*shlex.split(self.config.launcher), *command])
        measured = json.loads(path.read_bytes())["seconds_per_photo"]
        fastest = min(measured, key=lambda one: sum(measured[one].values()))
        precision: str = self.config.recipe.precision or fastest
        return {int(size): seconds for size, seconds in measured[precision].items()}, precision

    def teacher(self, steps: Steps) -> Model:
        """Published weights, fine-tuned."""
        recipe = steps.recipe
        settings = steps.settings(epochs=recipe.epochs, eval_size=None, lr=recipe.lr)
        settings["model"] = {
            "backbone": self.start,
            "pretrained": True,
            "head": {"kind": "multi-fc"},
            "lr_multipliers": {"backbone": 0.2},
        }
        what = f"{self.config.start} from its published weights, {recipe.epochs} epochs at {recipe.image_size} pixels"
        return steps.train("teacher", settings, what=what)

    def size(self, steps: Steps, teacher: Model) -> int:
        """The size at which the network is asked, in pixels: of those that are as good as the best, the smallest."""
        if self.config.recipe.eval_size is not None:
            return self.config.recipe.eval_size
        found = steps.top1("size", teacher, sizes=sizes_to_ask(steps.recipe.image_size))
        means = {size: sum(tasks.values()) / len(tasks) for size, tasks in found.items()}
        chosen = min(size for size, mean in means.items() if mean >= max(means.values()) - _AS_GOOD)
        asked = ", ".join(f"{size}: {100 * mean:.1f} %" for size, mean in means.items())
        self.workshop.tell(f"size: {chosen} pixels (mean top-1 on val at {asked})")
        return chosen

    def exported(self, shards: Mapping[str, Any], model: Model, eval_size: int) -> dict[str, Any]:
        """{"folder", "bytes" of the int8 file}."""
        folder = self.out / "exported"

        def work() -> dict[str, Any]:
            command = ["--model", model["model"], "--out", folder, "--int8", "--calibrate", shards["train"]]
            command += ["--data", shards["val"], "--image-size", eval_size]
            self.workshop.run("exported", python("models.export", *command))
            files = self.workshop.digest("exported/model.int8.onnx")
            return {"folder": str(folder), "bytes": (folder / "model.int8.onnx").stat().st_size, "files": files}

        inputs = {"model": model["files"], "data": shards.get("files", shards.get("fingerprint")), "size": eval_size}
        exported = self.workshop.stage("exported", what="int8 for the phone", inputs=inputs, work=work)
        wanted = self.config.budget.max_bytes
        if wanted is not None and exported["bytes"] > amount(wanted):
            self.workshop.tell(
                f"exported: its {exported['bytes']:,} bytes are more than --max-bytes {wanted}; say a little less, and "
                "the last round is done again"
            )
        return exported

    def report(self, student: MadeStudent, exported: Mapping[str, Any]) -> None:
        """One page about all of it."""
        page = self.out / "report.html"
        runs = [str(Path(model["model"]).parent) for model in student.rounds]

        def work() -> dict[str, Any]:
            self.workshop.run("report.html", python("train.report", *runs, exported["folder"], "--out", page))
            return {"files": self.workshop.digest("report.html")}

        inputs = {"models": [model["files"] for model in student.rounds], "exported": exported["files"]}
        self.workshop.stage("report.html", what="one page about all of it", inputs=inputs, work=work)

    @property
    def start(self) -> str:
        """The name of the network with published weights."""
        return STARTS.get(self.config.start, self.config.start)

    def _stored_side(self) -> int:
        if self.config.build.resize is not None:
            return self.config.build.resize
        return round(1.6 * (self.config.recipe.image_size or min(192, max(SIZES[0], self.photos.side))))
