"""The stages from photos to a phone: shards, recipe, teacher, size, student, tuned, exported, report.html.

run_chain(config, Workshop(Path("phone")))

Every stage is one of our commands, in a process of its own; training goes through the launcher.
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from data.files import write_atomically
from data.index import INDEX_NAME, load_index
from train.errors import ConfigError
from train.pipeline.config import STARTS, Budget, PipelineConfig
from train.pipeline.photos import Photos
from train.pipeline.progress import TrainingProgress
from train.pipeline.recipe import DEFAULT_SHARE, SIZES, Recipe, choose_recipe, round_shares, sizes_to_ask
from train.pipeline.workshop import Workshop, python

_CONFIGS = "configs"  # in the output folder: what each training was told
_SCORE = ("--score", "taylor", "--max-layer-ratio", "0.65")
_RECALIBRATE = 16  # batches
_MOST_ROUNDS = 8
_SMALLER = 0.6  # of the MACs that a round keeps where accuracy decides
_MODEL_FILES = ("model.safetensors", "model.json")


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
        recipe = self.recipe(shards)
        teacher = self.teacher(shards, recipe)
        eval_size = self.size(shards, recipe, teacher)
        tuned = self.student(shards, recipe, teacher, eval_size)
        exported = self.exported(shards, tuned, eval_size)
        self.report(teacher, tuned, exported)

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
        share = num_photos * seconds[min(seconds, key=lambda size: abs(size - recipe.image_size))] / 60
        asked = ", ".join(map(str, sizes_to_ask(recipe.image_size)))
        limits = " ".join(_budget_words(self.config.budget)) or f"{100 * DEFAULT_SHARE:g} % of the multiply-accumulates"
        lines = [
            f"shards       {self.photos.count:,} photos, short side at most {self._stored_side()} pixels",
            f"recipe       {recipe.image_size} pixels, batches of {recipe.batch_size}, learning rate {recipe.lr:g}, "
            f"{recipe.precision}",
            f"teacher      {self.config.start}, {recipe.epochs} epochs: about {recipe.epochs * share:.0f} minutes",
            f"size         asked at {asked} pixels, the best on val is kept",
        ]
        if self.config.student == "pruned":
            lines.append(f"student      pruned in rounds to {limits}; {recipe.round_epochs} epochs after each")
            lines.append(
                f"tuned        {recipe.tune_epochs} epochs: about {0.4 * recipe.tune_epochs * share:.0f} minutes"
            )
        else:
            lines.append(f"tuned        {self.config.student} learns from the teacher, {2 * recipe.epochs} epochs")
        return [
            *lines,
            "exported     int8, with its accuracy on val",
            "report.html  one page about all of it",
            f"all trainings: about {recipe.hours:.2f} hours here",
        ]

    # -- stages -------------------------------------------------------------------------------------------------------

    def shards(self) -> dict[str, Any]:
        """{"train", "val": folders, "files": index.json of both}."""
        if self.photos.are_shards:
            folder = Path(self.config.source)
            return {"train": str(folder / "train"), "val": str(folder / "val"), "fingerprint": self.photos.fingerprint}
        command = ["--source", self.config.source, "--out", str(self.out / "shards"), "--seed", str(self.config.seed)]
        command += ["--resize", str(self._stored_side()), *self.config.build.options]
        if not self.photos.publishes_val:
            command += ["--holdout", str(self.config.build.holdout)]
            command += [word for group in self.config.build.group for word in ("--group", group)]

        def work() -> dict[str, Any]:
            self.workshop.run("shards", python("data.build", *command))
            folders = {split: self.out / "shards" / split for split in ("train", "val")}
            if missing := [str(folder) for folder in folders.values() if not (folder / INDEX_NAME).is_file()]:
                raise ConfigError(f"{self.config.source}: gives no {missing[0]}; name a val split, or leave splits out")
            names = [f"shards/{split}/{INDEX_NAME}" for split in folders]
            return {**{split: str(folder) for split, folder in folders.items()}, "files": self.workshop.digest(*names)}

        what = f"{self.photos.count:,} photos, short side at most {self._stored_side()} pixels"
        inputs = {"command": [word for word in command if word != str(self.out / "shards")]}
        return self.workshop.stage("shards", what=what, inputs={**inputs, "photos": self.photos.fingerprint}, work=work)

    def recipe(self, shards: Mapping[str, Any]) -> Recipe:
        """Chosen once, from what was measured once."""
        num_photos = load_index(shards["train"]).num_samples

        def work() -> dict[str, Any]:
            seconds, precision = self.measure()
            chosen = choose_recipe(
                self.config.recipe,
                num_photos=num_photos,
                photo_side=self.photos.side,
                seconds=seconds,
                precision=precision,
                rounds=2,
            )
            return asdict(chosen)

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
        self.workshop.run("recipe", [*self._launcher(), *command])
        measured = json.loads(path.read_bytes())["seconds_per_photo"]
        fastest = min(measured, key=lambda one: sum(measured[one].values()))
        precision: str = self.config.recipe.precision or fastest
        return {int(size): seconds for size, seconds in measured[precision].items()}, precision

    def teacher(self, shards: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
        """Published weights, fine-tuned: {"model": folder, "top1": by task}."""
        settings = self._settings(shards, recipe, epochs=recipe.epochs, eval_size=None)
        settings["model"] = {
            "backbone": self.start,
            "pretrained": True,
            "head": {"kind": "multi-fc"},
            "lr_multipliers": {"backbone": 0.2},
        }
        settings["optimizer"]["lr"] = recipe.lr
        what = f"{self.config.start} from its published weights, {recipe.epochs} epochs at {recipe.image_size} pixels"
        return self._train("teacher", settings, what=what, given=shards)

    def size(self, shards: Mapping[str, Any], recipe: Recipe, teacher: Mapping[str, Any]) -> int:
        """The size at which the network is asked, in pixels."""
        if self.config.recipe.eval_size is not None:
            return self.config.recipe.eval_size

        def work() -> dict[str, Any]:
            means = {}
            for size in sizes_to_ask(recipe.image_size):
                means[str(size)] = self._evaluate("size", teacher["model"], shards["val"], size)["mean_top1"]
            # Of sizes that are alike the smallest, which costs least.
            best = max(means.values())
            chosen = next(int(size) for size, mean in means.items() if mean >= best - 0.002)
            return {"size": chosen, "mean_top1": means}

        inputs = {"teacher": teacher["files"], "sizes": sizes_to_ask(recipe.image_size)}
        found = self.workshop.stage("size", what="at which size is it asked?", inputs=inputs, work=work)
        asked = ", ".join(f"{size}: {100 * mean:.1f} %" for size, mean in found["mean_top1"].items())
        self.workshop.tell(f"size: {found['size']} pixels (mean top-1 on val at {asked})")
        return int(found["size"])

    def student(
        self, shards: Mapping[str, Any], recipe: Recipe, teacher: Mapping[str, Any], eval_size: int
    ) -> dict[str, Any]:
        """The network for the phone, trained: {"model": folder, "top1", "rounds": models of all rounds}."""
        if self.config.student != "pruned":
            return self._distil(shards, recipe, teacher, eval_size)
        if self.config.budget.max_points_lost is not None:
            return self._prune_while_it_keeps(shards, recipe, teacher, eval_size)
        goal = self._goal(teacher, eval_size)
        shares = round_shares(goal["share"])
        model, rounds = teacher, [teacher]
        for number, share in enumerate(shares, start=1):
            last = number == len(shares)
            limits = goal["words"] if last and goal["words"] else ["--max-macs", f"{100 * share:.4g}%"]
            pruned = self._prune(f"student/round{number}", shards, model, limits, eval_size)
            name = "tuned" if last else f"student/round{number}-tuned"
            epochs = recipe.tune_epochs if last else recipe.round_epochs
            model = self._tune(name, shards, recipe, pruned, epochs=epochs, eval_size=eval_size)
            rounds.append(model)
        return {**model, "rounds": [one["model"] for one in rounds]}

    def exported(self, shards: Mapping[str, Any], tuned: Mapping[str, Any], eval_size: int) -> dict[str, Any]:
        """{"folder", "bytes" of the int8 file}."""
        folder = self.out / "exported"

        def work() -> dict[str, Any]:
            command = ["--model", tuned["model"], "--out", folder, "--int8", "--calibrate", shards["train"]]
            command += ["--data", shards["val"], "--image-size", eval_size]
            self.workshop.run("exported", python("models.export", *command))
            size = (folder / "model.int8.onnx").stat().st_size
            files = self.workshop.digest("exported/model.int8.onnx", "exported/model.json")
            return {"folder": str(folder), "bytes": size, "files": files}

        inputs = {"model": tuned["files"], "val": self._digest_of(shards), "size": eval_size}
        exported = self.workshop.stage("exported", what="int8 for the phone", inputs=inputs, work=work)
        self._check_bytes(exported["bytes"])
        return exported

    def report(self, teacher: Mapping[str, Any], tuned: Mapping[str, Any], exported: Mapping[str, Any]) -> None:
        """One page about all of it."""
        page = self.out / "report.html"
        folders = [str(Path(model).parent) for model in [teacher["model"], *tuned["rounds"][1:]]]

        def work() -> dict[str, Any]:
            command = [*dict.fromkeys(folders), exported["folder"], "--out", page]
            self.workshop.run("report.html", python("train.report", *command))
            return {"files": self.workshop.digest("report.html")}

        inputs = {"teacher": teacher["files"], "tuned": tuned["files"], "exported": exported["files"]}
        self.workshop.stage("report.html", what="one page about all of it", inputs=inputs, work=work)

    # -- parts of stages ----------------------------------------------------------------------------------------------

    @property
    def start(self) -> str:
        """The name of the network with published weights."""
        return STARTS.get(self.config.start, self.config.start)

    def _stored_side(self) -> int:
        if self.config.build.resize is not None:
            return self.config.build.resize
        return round(1.6 * (self.config.recipe.image_size or min(192, max(SIZES[0], self.photos.side))))

    def _launcher(self) -> list[str]:
        return shlex.split(self.config.launcher)

    def _digest_of(self, shards: Mapping[str, Any]) -> Any:
        return shards.get("files", shards.get("fingerprint"))

    def _settings(
        self, shards: Mapping[str, Any], recipe: Recipe, *, epochs: int, eval_size: int | None
    ) -> dict[str, Any]:
        """What all trainings share."""
        data = {"train": shards["train"], "val": shards["val"], "image_size": recipe.image_size}
        if eval_size is not None:
            data["eval_size"] = eval_size
        return {
            "seed": self.config.seed,
            "data": data,
            "augment": {"policy": "strong", "crop_scale": [0.25, 1.0]},
            "optimizer": {"kind": "sgd", "momentum": 0.9, "weight_decay": 4e-5, "nesterov": True},
            "schedule": {"epochs": epochs, "warmup_epochs": min(1, epochs - 1), "decay": "cosine"},
            "batch_size": recipe.batch_size,
            "precision": recipe.precision,
            "tracking": {"wandb": {"mode": "disabled"}},
        }

    def _train(
        self, name: str, settings: dict[str, Any], *, what: str, given: Mapping[str, Any], models: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """A training as a stage; its model is that of the last epoch, which no validation photo has chosen."""
        run = self.out / name

        def work() -> dict[str, Any]:
            path = self.out / _CONFIGS / f"{name.replace('/', '-')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({"run": {"dir": str(run)}, **settings}, sort_keys=False)
            write_atomically(path, text.encode())
            command = [*self._launcher(), *python("train.main", "--config", path)]
            self.workshop.run(name, command, progress=TrainingProgress(name, run))
            metrics = json.loads((run / "result.json").read_bytes())["metrics"]
            files = self.workshop.digest(*(f"{name}/last/{file}" for file in _MODEL_FILES[:1]))
            return {"model": str(run / "last"), "metrics": metrics, "files": files}

        inputs = {"settings": settings, "data": self._digest_of(given), "models": list(models)}
        done = self.workshop.stage(name, what=what, inputs=inputs, work=work)
        self.workshop.tell(f"{name}: top-1 on val {_accuracies(done['metrics'])}")
        return done

    def _prune(
        self, name: str, shards: Mapping[str, Any], model: Mapping[str, Any], limits: Sequence[str], eval_size: int
    ) -> dict[str, Any]:
        folder = self.out / name

        def work() -> dict[str, Any]:
            command = ["--model", model["model"], "--out", folder, *limits, *_SCORE, "--data", shards["train"]]
            self.workshop.run(name, python("prune", *command, "--recalibrate", _RECALIBRATE))
            return {"model": str(folder), "files": self.workshop.digest(f"{name}/model.safetensors")}

        inputs = {"model": model["files"], "limits": list(limits), "size": eval_size}
        return self.workshop.stage(name, what=f"prune to {' '.join(limits)}", inputs=inputs, work=work)

    def _tune(
        self,
        name: str,
        shards: Mapping[str, Any],
        recipe: Recipe,
        pruned: Mapping[str, Any],
        *,
        epochs: int,
        eval_size: int,
    ) -> dict[str, Any]:
        settings = self._settings(shards, recipe, epochs=epochs, eval_size=eval_size)
        settings["model"] = {"artifact": pruned["model"]}
        settings["optimizer"]["lr"] = recipe.tune_lr
        return self._train(name, settings, what=f"fine-tune, {epochs} epochs", given=shards, models=[pruned["files"]])

    def _distil(
        self, shards: Mapping[str, Any], recipe: Recipe, teacher: Mapping[str, Any], eval_size: int
    ) -> dict[str, Any]:
        settings = self._settings(shards, recipe, epochs=2 * recipe.epochs, eval_size=eval_size)
        settings["model"] = {"backbone": self.config.student, "head": {"kind": "multi-fc"}}
        settings["teacher"] = {"model": teacher["model"], "temperature": 5.0, "weight": 0.2}
        settings["optimizer"]["lr"] = recipe.lr
        what = f"{self.config.student} learns from the teacher, {2 * recipe.epochs} epochs"
        tuned = self._train("tuned", settings, what=what, given=shards, models=[teacher["files"]])
        return {**tuned, "rounds": [teacher["model"], tuned["model"]]}

    def _goal(self, teacher: Mapping[str, Any], eval_size: int) -> dict[str, Any]:
        """{"share": of the teacher's MACs that the budget leaves, "words": its limits in absolute numbers as options of
        prune, none where the share says it all}."""
        words = _budget_words(self.config.budget)
        if not words:
            return {"words": [], "share": DEFAULT_SHARE}
        name = "student/probe"

        def work() -> dict[str, Any]:
            command = ["--model", teacher["model"], "--out", self.out / name, *words, "--score", "l2"]
            self.workshop.run(name, python("prune", *command))
            record = json.loads((self.out / name / "prune.json").read_bytes())
            before = {kind: record[kind]["before"] for kind in ("macs", "parameters")}
            share = record["macs"]["after"] / before["macs"]
            absolute = [_absolute(option, value, before) for option, value in zip(words[::2], words[1::2], strict=True)]
            return {"share": share, "words": [word for pair in absolute for word in pair]}

        inputs = {"teacher": teacher["files"], "words": words, "size": eval_size}
        return self.workshop.stage(name, what=f"what {' '.join(words)} leaves", inputs=inputs, work=work)

    def _prune_while_it_keeps(
        self, shards: Mapping[str, Any], recipe: Recipe, teacher: Mapping[str, Any], eval_size: int
    ) -> dict[str, Any]:
        """Rounds until a task loses more than is allowed; the smallest network that kept it."""
        allowed = self.config.budget.max_points_lost
        assert allowed is not None
        before = self._top1(teacher, shards, eval_size, name="teacher")
        model, rounds, kept = teacher, [teacher], teacher
        for number in range(1, _MOST_ROUNDS + 1):
            name = f"student/round{number}"
            pruned = self._prune(name, shards, model, ["--max-macs", f"{100 * _SMALLER:g}%"], eval_size)
            model = self._tune(f"{name}-tuned", shards, recipe, pruned, epochs=recipe.tune_epochs, eval_size=eval_size)
            rounds.append(model)
            now = self._top1(model, shards, eval_size, name=f"{name}-tuned")
            lost = {task: 100 * (before[task] - top1) for task, top1 in now.items()}
            worst = max(lost, key=lambda task: lost[task])
            self.workshop.tell(f"{name}: task {worst!r} lost most, {lost[worst]:.1f} points of {allowed:g} allowed")
            if lost[worst] > allowed:
                break
            kept = model
        if kept is teacher:
            self.workshop.tell(f"student: no round keeps every task within {allowed:g} points; the teacher is exported")
        return {**kept, "rounds": [one["model"] for one in rounds]}

    def _top1(self, model: Mapping[str, Any], shards: Mapping[str, Any], size: int, *, name: str) -> dict[str, float]:
        """task -> top-1 on val at the size at which the network will be asked; measured once."""
        stage = f"student/measured-{name.replace('/', '-')}"

        def work() -> dict[str, Any]:
            tasks = self._evaluate(stage, model["model"], shards["val"], size)["tasks"]
            return {"top1": {task: report["top1"] for task, report in tasks.items()}}

        inputs = {"model": model["files"], "size": size}
        top1: dict[str, float] = self.workshop.stage(stage, what="measure", inputs=inputs, work=work)["top1"]
        return top1

    def _evaluate(self, stage: str, model: str, data: str, size: int) -> dict[str, Any]:
        path = self.out / ".pipeline" / f"{stage.replace('/', '-')}-{size}.json.tmp"
        command = python("train.evaluate", "--model", model, "--data", data, "--image-size", size, "--json", path)
        self.workshop.run(stage, command)
        result: dict[str, Any] = json.loads(path.read_bytes())
        os.unlink(path)
        return result

    def _check_bytes(self, found: int) -> None:
        if (wanted := self.config.budget.max_bytes) is not None and found > amount(wanted):
            self.workshop.tell(
                f"exported: {found:,} bytes are more than --max-bytes {wanted}; say a little less, and the last round "
                "is done again"
            )


def amount(text: str | int) -> float:
    """`500K` -> 500000."""
    text = str(text)
    return float(text.rstrip("KMG")) * {"K": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)


def _budget_words(budget: Budget) -> list[str]:
    given = {
        "--max-bytes": budget.max_bytes,
        "--max-macs": budget.max_macs,
        "--max-params": budget.max_params,
        "--max-latency-ms": budget.max_latency_ms,
    }
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    if budget.max_latency_ms is not None:
        words += ["--threads", str(budget.threads)]
    return words


def _absolute(option: str, value: str, before: Mapping[str, Any]) -> tuple[str, str]:
    """A share of what the teacher has, as a number: the rounds see smaller networks."""
    kinds = {"--max-macs": "macs", "--max-params": "parameters"}
    if not value.endswith("%"):
        return option, value
    return option, str(int(float(value.rstrip("%")) / 100 * before[kinds[option]]))


def _accuracies(metrics: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.removesuffix('.top1')} {100 * value:.1f} %" for name, value in metrics.items() if name.endswith(".top1")
    )
