"""The teacher of a run from its config: classes, cache, loss terms, adapters.

classes = teacher_classes(config)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from data.errors import DataError
from data.index import Index
from data.loading.batch import BadRecord, Batch
from data.loading.loader import TeacherData
from data.sampling.view_schedule import ViewSchedule
from data.teacher_logits import LogitManifest, TeacherSource, check_manifest, load_manifest
from data.teacher_logits.manifest import cached_shards
from models.artifact import load_artifact_meta
from models.student import Student
from train.config.schema import Config, HintConfig, TeacherConfig
from train.distillation.adapters import build_adapter
from train.distillation.feature_hooks import ForwardHooks
from train.distillation.loss_terms import TeacherHook, distillation_term, hint_term, teacher_columns
from train.distillation.teacher import Teacher, load_teacher, teacher_paths, teacher_tasks
from train.errors import ConfigError
from train.losses.objective import LossTerm
from train.setup.data import operations, train_pixels
from train.setup.losses import weight_schedule
from train.setup.model import require_size

Classes = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class DistillationSetup:
    """What a run gets from its teacher; nothing where it has none.

    classes: of every column of the teacher's logits. batch_hooks: see `TrainStep`. find_bad: see `Callbacks`.
    """

    terms: list[LossTerm] = field(default_factory=list)
    adapters: nn.ModuleList = field(default_factory=nn.ModuleList)
    batch_hooks: list[Callable[[Batch], Batch]] = field(default_factory=list)
    find_bad: Callable[[], list[BadRecord]] | None = None
    description: str = ""


def teacher_classes(config: Config) -> Classes:
    """Task -> class names of the config's teacher, {} without one. Raises ModelError or DataError."""
    settings = config.teacher
    if settings is None:
        return {}
    if settings.model is not None:
        return teacher_tasks(settings.model)
    assert settings.cache is not None
    return load_manifest(settings.cache).tasks


def views(config: Config) -> ViewSchedule:
    """The views of the run: those of the teacher cache where there is one. Raises ConfigError or DataError."""
    settings = config.teacher
    if settings is None or settings.cache is None:
        return ViewSchedule(config.augment.views)
    cached = load_manifest(settings.cache).views
    if cached == 0:
        raise DataError(f"{settings.cache}: no view is complete; python -m train.cache_teacher goes on with it")
    chosen = settings.views or config.augment.views or cached
    if config.augment.views not in (0, chosen):
        raise ConfigError(f"augment.views is {config.augment.views}, teacher.views {chosen}; leave one of them out")
    return ViewSchedule(chosen, fresh_share=settings.fresh_share, seed=config.seed)


def teacher_data(config: Config, index: Index) -> TeacherData:
    """What the loader fetches for the teacher. DataError when a cache is not of this teacher, data or views."""
    settings = config.teacher
    if settings is None:
        return TeacherData()
    if settings.cache is not None:
        found = load_manifest(settings.cache)
        check_manifest(found, cache_manifest(config, index, like=found), root=settings.cache)
    size = teacher_size(config)
    is_other = settings.model is not None and size != config.data.image_size
    return TeacherData(cache=settings.cache, transform=train_pixels(config, size=size) if is_other else None)


def teacher_size(config: Config) -> int:
    """Pixels that the teacher sees."""
    assert config.teacher is not None
    return config.teacher.image_size or config.data.image_size


def require_teacher_size(config: Config, teacher: Teacher) -> None:
    """Its models must take the size that the config gives them. Raises ConfigError."""
    assert config.teacher is not None
    key = "teacher.image_size" if config.teacher.image_size else "data.image_size (teacher.image_size can differ)"
    whose = f"teacher.model {config.teacher.model}"
    for model in teacher.models:
        size, device, precision = teacher_size(config), teacher.device, teacher.precision
        require_size(model, size, key=key, whose=whose, device=device, precision=precision)


def cache_manifest(config: Config, index: Index, *, like: LogitManifest | None = None) -> LogitManifest:
    """What the cache of this config is made with. Where the config names no model, the teacher is that of `like`."""
    settings = config.teacher
    assert settings is not None
    if settings.model is None:
        assert like is not None
        tasks, teachers = like.tasks, like.teachers
    else:
        tasks, teachers = teacher_tasks(settings.model), teacher_sources(settings.model)
    return LogitManifest(
        tasks=tasks,
        teachers=teachers,
        precision=config.precision,
        image_size=teacher_size(config),
        operations=operations(config.augment),
        augment_seed=config.augment.seed,
        max_pixels=config.data.max_pixels,
        shards=cached_shards(index),
    )


def teacher_sources(model: str | Mapping[str, str]) -> dict[str, TeacherSource]:
    """Task -> where its logits come from."""
    sources: dict[str, TeacherSource] = {}
    for path, wanted in teacher_paths(model).items():
        meta = load_artifact_meta(path)
        source = TeacherSource(path, meta.sha256, tuple(meta.preprocessing["mean"]), tuple(meta.preprocessing["std"]))
        sources |= dict.fromkeys(wanted or meta.tasks, source)
    return sources


