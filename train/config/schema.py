"""The run's configuration: frozen, typed and strict; one YAML file plus `key=value` overrides.

config = load_config("train/configs/solar/quickstart.yaml", ["batch_size=64", "run.dir=runs/mine"])
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from train.optim.schedule import default_warmup

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class RunConfig(Strict):
    dir: str
    resume: Literal["auto", "never"] = "auto"  # never: refuse a folder that holds a run
    allow_changes: bool = False  # resume although the config changed


class CacheConfig(Strict):
    dir: str | None = None  # default: the user's cache folder
    max_gigabytes: Annotated[float, Field(gt=0)] = 50.0


class DataConfig(Strict):
    train: str
    val: str | None = None
    image_size: Positive = 224
    eval_size: Positive | None = None  # default: image_size
    block: Positive = 262_144
    lanes: Positive = 1024
    window: Positive = 256
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"  # decoding processes per rank
    cache: CacheConfig = CacheConfig()  # for http(s):// and s3:// shards
    max_bad_share: Fraction = 0.001  # of the samples; at least 10 are always allowed
    max_pixels: Positive = 64_000_000


class AugmentConfig(Strict):
    policy: Literal["none", "mild", "standard", "strong"] = "standard"
    seed: int = 0
    views: Annotated[int, Field(ge=0)] = 0  # K: epoch e sees view e mod K; 0: a new view every epoch
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] | None = None
    flip: Fraction | None = None
    rotate: NotNegative | None = None
    brightness: Fraction | None = None
    contrast: Fraction | None = None
    saturation: Fraction | None = None
    erase: Fraction | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_photo_a_sample(cls, values: Any) -> Any:
        mixing = [name for name in ("mixup", "cutmix") if isinstance(values, dict) and name in values]
        if mixing:
            raise ValueError(
                f"{mixing[0]} is not offered: it blends the photos of a batch, and a teacher's cached logits are of "
                "one photo; remove it (erase hides parts of single photos)"
            )
        return values

    @model_validator(mode="after")
    def _ranges(self) -> "AugmentConfig":
        if self.crop_scale and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is [smallest, largest] share of the area, 0 to 1; got {self.crop_scale}")
        if self.crop_ratio and not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio is [narrowest, widest] width / height, above 0; got {self.crop_ratio}")
        return self


class TaskConfig(Strict):
    weight: NotNegative = 1.0
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    focal_gamma: NotNegative = 2.0
    class_weights: tuple[NotNegative, ...] | Literal["balanced"] | None = None
    ramp: NotNegative = 0.0  # weight x (epoch / (epochs - 1))^ramp, labels and teacher alike

    @model_validator(mode="after")
    def _one_kind(self) -> "TaskConfig":
        if self.loss == "focal" and self.label_smoothing:
            raise ValueError("label_smoothing belongs to cross-entropy; focal loss has none")
        return self


class HeadConfig(Strict):
    kind: str = "multi-fc"
    width: Positive | None = None
    kernel: Literal[1, 3] | None = None
    groups: Positive | None = None
    reduction: Positive | None = None
    activation: Literal["relu", "none"] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


class ModelConfig(Strict):
    backbone: str | None = None
    artifact: str | None = None  # fine-tune a saved model
    fresh_weights: bool = False  # the artifact's shape alone, weights drawn from the seed: what are its weights worth?
    head: HeadConfig = HeadConfig()
    pretrained: bool = False
    max_params: Positive | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    freeze: tuple[str, ...] = ()
    lr_multipliers: dict[str, NotNegative] = {}

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelConfig":
        if (self.backbone is None) == (self.artifact is None):
            raise ValueError("give either backbone or artifact")
        if self.fresh_weights and self.artifact is None:
            raise ValueError(
                "model.fresh_weights needs model.artifact, whose shape it takes; a backbone starts from fresh weights "
                "anyway"
            )
        return self


class HintConfig(Strict):
    """A feature of the student that is to become like one of the teacher."""

    kind: Literal["smooth-l1", "mse", "cosine", "attention"]
    student: str  # layer names, as models.summary shows them
    teacher: str
    weight: NotNegative = 1.0  # 0 switches it off
    bridge: Literal["none", "pool", "regressor"] = "none"  # what makes different shapes comparable
    ramp: NotNegative = 0.0


class TeacherConfig(Strict):
    model: str | dict[str, str] | None = None  # a saved model, or one per task
    cache: str | None = None  # folder or URL of cached logits; then the model is not loaded
    views: Positive | None = None  # of the cache; default: all that it has
    fresh_share: Fraction = 0.0  # of the steps see a new view, for which the teacher is computed
    image_size: Positive | None = None  # of the views that the teacher sees; default: data.image_size
    loss: Literal["kl", "js", "mse", "dkd"] = "kl"
    temperature: Annotated[float, Field(gt=0)] | dict[str, Annotated[float, Field(gt=0)]] = 5.0
    weight: NotNegative | dict[str, NotNegative] | None = None  # against the task's labels (1), times the task's weight
    alpha: Fraction | None = None  # instead of weight: alpha x teacher + (1 - alpha) x labels
    hints: tuple[HintConfig, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "TeacherConfig":
        if self.model is None and self.cache is None:
            raise ValueError("give model (computed in every step), cache (made by train.cache_teacher), or both")
        if self.alpha is not None and self.weight is not None:
            raise ValueError("give either alpha or weight")
        if self.cache is None and (self.views or self.fresh_share):
            raise ValueError("views and fresh_share belong to a cache; augment.views limits the views without one")
        if self.fresh_share and self.model is None:
            raise ValueError("fresh_share needs model: new views are not in the cache")
        if self.hints and self.cache is not None:
            raise ValueError("hints need the teacher's features, a cache has its logits only: remove cache or hints")
        return self


class OptimizerConfig(Strict):
    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: NotNegative = 4.0e-5
    decay_norms_and_biases: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class ScheduleConfig(Strict):
    epochs: Positive = 60
    warmup_epochs: NotNegative = Field(default=None, validate_default=True)  # default: 5, at most epochs / 4
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    decay: Literal["cosine", "constant", "steps"] = "cosine"
    final_factor: Fraction = 0.0  # cosine ends at lr x this
    milestones: tuple[NotNegative, ...] = ()  # epochs, for steps
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # factor at each milestone
    patience: Positive | None = None  # evaluations without improvement before stopping

    @field_validator("warmup_epochs", mode="before")
    @classmethod
    def _by_length(cls, value: Any, info: ValidationInfo) -> Any:
        return default_warmup(info.data.get("epochs", 0)) if value is None else value

    @model_validator(mode="after")
    def _has_steps(self) -> "ScheduleConfig":
        if (self.decay == "steps") != bool(self.milestones):
            raise ValueError("decay: steps and milestones belong together")
        return self

    @model_validator(mode="after")
    def _ends_in_time(self) -> "ScheduleConfig":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs {self.warmup_epochs:g} is not below schedule.epochs {self.epochs}, so the "
                "learning rate would never be reached; lower it, or leave it out"
            )
        if late := [f"{milestone:g}" for milestone in self.milestones if milestone >= self.epochs]:
            raise ValueError(
                f"schedule.milestones {', '.join(late)}: not below schedule.epochs {self.epochs}, so nothing would "
                "change there; lower or remove them"
            )
        return self


class SparsityConfig(Strict):
    """An L1 penalty on the weights of batch norms, so that channels can be pruned."""

    kind: Literal["subgradient", "proximal"] = "subgradient"
    strength: Annotated[float, Field(gt=0)] = 1.0e-4
    start_epoch: NotNegative = 0.0
    ramp_epochs: NotNegative = 0.0  # from 0 to full strength
    groups: dict[str, NotNegative] | None = None  # factors for parts and kinds of channels; default: every norm


class EmaConfig(Strict):
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999


class ElasticConfig(Strict):
    """`python -m launch.worker` goes on with fewer ranks when one is lost, and takes in those that come."""

    min_ranks: Positive = 1
    max_ranks: Positive

    @model_validator(mode="after")
    def _in_order(self) -> "ElasticConfig":
        if self.min_ranks > self.max_ranks:
            raise ValueError(f"min_ranks {self.min_ranks} is more than max_ranks {self.max_ranks}")
        return self


class CheckpointConfig(Strict):
    every_steps: Positive | None = 500
    every_epochs: Positive = 1
    keep: Positive = 2
    monitor: str = "mean_top1"


class WandbConfig(Strict):
    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "slimheads"
    name: str | None = None


class TrackingConfig(Strict):
    wandb: WandbConfig = WandbConfig()
    log_every: Positive = 20  # steps
    evaluate_every: Positive = 1  # epochs


class Config(Strict):
    run: RunConfig
    seed: int = 0
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    tasks: dict[str, TaskConfig] | None = None  # default: every task of the index
    model: ModelConfig
    teacher: TeacherConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch_size: Positive = 256  # samples of one update, over all ranks
    micro_batch: Positive | None = None  # samples that one rank holds at once
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = True
    sparsity: SparsityConfig | None = None
    ema: EmaConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    elastic: ElasticConfig | None = None
    tracking: TrackingConfig = TrackingConfig()
    watchdog_seconds: Annotated[float, Field(gt=0)] = 600.0
    trace_samples: bool = False

    @model_validator(mode="after")
    def _sparsity_begins(self) -> "Config":
        if self.sparsity is None:
            return self
        start, ramp, epochs = self.sparsity.start_epoch, self.sparsity.ramp_epochs, self.schedule.epochs
        if start >= epochs:
            raise ValueError(
                f"sparsity.start_epoch {start:g} is not below schedule.epochs {epochs}, so nothing would be trained "
                "sparse; lower it"
            )
        if start + ramp > epochs:
            raise ValueError(
                f"sparsity.start_epoch {start:g} and sparsity.ramp_epochs {ramp:g} end after schedule.epochs {epochs}, "
                "so the full strength would never be reached; lower them"
            )
        return self

    @model_validator(mode="after")
    def _elastic_fits(self) -> "Config":
        for name, most in (("data.lanes", self.data.lanes), ("batch_size", self.batch_size)):
            if self.elastic and self.elastic.max_ranks > most:
                raise ValueError(f"elastic.max_ranks {self.elastic.max_ranks} is more than {name} {most}; lower it")
        return self


def describe(config: Config) -> dict[str, Any]:
    """The resolved config as plain values, for YAML, JSON and W&B."""
    return config.model_dump(mode="json")
