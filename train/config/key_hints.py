"""What a user may have meant by a key that the config does not have.

suggest(("learning_rate",)) -> "did you mean 'optimizer.lr'?"
"""

import difflib
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from train.config.base import sections
from train.config.schema import Config

_SHOWN = 3

# The words of the field and of other tools for our keys.
_WORDS = {
    "augment.flip": "hflip",
    "augment.policy": "aug augmentation augmentations",
    "batch_size": "bs batch train_batch_size",
    "checkpoint.every_steps": "checkpoint_interval save_every save_freq save_steps",
    "data.eval_size": "test_size val_size",
    "data.image_size": "crop_size imgsz img_size input_size resolution",
    "data.train": "data_dir data_path dataset image_dir train_dir",
    "data.val": "val_dir validation",
    "data.workers": "n_workers num_workers",
    "ema.decay": "ema_decay model_ema",
    "micro_batch": "microbatch per_device_train_batch_size",
    "model.backbone": "arch architecture model_name network",
    "model.drop_path": "drop_path_rate stochastic_depth",
    "model.freeze": "freeze_layers",
    "optimizer.clip_norm": "clip_grad clip_grad_norm grad_clip gradient_clip_val gradient_clipping max_grad_norm",
    "optimizer.kind": "opt",
    "optimizer.lr": "base_lr init_lr learning_rate max_lr",
    "optimizer.weight_decay": "wd",
    "precision": "amp autocast bf16 dtype fp16 fp32 half mixed_precision use_amp",
    "run.dir": "checkpoint_dir experiment_dir logdir out_dir output output_dir save_dir",
    "schedule.decay": "lr_decay lr_scheduler sched scheduler",
    "schedule.epochs": "max_epochs n_epochs num_epochs num_train_epochs",
    "schedule.gamma": "lr_decay_rate",
    "schedule.milestones": "lr_steps step_size",
    "schedule.patience": "early_stopping patience_epochs",
    "schedule.warmup_epochs": "warm_up warmup",
    "seed": "random_seed",
    "tasks.NAME.label_smoothing": "label_smooth smoothing",
    "tasks.NAME.ordered": "is_ordered is_ordinal order ordinal",
    "teacher.model": "teacher_model",
    "teacher.temperature": "kd_temperature t tau temp",
    "teacher.weight": "kd_weight",
    "tracking.evaluate_every": "eval_every eval_freq",
    "tracking.log_every": "log_interval print_freq",
}
ALIASES = {word: key for key, words in _WORDS.items() for word in words.split()}


def suggest(path: Sequence[str], root: type[BaseModel] = Config) -> str:
    """A hint for an unknown key: a slip of the same group, a word for another key, or all keys of the group. root: the
    settings that it was given for; the words of other tools are known for a run's."""
    *group, wrong = path
    model = _model_at(group, root)
    aliases = ALIASES if root is Config else {}
    valid = sorted(model.model_fields) if model else []
    word = wrong.lower().replace("-", "_")
    if word in valid:
        return _did_you_mean([word])
    places = [key for key in all_keys(root) if key.rpartition(".")[2] == word]
    if found := [aliases[word]] if word in aliases else places:
        return _did_you_mean(found)
    if near := difflib.get_close_matches(word, valid, n=1):
        return _did_you_mean(near)
    everywhere = {key.rpartition(".")[2]: key for key in all_keys(root)} | aliases
    if slips := difflib.get_close_matches(word, everywhere, n=1, cutoff=0.85):
        return _did_you_mean([everywhere[slips[0]]])
    return f"valid keys here: {', '.join(valid)}"


def _did_you_mean(keys: Sequence[str]) -> str:
    return f"did you mean {' or '.join(map(repr, keys[:_SHOWN]))}?"


def all_keys(model: type[BaseModel] = Config, before: str = "") -> Iterator[str]:
    """Every key with its group before it, the keys of a group before those of the groups in it; NAME is a task's."""
    for name in model.model_fields:
        yield f"{before}{name}"
    for name, section in sections(model).items():
        middle = "NAME." if section.kind == "mapping" else ""
        yield from all_keys(section.model, f"{before}{name}.{middle}")


def _model_at(path: Sequence[str], root: type[BaseModel]) -> type[BaseModel] | None:
    """The config class that a path of keys leads to; names (of tasks) and numbers (of hints) are skipped."""
    model = root
    skip = False
    for key in path:
        if skip:
            skip = False
            continue
        section = sections(model).get(key)
        if section is None:
            return None
        model, skip = section.model, section.kind != "group"
    return model
