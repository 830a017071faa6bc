"""Every YAML under train/configs loads strictly, builds the model it promises, and opens with the command to run it."""

import re
from pathlib import Path

import pytest
import torch

from data.index import Index, Shard
from models.artifact import save_artifact
from models.student import Student
from train.config.loading import load_config
from train.config.schema import Config
from train.losses.objective import LOSSES
from train.optim.schedule import weight_ramp
from train.setup.data import operations
from train.setup.distillation import build_distillation
from train.setup.model import build_model
from train.setup.optimizer import learning_rate, optimizer_from

REPOSITORY = Path(__file__).resolve().parents[3]
ROOT = REPOSITORY / "train" / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))

# Tasks of the data that each folder of configs is for; food-11, CIFAR-10 and the solar cells fix their class counts.
TASKS = {
    "food11": {"class": 11},
    "food11_compress": {"class": 11},
    "cifar10": {"class": 10},
    "grocery": {"super": 3, "coarse": 43, "fine": 81},
    "solar": {"level": 4, "type": 2, "functional": 2},
    "attributes": {"gender": 2, "age": 5, "beauty": 5},
}
# Parameters of the networks as they were published or counted by others.
PARAMETERS = {
    "food11/level1_simple": 99_060,
    "food11/level2_distilled": 99_060,
    "food11/level3_hints": 99_060,
    "food11/level4_ensemble": 99_060,
    "food11/teacher_resnet18": 11_182_155,
    "food11_compress/big": 1_615_627,
    "food11_compress/low_rank": 256_779,
    "food11_compress/low_rank_from_weak": 256_779,
    "food11_compress/low_rank_from_strong": 256_779,
    "food11_compress/depthwise_distilled": 224_011,
    "food11_compress/depthwise": 224_011,
    "food11_compress/standard": 277_611,
    "food11_compress/grouped": 236_571,
    "cifar10/teacher": 1_186_986,
    "cifar10/student": 267_738,
    "cifar10/soft_targets": 267_738,
    "cifar10/cosine": 267_738,
    "cifar10/regressor": 267_738,
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def tasks_of(path: Path) -> dict[str, int]:
    folder = path.parent.name if path.parent.name in TASKS else path.stem.partition("_")[0]  # slimming/grocery_sparse
    return TASKS[folder]


def index_of(path: Path) -> Index:
    tasks = {task: tuple(f"class {number}" for number in range(count)) for task, count in tasks_of(path).items()}
    return Index("nowhere", tasks, (Shard("000000.tar", 1, 1, "", 0),))


def built(path: Path) -> tuple[Config, Student]:
    config = load_config(path)
    return config, build_model(config, index_of(path), tasks_of(path))


def opening(path: Path) -> str:
    lines = path.read_text().splitlines()
    comments = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:comments])


def plain_training(path: Path) -> bool:
    """No saved model is needed, and nothing is downloaded."""
    return "artifact:" not in path.read_text() and "pretrained: true" not in path.read_text()


@pytest.mark.parametrize("path", [path for path in CONFIGS if plain_training(path)], ids=name_of)
def test_a_config_builds_its_model_optimizer_and_schedule(path: Path) -> None:
    config, model = built(path)
    if name_of(path) in PARAMETERS:
        assert model.num_parameters == PARAMETERS[name_of(path)]
    assert set(config.tasks or tasks_of(path)) == set(tasks_of(path))
    optimizer = optimizer_from(config, model, torch.nn.ModuleList())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    rates = [learning_rate(config, 10)(step) for step in range(10 * config.schedule.epochs)]
    assert max(rates) == pytest.approx(config.optimizer.lr)
    assert min(rates) >= 0
    operations(config.augment)
    assert all(task.loss in LOSSES for task in (config.tasks or {}).values())


SMALL = [path for path in CONFIGS if name_of(path) in PARAMETERS and "resnet" not in name_of(path)]


@pytest.mark.parametrize("path", SMALL, ids=name_of)
def test_a_small_network_runs_on_the_image_sizes_of_its_config(path: Path) -> None:
    config, model = built(path)
    model.eval()
    for size in {config.data.image_size, config.data.eval_size or config.data.image_size}:
        with torch.inference_mode():
            logits = model(torch.zeros(1, 3, size, size))
        assert {task: tuple(values.shape) for task, values in logits.items()} == {
            task: (1, count) for task, count in tasks_of(path).items()
        }


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_opens_with_its_command_and_writes_where_no_other_does(path: Path) -> None:
    assert f"--config {path.relative_to(REPOSITORY)}" in opening(path)
    folder = load_config(path).run.dir
    assert [name_of(other) for other in CONFIGS if load_config(other).run.dir == folder] == [name_of(path)]


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name != "solar"], ids=name_of)
def test_a_config_says_how_its_shards_are_built(path: Path) -> None:
    command = re.search(r"python -m data\.build --source \S+ --out (\S+)", opening(path))
    assert command is not None
    assert load_config(path).data.train.startswith(f"{command[1]}/")


