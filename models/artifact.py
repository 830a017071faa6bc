"""A trained model on disk: `model.safetensors` beside a `model.json` that says how to rebuild and use it.

`student, meta = load_artifact("runs/attributes/best")`
"""

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from data.files import settle_if_allowed, sha256_of, staged, write_atomically
from data.sealed_json import BrokenSeal, finite_or_null, open_sealed, seal
from models.errors import ModelError
from models.model_path import META_NAME as META_NAME
from models.model_path import require_models
from models.student import Student, build_student

FORMAT = "slimheads-model/1"
WEIGHTS_NAME = "model.safetensors"
PREPROCESSING_KEYS = ("mean", "std", "train_size", "eval_size")
_WEIGHTS = "weights"  # the weights themselves show whether this entry of the JSON is right


@dataclass(frozen=True)
class ArtifactMeta:
    """What `model.json` holds.

    path: the folder. architecture: arguments of `build_student`. tasks: class names in label order. class_values: of
    the ordered tasks, where each class stands on the scale that errors are counted on. preprocessing: mean and std of
    RGB pixels in 0..1, train_size and eval_size in pixels. ema: the weights are a moving average. sha256: of
    `model.safetensors`. temperatures: of the calibrated tasks, what their logits are divided by where probabilities
    are made of them. thresholds: of some tasks, the probability below which an answer is withheld.
    """

    path: Path
    architecture: dict[str, Any]
    tasks: dict[str, tuple[str, ...]]
    class_values: dict[str, tuple[float, ...]]
    preprocessing: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    ema: bool
    num_parameters: int
    sha256: str
    temperatures: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    def value_of_class(self, task: str) -> dict[str, float]:
        """Class name -> value of an ordered task; {} of another one, or where the model has no such task."""
        return dict(zip(self.tasks.get(task, ()), self.class_values.get(task, ()), strict=False))


def save_artifact(
    model: Student,
    directory: str | Path,
    *,
    tasks: Mapping[str, Sequence[str]],
    preprocessing: Mapping[str, Any],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    ema: bool,
    class_values: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """Write the model and return the path of its `model.json`.

    At every moment an earlier model in the folder is whole, or this one is; the JSON holds the weights' hash. Numbers
    that are not finite (a metric without samples) become null. class_values: of the ordered tasks, as ArtifactMeta has
    them.
    """
    contents = artifact_files(
        model,
        tasks=tasks,
        preprocessing=preprocessing,
        metrics=metrics,
        provenance=provenance,
        ema=ema,
        class_values=class_values,
    )
    directory = Path(directory)
    with staged(directory) as stage:
        for name, content in contents.items():
            (stage / name).write_bytes(content)
    return directory / META_NAME


def artifact_files(
    model: Student,
    *,
    tasks: Mapping[str, Sequence[str]],
    preprocessing: Mapping[str, Any],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    ema: bool,
    class_values: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, bytes]:
    """The files that `save_artifact` writes, for folders that hold more than a model."""
    _require_same_tasks(model, tasks)
    values = _checked_values(class_values or {}, tasks)
    if set(preprocessing) != set(PREPROCESSING_KEYS):
        raise ModelError(f"preprocessing has keys {sorted(preprocessing)}; it needs {', '.join(PREPROCESSING_KEYS)}")
    weights = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    )
    # Tasks are a list because their order is the order of the split logits.
    architecture = {key: value for key, value in model.architecture.items() if key != "tasks"}
    meta = {
        "format": FORMAT,
        **architecture,
        "tasks": [
            {"name": task, "classes": list(tasks[task])}
            | ({"class_values": list(values[task])} if task in values else {})
            for task in model.tasks
        ],
        "preprocessing": dict(preprocessing),
        "metrics": finite_or_null(metrics),
        "provenance": finite_or_null(provenance),
        "ema": ema,
        "num_parameters": model.num_parameters,
        _WEIGHTS: {"file": WEIGHTS_NAME, "bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
    }
    return {WEIGHTS_NAME: weights, META_NAME: seal(meta, indent=2, apart=_WEIGHTS)}


def load_artifact(path: str | Path) -> tuple[Student, ArtifactMeta]:
    """The model, in eval mode on the CPU, and what is known about it.

    path: the folder or its `model.json`. Missing, cut, changed or newer files raise ModelError naming the file.
    """
    meta = load_artifact_meta(path)
    weights_path = meta.path / WEIGHTS_NAME
    try:
        content = weights_path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{weights_path}: cannot be read ({error.strerror}); a model is a folder with {META_NAME} and "
            f"{WEIGHTS_NAME} (an export alone cannot be trained, pruned or exported: name the model it was made from)"
        ) from error
    if hashlib.sha256(content).hexdigest() != meta.sha256:
        if load_artifact_meta(path).sha256 != meta.sha256:  # saved anew between the two reads
            return load_artifact(path)
        raise ModelError(
            f"{weights_path}: its {len(content)} bytes are not the ones that {META_NAME} beside it was written for "
            "(cut, changed or from another save); take the folder from its source again"
        )
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ModelError(f"{weights_path}: not a safetensors file ({error})") from error
    try:
        model = build_student(**meta.architecture)
        model.load_state_dict(tensors)
    except (ModelError, TypeError) as error:
        raise ModelError(f"{meta.path / META_NAME}: cannot build this network: {error}") from error
    except RuntimeError as error:
        raise ModelError(f"{weights_path}: the tensors do not fit the network in {META_NAME}: {error}") from error
    return model.eval(), meta