def build_distillation(
    config: Config,
    index: Index,
    student: Student,
    *,
    tasks: Mapping[str, int],
    steps_per_epoch: int,
    device: torch.device,
) -> DistillationSetup:
    """Terms, adapters and hooks of the config's teacher. Raises ConfigError or ModelError."""
    settings = config.teacher
    if settings is None:
        return DistillationSetup()
    ramp = partial(weight_schedule, config, steps_per_epoch)
    is_computed = settings.cache is None or settings.fresh_share > 0
    teacher = None
    classes = teacher_classes(config)
    if is_computed:
        assert settings.model is not None
        # With a cache beside it, the columns must be the cache's.
        wanted = list(tasks) if settings.cache is None else None
        teacher = load_teacher(settings.model, device=device, precision=config.precision, tasks=wanted)
        require_teacher_size(config, teacher)
        classes = teacher.tasks
    columns = teacher_columns(tasks={task: index.tasks[task] for task in tasks}, teacher=classes)
    terms = [_logit_term(config, settings, task, chosen, ramp) for task, chosen in columns.items()]
    adapters = nn.ModuleList()
    if teacher is not None:
        hints, adapters = _hints(config, settings, student, teacher, ramp, device)
        terms += hints
    # A term of weight 0 is switched off, and costs nothing.
    terms = [term for term in terms if term.weight]
    hook = TeacherHook(teacher, [shard.name for shard in index.shards]) if teacher is not None else None
    return DistillationSetup(
        terms=terms,
        adapters=adapters,
        batch_hooks=[hook] if hook else [],
        find_bad=hook.find_bad if hook else None,
        description=_describe(config, settings, teacher, list(columns)),
    )


def label_shares(config: Config, taught: Classes) -> dict[str, float]:
    """Task -> what its label weight is multiplied with: 1 - alpha for the tasks that the teacher knows."""
    settings = config.teacher
    if settings is None or settings.alpha is None:
        return {}
    return dict.fromkeys(taught, 1 - settings.alpha)


def _logit_term(
    config: Config,
    settings: TeacherConfig,
    task: str,
    columns: Tensor,
    ramp: Callable[..., Callable[[int], float] | None],
) -> LossTerm:
    options = (config.tasks or {}).get(task)
    share = settings.alpha if settings.alpha is not None else _of_task(settings.weight, task, 1.0)
    return distillation_term(
        task,
        columns=columns,
        loss=settings.loss,
        temperature=_of_task(settings.temperature, task, 5.0),
        weight=share * (options.weight if options else 1.0),
        ramp=ramp(power=options.ramp if options else 0.0),
    )


def _hints(
    config: Config,
    settings: TeacherConfig,
    student: Student,
    teacher: Teacher,
    ramp: Callable[..., Callable[[int], float] | None],
    device: torch.device,
) -> tuple[list[LossTerm], nn.ModuleList]:
    hints = [hint for hint in settings.hints if hint.weight]
    if not hints:
        return [], nn.ModuleList()
    if len(teacher.models) > 1:
        raise ConfigError("teacher.hints: features are taken from one teacher model, teacher.model names several")
    student_tap = ForwardHooks(student, [hint.student for hint in hints], whose="the student")
    teacher_tap = ForwardHooks(teacher.models[0], [hint.teacher for hint in hints], whose="the teacher")
    _run_once(student, teacher, config, device)
    torch.manual_seed(config.seed)
    terms, adapters = [], nn.ModuleList()
    for number, hint in enumerate(hints):
        shapes = [tuple(tap[layer].shape[1:]) for tap, layer in _ends(hint, student_tap, teacher_tap)]
        adapter = build_adapter(hint.bridge, kind=hint.kind, student=shapes[0], teacher=shapes[1]).to(device)
        adapters.append(adapter)
        ends = _ends(hint, student_tap, teacher_tap)
        name = f"hint{number}.{hint.kind}.{hint.student}"
        terms.append(
            hint_term(
                name,
                kind=hint.kind,
                student=ends[0],
                teacher=ends[1],
                adapter=adapter,
                weight=hint.weight,
                ramp=ramp(power=hint.ramp),
            )
        )
    return terms, adapters


def _ends(hint: HintConfig, student: ForwardHooks, teacher: ForwardHooks) -> list[tuple[ForwardHooks, str]]:
    return [(student, hint.student), (teacher, hint.teacher)]


@torch.no_grad()
def _run_once(student: Student, teacher: Teacher, config: Config, device: torch.device) -> None:
    """One black photo through both, so that the shapes of their features are known; no statistics move."""
    sizes = config.data.image_size, teacher_size(config)
    black = [torch.zeros(1, size, size, 3, dtype=torch.uint8, device=device) for size in sizes]
    was_training = student.training
    student.eval()(black[0].permute(0, 3, 1, 2).float())
    student.train(was_training)
    teacher(black[1])


def _of_task(setting: float | dict[str, float] | None, task: str, default: float) -> float:
    if isinstance(setting, dict):
        return setting.get(task, default)
    return default if setting is None else setting


def _describe(config: Config, settings: TeacherConfig, teacher: Teacher | None, tasks: list[str]) -> str:
    parts = []
    if settings.cache is not None:
        missing = sum(load_manifest(settings.cache).non_finite)
        note = f" ({missing:,} of them are not finite and do not teach)" if missing else ""
        parts.append(f"cached logits of {views(config).num_views} views from {settings.cache}{note}")
    if teacher is not None:
        count = sum(model.num_parameters for model in teacher.models)
        share = "every step" if settings.cache is None else f"{settings.fresh_share:.0%} of the steps, on new views"
        parts.append(f"computed in {share} ({count:,} parameters, {teacher_size(config)} px)")
    return f"teacher of {', '.join(tasks)}: {' and '.join(parts)}"