@pytest.mark.parametrize("path", sorted((ROOT / "food11").glob("level*.yaml")), ids=name_of)
def test_the_small_food11_students_stay_under_their_limit(path: Path) -> None:
    config, model = built(path)
    assert config.model.max_params == 100_000
    assert model.num_parameters < 100_000
    assert "recipe figures of the food-11 course" in opening(path).replace("\n#  ", "")


def test_every_named_parameter_count_belongs_to_a_config() -> None:
    assert set(PARAMETERS) <= {name_of(path) for path in CONFIGS}


def test_recipe_a_has_its_six_shapes_with_their_backbones_and_schedule() -> None:
    shapes = {path.stem: load_config(path) for path in (ROOT / "attributes").glob("*.yaml")}
    plain = {name: (shapes[name].model.head.kind, shapes[name].model.backbone) for name in shapes}
    others = {"production", "resnest50", "distilled", "distilled_224_224", "distilled_192_224"}
    assert {name: pair for name, pair in plain.items() if name not in others} == {
        "single_conv": ("single-conv", "mobilenetv2_100"),
        "single_shuffle_conv": ("single-shuffle-conv", "mobilenetv2_100"),
        "multi_fc": ("multi-fc", "mobilenetv2_100"),
        "multi_se": ("multi-se", "mobilenetv2_100"),
        "multi_shared_fc": ("multi-shared-fc", "mobilenetv2_050"),
        "multi_embedding": ("multi-embedding", "mobilenetv2_050"),
    }
    assert plain["production"] == ("multi-embedding", "mobilenetv2_050")
    assert plain["resnest50"] == ("multi-embedding", "resnest50d")
    sizes = {name: (config.data.image_size, config.data.eval_size) for name, config in shapes.items()}
    assert {name: pair for name, pair in sizes.items() if pair != (224, 256)} == {
        "distilled_224_224": (224, 224),
        "distilled_192_224": (192, 224),
    }
    for config in shapes.values():
        assert (config.schedule.epochs, config.schedule.warmup_epochs, config.schedule.decay) == (60, 5, "cosine")
        assert config.optimizer.kind == "sgd"


TAUGHT = [path for path in CONFIGS if load_config(path).teacher is not None and plain_training(path)]


@pytest.mark.parametrize("path", TAUGHT, ids=name_of)
def test_a_teacher_is_trained_by_another_config_and_its_lessons_fit(path: Path, tmp_path: Path) -> None:
    """The teacher's own file says what it is; with random weights every loss term and hint can be built."""
    settings = load_config(path).teacher
    assert settings is not None
    source = next(other for other in CONFIGS if f"{load_config(other).run.dir}/best" == settings.model)
    config = load_config(source, ["model.pretrained=false"])
    index = index_of(path)
    save_artifact(
        build_model(config, index, tasks_of(path)),
        tmp_path / "teacher",
        tasks=index.tasks,
        preprocessing={"mean": [0.5] * 3, "std": [0.2] * 3, "train_size": 224, "eval_size": 224},
        metrics={},
        provenance={},
        ema=False,
    )
    config = load_config(path, [f"teacher.model={tmp_path / 'teacher'}", "teacher.cache=null"])
    assert config.teacher is not None
    student = build_model(config, index, tasks_of(path))
    distillation = build_distillation(
        config, index, student, tasks=tasks_of(path), steps_per_epoch=10, device=torch.device("cpu")
    )
    is_taught = 0 if config.teacher.weight == 0 else len(tasks_of(path))
    assert len(distillation.terms) == is_taught + len(config.teacher.hints)


def test_recipe_b_weighs_its_terms_as_published() -> None:
    config = load_config(ROOT / "food11" / "level3_hints.yaml")
    assert config.teacher is not None
    assert (config.teacher.alpha, config.teacher.temperature, config.tasks["class"].weight) == (0.5, 1.0, 10.0)
    assert [(hint.kind, hint.weight) for hint in config.teacher.hints] == [("smooth-l1", 1.0)] * 3
    last = weight_ramp(299 * 7, steps_per_epoch=7, epochs=300, power=config.tasks["class"].ramp)
    middle = weight_ramp(150 * 7 + 6, steps_per_epoch=7, epochs=300, power=config.tasks["class"].ramp)
    assert (last, middle) == (1.0, pytest.approx((150 / 299) ** 2))


def test_recipe_d_has_its_four_alternatives() -> None:
    runs = {path.stem: load_config(path) for path in (ROOT / "cifar10").glob("*.yaml")}
    assert set(runs) == {"teacher", "student", "soft_targets", "cosine", "regressor"}
    for config in runs.values():
        assert (config.optimizer.kind, config.optimizer.lr, config.batch_size, config.schedule.epochs) == (
            "adam",
            1e-3,
            128,
            10,
        )
        assert config.seed == 42
    soft = runs["soft_targets"].teacher
    assert soft is not None
    assert (soft.alpha, soft.temperature, soft.loss) == (0.25, 2.0, "kl")
    for name, kind in (("cosine", "cosine"), ("regressor", "mse")):
        teacher = runs[name].teacher
        assert teacher is not None
        assert runs[name].tasks["class"].weight == 0.75
        assert [(hint.kind, hint.weight) for hint in teacher.hints] == [(kind, 0.25)]