def load_artifact_meta(path: str | Path) -> ArtifactMeta:
    """What `model.json` says, without reading the weights. path: the folder or its `model.json`."""
    path = Path(path)
    require_models(path)
    file = path / META_NAME if path.is_dir() else path
    settle_if_allowed(file.parent)
    try:
        meta = open_sealed(file.read_bytes(), name=str(file), apart=_WEIGHTS)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); a model is a folder with {META_NAME}") from error
    except BrokenSeal as error:
        raise ModelError(str(error)) from error
    except ValueError as error:
        raise ModelError(f"{file}: not JSON, or cut ({error})") from error
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise ModelError(f"{file}: its format is {found!r}, this version reads {FORMAT!r}")
    try:
        tasks = {task["name"]: tuple(task["classes"]) for task in meta["tasks"]}
        if missing := [key for key in PREPROCESSING_KEYS if key not in meta["preprocessing"]]:
            raise ModelError(f"{file}: the key 'preprocessing.{missing[0]}' is missing")
        return ArtifactMeta(
            path=file.parent,
            architecture={
                "backbone": meta["backbone"],
                "head": meta["head"],
                "tasks": {task: len(classes) for task, classes in tasks.items()},
                "widths": meta["widths"],
                "drop_rate": meta["drop_rate"],
                "drop_path_rate": meta["drop_path_rate"],
            },
            tasks=tasks,
            class_values=_checked_values(
                {task["name"]: task["class_values"] for task in meta["tasks"] if "class_values" in task},
                tasks,
                where=f"{file}: ",
            ),
            preprocessing=meta["preprocessing"],
            metrics=meta["metrics"],
            provenance=meta["provenance"],
            ema=meta["ema"],
            num_parameters=meta["num_parameters"],
            sha256=meta[_WEIGHTS]["sha256"],
            temperatures=_calibration(meta["tasks"], "temperature", most=math.inf, where=f"{file}: "),
            thresholds=_calibration(meta["tasks"], "threshold", most=1.0, where=f"{file}: "),
        )
    except KeyError as error:
        raise ModelError(f"{file}: the key {error} is missing") from error
    except TypeError as error:
        raise ModelError(f"{file}: a value is of the wrong type ({error})") from error


def save_calibration(
    meta: ArtifactMeta,
    out: Path,
    *,
    temperatures: Mapping[str, float],
    thresholds: Mapping[str, float],
    calibration: Mapping[str, Any],
) -> Path:
    """The model of `meta` with these temperatures and thresholds instead of those that it had; the path of the written
    `model.json`. calibration: how they came about, kept beside them.

    The weights stay as they are: where `out` is the model's own folder its `model.json` alone is replaced, elsewhere
    they are copied. ModelError where the weights are no longer those of `meta`.
    """
    file = meta.path / META_NAME
    content = open_sealed(file.read_bytes(), name=str(file), apart=_WEIGHTS)
    if content[_WEIGHTS]["sha256"] != meta.sha256:
        raise ModelError(f"{file}: was saved anew meanwhile; calibrate that model")
    for entry in content["tasks"]:
        for key, values in {"temperature": temperatures, "threshold": thresholds}.items():
            entry.pop(key, None)
            if entry["name"] in values:
                entry[key] = values[entry["name"]]
    content["calibration"] = finite_or_null(calibration)
    for key, most in {"temperature": math.inf, "threshold": 1.0}.items():
        _calibration(content["tasks"], key, most=most)
    sealed = seal(content, indent=2, apart=_WEIGHTS)
    if out.resolve() == meta.path.resolve():
        write_atomically(file, sealed)
        return file
    with staged(out) as stage:
        shutil.copyfile(meta.path / WEIGHTS_NAME, stage / WEIGHTS_NAME)
        if sha256_of(stage / WEIGHTS_NAME) != meta.sha256:
            raise ModelError(f"{meta.path / WEIGHTS_NAME}: was saved anew meanwhile; calibrate that model")
        (stage / META_NAME).write_bytes(sealed)
    return out / META_NAME


def _calibration(tasks: Sequence[Mapping[str, Any]], key: str, *, most: float, where: str = "") -> dict[str, float]:
    """Task -> value, of the tasks that have the key. most: the largest that is allowed."""
    found = {task["name"]: task[key] for task in tasks if key in task}
    for task, value in found.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not 0 < value <= most:
            limit = "" if math.isinf(most) else f" and at most {most:g}"
            raise ModelError(f"{where}task {task!r}: {key} is {value!r}; it must be a number above 0{limit}")
    return {task: float(value) for task, value in found.items()}


def _require_same_tasks(model: Student, tasks: Mapping[str, Sequence[str]]) -> None:
    if list(tasks) != list(model.tasks):
        raise ModelError(f"class names are given for tasks {list(tasks)}, but the model has {list(model.tasks)}")
    for task, classes in tasks.items():
        if len(classes) != model.tasks[task]:
            raise ModelError(f"task {task!r}: {len(classes)} class names for {model.tasks[task]} classes")


def _checked_values(
    class_values: Mapping[str, Sequence[float]], tasks: Mapping[str, Sequence[str]], *, where: str = ""
) -> dict[str, tuple[float, ...]]:
    for task, values in class_values.items():
        if len(values) != len(tasks[task]) or not all(map(math.isfinite, values)):
            raise ModelError(f"{where}task {task!r}: class_values needs a finite number for each class")
    return {task: tuple(map(float, values)) for task, values in class_values.items()}
