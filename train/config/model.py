"""The sections `tasks` and `model`: what is learnt, and by which network."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from train.config.base import BelowOne, NotNegative, Positive, Strict, Unit


class TaskConfig(Strict):
    """The tasks to learn, by name: `tasks: {age: {weight: 2.0}, gender: {}}`. Only those that are named are learnt;
    `tasks: null`, the default, learns every task of the data with the values below. NAME stands for the task's name.

    A task's loss is a weighted mean over its labelled samples of the whole update, whatever rank they are on.
    """

    weight: NotNegative = 1.0
    """Factor of the task's loss, of its labels and of its teacher alike; 0 leaves both out."""
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    """Loss of the labels. `focal` multiplies a sample's cross-entropy with (1 - p)^`focal_gamma`, p the probability of
    its class, so that samples which are already right count less (Lin et al. 2017)."""
    label_smoothing: BelowOne = 0.0
    """Share of the target that is spread over all classes; cross-entropy only."""
    focal_gamma: NotNegative = 2.0
    """Exponent of `focal`: the higher, the less they count. 0 makes it cross-entropy."""
    class_weights: tuple[NotNegative, ...] | Literal["balanced"] | None = None
    """How much a labelled sample of each class counts, one number per class in the order of the classes in the data.
    `balanced`: samples / (classes x samples of the class), so that every class counts the same in all. `null`: 1."""
    ramp: Annotated[NotNegative, Unit("exponent")] = 0.0
    """Multiplies `weight` with (epoch / (epochs - 1))^`ramp`: from 0 in the first epoch to 1 in the last, so that hints
    can lead. 0: the full weight throughout."""
    ordered: bool | tuple[str, ...] | None = None
    """The classes have an order: beside top-1, the mean absolute error between the most probable class and the label
    is measured. `true` where the class names are all numbers, in whose unit the error then is. Other classes are listed
    from the lowest to the highest, `[child, young, adult, old]`, and the error is in steps of this list. `null`: as the
    saved model that is fine-tuned says; a new one has no order."""

    @field_validator("ordered", mode="before")
    @classmethod
    def _is_an_order(cls, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if not isinstance(value, list | tuple):
            raise ValueError("write true where the class names are all numbers, else the list of the class names")
        for name in value:
            if not isinstance(name, str):
                raise ValueError(
                    f"{name!r} is not text; write true where the class names are all numbers, else put it in quotes"
                )
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> "TaskConfig":
        if self.loss == "focal" and self.label_smoothing:
            raise ValueError("label_smoothing belongs to cross-entropy; focal loss has none")
        return self


class HeadConfig(Strict):
    """What follows the backbone's pooled feature. Each kind has options of its own (below); `null` leaves an option at
    the kind's default, and an option that the kind does not have is refused."""

    kind: str = "multi-fc"
    """`multi-fc`: a linear layer per task. `multi-se`: squeeze-and-excitation before them. `multi-shared-fc`: a layer
    that all tasks share before them. `multi-embedding`: linear layer, batch norm and ReLU per task before them.
    `single-conv`: one convolution for the classes of all tasks. `single-shuffle-conv`: a channel shuffle before it."""
    width: Annotated[Positive, Unit("features")] | None = None
    """Width of the layer before the classifiers (`multi-shared-fc`, `multi-embedding`: 512)."""
    kernel: Literal[1, 3] | None = None
    """Kernel size of the convolution (`single-conv`, `single-shuffle-conv`: 3). On the pooled feature 1 is the same
    function with a ninth of the parameters."""
    groups: Positive | None = None
    """Groups of the channel shuffle (`single-shuffle-conv`: 4); they divide the number of features."""
    reduction: Positive | None = None
    """The excitation has features / `reduction` hidden units (`multi-se`: 16)."""
    activation: Literal["relu", "none"] | None = None
    """What follows the layer before the classifiers (`multi-shared-fc`: `none`, `multi-embedding`: `relu`).
    `multi-embedding` with `none` has no batch norm, either."""
    dropout: Annotated[BelowOne, Unit("probability")] | None = None
    """How often a pooled feature is dropped in training, for every kind. `null`: 0."""


class ModelConfig(Strict):
    """The network to train: either a new one (`backbone` and `head`) or a saved one (`artifact`). A *part* of it is
    `backbone`, `heads` or a module inside them by its dotted name, such as `backbone.blocks.0`; `python -m
    models.summary` lists them."""

    backbone: str | None = None
    """Name of a timm model, or of a network in `models/backbones`."""
    artifact: str | None = None
    """Folder of a saved model to fine-tune, for example a pruned one. It brings its own head, so `head`, `pretrained`
    and `drop_path` have no effect."""
    fresh_weights: bool = False
    """Take the artifact's shape alone and draw its weights from `seed`: the control that tells what its weights are
    worth."""
    head: HeadConfig = HeadConfig()
    pretrained: bool = False
    """Start the backbone from published ImageNet weights. timm downloads them; those of `efficientnet_lite0_packaged`
    and `efficientnet_lite2_packaged` come in a Python package and need no network. Our own networks have none."""
    max_params: Annotated[Positive, Unit("parameters")] | None = None
    """Refuse to train a network with more. `null`: no limit."""
    drop_path: Annotated[BelowOne, Unit("probability")] = 0.0
    """How often a residual branch is skipped in training (stochastic depth), for timm backbones that have it."""
    freeze: tuple[str, ...] = ()
    """Parts that do not train; their batch norms keep the statistics they came with."""
    lr_multipliers: dict[str, NotNegative] = Field(default_factory=dict)
    """Factors of the learning rate, above 0, by part: `{backbone: 0.1}`. The innermost part counts."""

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
