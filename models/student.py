"""A student (or teacher): one backbone, one pooled feature, one logit vector per task.

`build_student(backbone="mobilenetv2_050", head={"kind": "multi-embedding"}, tasks={"age": 5, "gender": 2})`
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self

from torch import Tensor, nn

from models.backbones import Backbone, create_backbone
from models.channel_groups import Group, channel_groups
from models.channel_groups.narrow import narrow
from models.errors import ModelError
from models.heads import build_head, head_options
from models.preprocessing import Preprocessing


class Student(nn.Module):
    """Images in, one logit vector per task out.

    Attributes: `tasks` {name: number of classes}, `backbone` (image -> pooled feature [N, num_features]),
    `heads` (pooled feature -> logits per task), `preprocessing` (what the backbone expects of its input),
    `architecture` (flat arguments: `build_student(**student.architecture)` makes the same network again),
    `frozen` (names of sub-modules that stay in eval when the rest trains; see `parameter_groups.freeze_parts`).
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        heads: nn.Module,
        tasks: Mapping[str, int],
        drop_rate: float,
        architecture: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.num_features = backbone.num_features
        self.preprocessing: Preprocessing = backbone.preprocessing
        self.architecture = dict(architecture)
        self.frozen: tuple[str, ...] = ()
        self.backbone = backbone.module
        self.dropout = nn.Dropout(drop_rate)
        self.heads = heads

    @property
    def num_parameters(self) -> int:
        """All parameters, frozen ones too; buffers (running statistics) are not parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward_features(self, image: Tensor) -> Tensor:
        """image [N, 3, H, W] -> pooled feature [N, num_features]. For feature maps, hook parts of `backbone`."""
        return self.backbone(image)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image, float and normalised, [N, 3, H, W] -> {task: logits [N, num_classes]}."""
        return self.heads(self.dropout(self.forward_features(image)))

    def channel_groups(self) -> tuple[Group, ...]:
        """What may be pruned, at the present widths. ModelError where the backbone declares nothing."""
        return channel_groups(self.backbone, self.heads)

    def narrow(self, kept: Mapping[str, Sequence[int]]) -> None:
        """Keep these units of the named channel groups, in place; `architecture` says the new widths."""
        groups = self.channel_groups()
        narrow(self, groups, kept)
        widths = {
            group.name: len(kept[group.name]) * group.copies
            for group in groups
            if group.name in kept and len(kept[group.name]) < group.num_units
        }
        self.architecture["widths"] = {**self.architecture["widths"], **widths}
        for group in groups:
            if group.kind == "features" and group.name in kept:
                self.num_features = len(kept[group.name]) * group.copies * group.consumers[-1].spread

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for the frozen parts: their batch norms keep the statistics they came with."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def build_student(
    *,
    backbone: str,
    head: Mapping[str, Any],
    tasks: Mapping[str, int],
    pretrained: bool = False,
    widths: Mapping[str, int] | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Student:
    """A network from flat arguments.

    backbone: a name in `BACKBONES` or any timm model. head: `kind` and that head's options; an option that is not set
    is left out. tasks: {name: number of classes}. pretrained: start the backbone from published weights.
    widths: {channel group: channels} of a pruned network; the first channels stay, for saved weights to replace them.
    drop_rate: dropout on the pooled feature. drop_path_rate: stochastic
    depth, for timm backbones that have it. Raises ModelError for anything unknown.
    """
    if widths and pretrained:
        raise ModelError("published weights do not fit a narrowed network; leave out widths or pretrained")
    if "kind" not in head:
        raise ModelError("head.kind is missing: it names the head's shape, for example multi-fc")
    options = {name: value for name, value in head.items() if name != "kind"}
    made = create_backbone(backbone, pretrained=pretrained, drop_path_rate=drop_path_rate)
    student = Student(
        backbone=made,
        heads=build_head(kind=head["kind"], num_features=made.num_features, tasks=tasks, **options),
        tasks=tasks,
        drop_rate=drop_rate,
        architecture={
            "backbone": backbone,
            "head": {"kind": head["kind"], **head_options(kind=head["kind"], options=options)},
            "tasks": dict(tasks),
            "widths": {},
            "drop_rate": drop_rate,
            "drop_path_rate": drop_path_rate,
        },
    )
    if widths:
        student.narrow(_first_units(student, widths))
    return student


def _first_units(student: Student, widths: Mapping[str, int]) -> dict[str, range]:
    groups = {group.name: group for group in student.channel_groups()}
    kept = {}
    for name, width in widths.items():
        if name not in groups:
            near = get_close_matches(name, groups, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ModelError(f"widths: the network has no channel group {name!r}{hint}")
        group = groups[name]
        step = group.copies * group.unit_step
        if not isinstance(width, int) or not 0 < width <= group.num_channels or width % step:
            raise ModelError(
                f"widths: {name!r} is {width!r}; it must be a multiple of {step} from {step} to {group.num_channels}"
            )
        kept[name] = range(width // group.copies)
    return kept
