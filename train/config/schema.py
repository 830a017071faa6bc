"""The run's configuration: frozen, typed and strict; one YAML file plus `key=value` overrides.

    config = load_config("train/configs/solar/quickstart.yaml", ["batch_size=64", "run.dir=runs/mine"])

Each section has its class beside this file. The text under a key says what it does, and docs/CONFIG.md repeats it.
"""

from typing import Annotated, Any, Literal

from pydantic import model_validator

from train.config.base import AboveZero, Samples, Strict, Unit
from train.config.data import AugmentConfig, DataConfig
from train.config.model import ModelConfig, TaskConfig
from train.config.run import CheckpointConfig, ElasticConfig, RunConfig, TrackingConfig
from train.config.teacher import HintConfig, TeacherConfig
from train.config.training import EmaConfig, OptimizerConfig, ScheduleConfig, SparsityConfig

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "ElasticConfig",
    "EmaConfig",
    "HintConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "SparsityConfig",
    "TaskConfig",
    "TeacherConfig",
    "TrackingConfig",
    "describe",
]


class Config(Strict):
    """One run. Required are `run.dir`, `data.train` and a model; everything else has a default."""

    run: RunConfig
    seed: int = 0
    """Seed of the first weights, the sample order and dropout. The augmentation has its own, `augment.seed`."""
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    tasks: dict[str, TaskConfig] | None = None
    model: ModelConfig
    teacher: TeacherConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch_size: Samples = 256
    """Samples of one update, over all ranks. The last update of an epoch may have fewer; with less than half of them it
    counts by its share."""
    micro_batch: Samples | None = None
    """How many of them a rank computes at once, so that they fit into memory; the gradients are added up. `null`: its
    whole share. The sample order and the weight of each sample stay the same, but batch norms see smaller batches."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward and backward pass; weights stay in fp32. `fp16` also scales the loss. `auto`: bf16
    on GPUs and processors that compute with it quickly (AMX), else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: one GPU per rank where there are GPUs, else the CPU."""
    deterministic: bool = True
    """Use operations that give the same bits each time wherever there are any, at some cost on GPUs. With it, a run
    that was interrupted ends with the very weights of one that was not."""
    sparsity: SparsityConfig | None = None
    ema: EmaConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    elastic: ElasticConfig | None = None
    tracking: TrackingConfig = TrackingConfig()
    watchdog_seconds: Annotated[AboveZero, Unit("seconds")] = 600.0
    """A rank whose step takes longer writes the stacks of its threads and ends with exit code 76."""
    trace_samples: bool = False
    """Write which samples each step and rank consumed to `trace-rankN.jsonl` in the run folder."""

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
