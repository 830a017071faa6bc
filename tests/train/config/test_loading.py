"""The config is one strict YAML: what is mistyped is named, with its line and the nearest valid key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from train.config.base import sections
from train.config.key_hints import ALIASES, all_keys
from train.config.loading import load_config, parse_config
from train.config.schema import Config, describe
from train.errors import ConfigError

SMALLEST = """\
run: {dir: runs/a}
data:
  train: shards/train
model:
  backbone: resnet18
"""

# Every key that the smallest config leaves out. A changed default changes what people's configs mean.
DEFAULTS = {
    "run": {"dir": "runs/a", "resume": "auto", "allow_changes": False},
    "seed": 0,
    "data": {
        "train": "shards/train",
        "val": None,
        "image_size": 224,
        "eval_size": None,
        "block": 262144,
        "lanes": 1024,
        "window": 256,
        "workers": "auto",
        "cache": {"dir": None, "max_gigabytes": 50.0},
        "max_bad_share": 0.001,
        "max_pixels": 64_000_000,
    },
    "augment": {
        "policy": "standard",
        "seed": 0,
        "views": 0,
        **dict.fromkeys(
            ["crop_scale", "crop_ratio", "flip", "rotate", "brightness", "contrast", "saturation", "erase"]
        ),
    },
    "tasks": None,
    "teacher": None,
    "model": {
        "backbone": "resnet18",
        "artifact": None,
        "fresh_weights": False,
        "head": {
            "kind": "multi-fc",
            **dict.fromkeys(["width", "kernel", "groups", "reduction", "activation", "dropout"]),
        },
        "pretrained": False,
        "max_params": None,
        "drop_path": 0.0,
        "freeze": [],
        "lr_multipliers": {},
    },
    "optimizer": {
        "kind": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "betas": [0.9, 0.999],
        "weight_decay": 4.0e-5,
        "decay_norms_and_biases": True,
        "clip_norm": None,
    },
    "schedule": {
        "epochs": 60,
        "warmup_epochs": 5,
        "warmup_factor": 0.1,
        "decay": "cosine",
        "final_factor": 0.0,
        "milestones": [],
        "gamma": 0.1,
        "patience": None,
    },
    "batch_size": 256,
    "micro_batch": None,
    "precision": "fp32",
    "device": "auto",
    "deterministic": True,
    "sparsity": None,
    "ema": None,
    "checkpoint": {"every_steps": 500, "every_epochs": 1, "keep": 2, "monitor": "mean_top1"},
    "elastic": None,
    "tracking": {
        "wandb": {"mode": "offline", "project": "slimheads", "name": None},
        "tensorboard": False,
        "log_every": 20,
        "evaluate_every": 1,
    },
    "watchdog_seconds": 600.0,
    "trace_samples": False,
}


def error_of(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, name="run.yaml")
    return str(caught.value)


NOT_FINITE = [
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "schedule.warmup_epochs",
    "watchdog_seconds",
    "data.cache.max_gigabytes",
    "augment.rotate",
    "tasks.age.weight",
    "tasks.age.focal_gamma",
    "sparsity.strength",
]


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "inf", "nan", "1e999"])
def test_what_is_not_finite_is_no_number(value: str) -> None:
    for key in NOT_FINITE:
        assert f": {key}: Input should be a" in error_of(SMALLEST, f"{key}={value}"), key
    inside = {
        "optimizer.betas": f"[0.9, {value}]",
        "schedule": f"{{decay: steps, milestones: [{value}]}}",
        "model.lr_multipliers": f"{{heads: {value}}}",
        "teacher": f"{{model: a, temperature: {{age: {value}}}}}",
        "tasks.age.class_weights": f"[1, {value}]",
        "augment.crop_ratio": f"[1, {value}]",
    }
    for key, text in inside.items():
        assert f": {key}" in error_of(SMALLEST, f"{key}={text}"), key
    assert "run.yaml:7: optimizer.lr: Input should be a" in error_of(f"{SMALLEST}optimizer:\n  lr: {value}\n")


def test_every_part_of_the_config_refuses_what_is_not_finite() -> None:
    parts = list(section_classes())
    assert len(parts) > 15
    assert all(part.model_config.get("allow_inf_nan") is False for part in parts)


def section_classes(model: type[BaseModel] = Config) -> Iterator[type[BaseModel]]:
    yield model
    for section in sections(model).values():
        yield from section_classes(section.model)


def test_every_default() -> None:
    assert describe(parse_config(SMALLEST)) == DEFAULTS


def test_the_resolved_config_reads_back_as_the_same() -> None:
    changes = ["tasks.age.class_weights=[1, 2.5]", "schedule.warmup_epochs=0.5", "ema.decay=0.9"]
    config = parse_config(SMALLEST, [*changes, "teacher={model: t, alpha: 0.5}"])
    assert parse_config(yaml.safe_dump(describe(config))) == config


@pytest.mark.parametrize(
    ("schedule", "warmup"),
    [
        ("{}", 5),
        ("{epochs: 2}", 0.5),
        ("{epochs: 10, warmup_epochs: null}", 2.5),
        ("{epochs: 10, warmup_epochs: 5}", 5),
        ("{epochs: 10, warmup_epochs: 0}", 0),
    ],
)
def test_the_warmup_that_nobody_asked_for_fits_the_schedule(schedule: str, warmup: float) -> None:
    config = parse_config(SMALLEST + f"schedule: {schedule}")
    assert config.schedule.warmup_epochs == describe(config)["schedule"]["warmup_epochs"] == warmup
    assert parse_config(SMALLEST, [f"schedule={schedule}"]).schedule == config.schedule


def test_a_schedule_may_warm_up_and_ramp_to_its_very_end() -> None:
    config = parse_config(SMALLEST, ["schedule={epochs: 5, warmup_epochs: 4.5}", "sparsity={ramp_epochs: 5}"])
    assert config.sparsity is not None


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("bach_size: 3", "run.yaml:6: unknown key 'bach_size'; did you mean 'batch_size'?"),
        (
            "optimizer:\n  lr: 0.1\n  momentumm: 0.9",
            "run.yaml:8: unknown key 'optimizer.momentumm'; did you mean 'momentum'?",
        ),
        ("ema: {dekay: 0.9}", "run.yaml:6: unknown key 'ema.dekay'; did you mean 'decay'?"),
        ("tracking: {wandb: {mod: x}}", "run.yaml:6: unknown key 'tracking.wandb.mod'; did you mean 'mode'?"),
        ("tasks:\n  age: {wieght: 1.0}", "run.yaml:7: unknown key 'tasks.age.wieght'; did you mean 'weight'?"),
        (
            "teacher:\n  model: a\n  hints: [{wieght: 1}]",
            "run.yaml:8: unknown key 'teacher.hints.0.wieght'; did you mean 'weight'?",
        ),
        ("checkpoint: {qqq: 1}", "run.yaml:6: unknown key 'checkpoint.qqq'; valid keys here: every_epochs, every_step"),
        ("precision: fp8", "run.yaml:6: precision: Input should be 'auto', 'fp32', 'bf16' or 'fp16' (got 'fp8')"),
        ("batch_size: 0", "run.yaml:6: batch_size: Input should be greater than 0 (got 0)"),
        ("batch_size: many", "run.yaml:6: batch_size: Input should be a valid integer"),
        ("seed: 1.5", "run.yaml:6: seed: Input should be a valid integer"),
        ("optimizer: {lr: .nan}", "run.yaml:6: optimizer.lr: "),
        ("optimizer: {kind: adam, betas: [0.9, 1.0]}", "run.yaml:6: optimizer.betas"),
        ("augment: {crop_scale: [0.5, 0.2]}", "run.yaml:6: augment: crop_scale is [smallest, largest] share"),
        ("augment: {crop_scale: [0.0, 1.0]}", "run.yaml:6: augment: crop_scale is [smallest, largest] share"),
        ("augment: {crop_ratio: [2, 1]}", "run.yaml:6: augment: crop_ratio is [narrowest, widest]"),
        ("schedule: {decay: steps}", "run.yaml:6: schedule: decay: steps and milestones belong together"),
        ("schedule: {milestones: [3]}", "run.yaml:6: schedule: decay: steps and milestones belong together"),
        (
            "schedule: {epochs: 4, warmup_epochs: 4}",
            "run.yaml:6: schedule: schedule.warmup_epochs 4 is not below schedule.epochs 4",
        ),
        (
            "schedule: {epochs: 9, decay: steps, milestones: [3, 9, 12]}",
            "run.yaml:6: schedule: schedule.milestones 9, 12: not below schedule.epochs 9",
        ),
        (
            "schedule: {epochs: 9}\nsparsity: {start_epoch: 5, ramp_epochs: 4.5}",
            "sparsity.start_epoch 5 and sparsity.ramp_epochs 4.5 end after schedule.epochs 9",
        ),
        (
            "tasks: {age: {loss: focal, label_smoothing: 0.1}}",
            "run.yaml:6: tasks.age: label_smoothing belongs to cross-entropy",
        ),
        ("tasks: {age: {ordred: true}}", "run.yaml:6: unknown key 'tasks.age.ordred'; did you mean 'ordered'?"),
        ("tasks: {age: {ordinal: true}}", "unknown key 'tasks.age.ordinal'; did you mean 'tasks.NAME.ordered'?"),
        (
            "tasks: {age: {ordered: child}}",
            "run.yaml:6: tasks.age.ordered: write true where the class names are all numbers, else the list",
        ),
        ("tasks: {age: {ordered: 1}}", "run.yaml:6: tasks.age.ordered: write true where the class names are all"),
        (
            "tasks: {age: {ordered: [20, 21]}}",
            "run.yaml:6: tasks.age.ordered: 20 is not text; write true where the class names are all numbers, else put",
        ),
        ("tasks: {dents: {ordered: [no, yes]}}", "run.yaml:6: tasks.dents.ordered: False is not text"),
        ("augment: {cutmix: 1.0}", "run.yaml:6: augment: cutmix is not offered: it blends the photos of a batch"),
        ("teacher: {}", "run.yaml:6: teacher: give model (computed in every step), cache"),
        ("teacher: {model: a, alpha: 0.5, weight: 1}", "run.yaml:6: teacher: give either alpha or weight"),
        ("teacher: {model: a, views: 3}", "run.yaml:6: teacher: views and fresh_share belong to a cache"),
        ("teacher: {cache: a, fresh_share: 0.1}", "run.yaml:6: teacher: fresh_share needs model"),
        (
            "teacher: {model: a, cache: b, hints: [{kind: mse, student: c, teacher: d}]}",
            "run.yaml:6: teacher: hints need the teacher's features, a cache has its logits only",
        ),
        ("teacher: {model: a, temperature: {age: 0}}", "run.yaml:6: teacher.temperature"),
        ("model: {backbone: a}", "run.yaml:6: key 'model' is given twice"),
        ("seed: [", "run.yaml: not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(addition: str, message: str) -> None:
    assert message in error_of(SMALLEST + addition)


def test_a_key_given_twice_in_a_group_is_refused() -> None:
    assert error_of("data:\n  train: a\n  val: b\n  train: c\n") == "run.yaml:4: key 'data.train' is given twice"


def test_a_required_key_is_named() -> None:
    text = "run: {dir: a}\nmodel: {backbone: b}\ndata:\n  val: c\n"
    assert error_of(text) == "run.yaml:3: key 'data.train' is required"


def test_a_model_has_one_origin() -> None:
    text = SMALLEST + "  artifact: runs/b/best\n"
    assert error_of(text) == "run.yaml:4: model: give either backbone or artifact"


def test_all_mistakes_are_told_at_once() -> None:
    lines = error_of(SMALLEST + "bach_size: 3\nprecision: fp8\nemma: 1\n").splitlines()
    assert [line.split(":")[1] for line in sorted(lines)] == ["6", "7", "8"]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    assert "a config is a YAML mapping" in error_of(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read \(No such file"):
        load_config(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E-3", 1e-3), ("2.5e+2", 250.0), (".5e-1", 0.05), ("3e2", 300.0), ("1", 1.0)]
)
def test_numbers_read_as_numbers(text: str, value: float) -> None:
    assert parse_config(SMALLEST + f"optimizer: {{lr: {text}}}").optimizer.lr == value
    assert parse_config(SMALLEST, [f"optimizer.lr={text}"]).optimizer.lr == value


def test_text_that_only_looks_like_a_number_stays_text() -> None:
    config = parse_config(SMALLEST, ["tracking.wandb.project=e5", "tracking.wandb.name='1e5'"])
    assert (config.tracking.wandb.project, config.tracking.wandb.name) == ("e5", "1e5")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("batch_size=32", lambda config: config.batch_size == 32),
        ("run.dir=runs/b=c", lambda config: config.run.dir == "runs/b=c"),
        ("data.val=shards/val", lambda config: config.data.val == "shards/val"),
        ("data.workers=3", lambda config: config.data.workers == 3),
        ("ema.decay=0.99", lambda config: config.ema.decay == 0.99),
        ("model.freeze=[backbone, heads.x]", lambda config: config.model.freeze == ("backbone", "heads.x")),
        ("model.lr_multipliers={backbone.stem: 0.1}", lambda c: c.model.lr_multipliers == {"backbone.stem": 0.1}),
        ("tasks.age.weight=2", lambda config: config.tasks["age"].weight == 2),
        ("tracking.wandb.mode=disabled", lambda config: config.tracking.wandb.mode == "disabled"),
        ("checkpoint.every_steps=", lambda config: config.checkpoint.every_steps is None),
        ("trace_samples=true", lambda config: config.trace_samples is True),
    ],
)
def test_an_override_replaces_the_files_value(override: str, read) -> None:
    assert not read_default(read)
    assert read(parse_config(SMALLEST, [override]))


def read_default(read) -> bool:
    try:
        return read(parse_config(SMALLEST))
    except (AttributeError, TypeError):
        return False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size", "override 'batch_size': write key=value"),
        ("=3", "override '=3': write key=value"),
        ("bach_size=3", "command line, 'bach_size=3': unknown key 'bach_size'; did you mean 'batch_size'?"),
        ("optimizer.lr=fast", "command line, 'optimizer.lr=fast': optimizer.lr: Input should be a valid number"),
        ("optimiser.lr=3", "command line, 'optimiser.lr=3': unknown key 'optimiser'; did you mean 'optimizer'?"),
        ("model={backbon: x}", "command line, 'model={backbon: x}': unknown key 'model.backbon'; did you mean"),
        ("run={dir: 3}", "command line, 'run={dir: 3}': run.dir: Input should be a valid string"),  # run.yaml has it
        ("schedule.decay=steps", "command line, 'schedule.decay=steps': schedule: decay: steps and milestones belong"),
        ("seed.x=1", "override 'seed.x=1': 'seed' is a value, not a group"),
        ("tasks={a: [", "override 'tasks={a: [': the value is not valid YAML"),
    ],
)
def test_a_wrong_override_says_that_it_came_from_the_command_line(override: str, message: str) -> None:
    found = error_of(SMALLEST + "seed: 1\n", override)
    assert message in found
    assert "run.yaml" not in found


def test_a_group_that_an_override_spoils_names_both() -> None:
    found = error_of(SMALLEST + "schedule: {epochs: 3}\n", "schedule.milestones=[3]", "seed=3")
    assert found.startswith("run.yaml:6 and command line, 'schedule.milestones=[3]': schedule: decay: steps and")


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("learning_rate", "optimizer.lr"),
        ("Learning-Rate", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("epochs", "schedule.epochs"),
        ("num_epochs", "schedule.epochs"),
        ("weight_decay", "optimizer.weight_decay"),
        ("wd", "optimizer.weight_decay"),
        ("bs", "batch_size"),
        ("batch", "batch_size"),
        ("data.batch_size", "batch_size"),
        ("img_size", "data.image_size"),
        ("arch", "model.backbone"),
        ("backbone", "model.backbone"),
        ("workers", "data.workers"),
        ("num_workers", "data.workers"),
        ("amp", "precision"),
        ("fp16", "precision"),
        ("warmup", "schedule.warmup_epochs"),
        ("T", "teacher.temperature"),
        ("temperature", "teacher.temperature"),
        ("learningrate", "optimizer.lr"),
        ("output_dir", "run.dir"),
        ("epoch", "schedule.epochs"),
    ],
)
def test_the_words_of_the_field_name_our_keys(word: str, key: str) -> None:
    found = error_of(SMALLEST, f"{word}=3")
    assert found == f"command line, '{word}=3': unknown key '{word}'; did you mean '{key}'?"


def test_every_alias_leads_to_a_key_and_hides_none() -> None:
    keys = set(all_keys())
    assert set(ALIASES.values()) <= keys
    assert not ALIASES.keys() & {key.rpartition(".")[2] for key in keys}


def test_the_config_cannot_be_changed_once_it_is_read() -> None:
    config: Config = parse_config(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
