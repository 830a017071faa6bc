"""Every declared channel group can be taken apart: a masked network and its narrow rebuild are the same function."""

import copy

import pytest
import torch
from torch import nn

from models.backbones import BACKBONES
from models.channel_groups import KINDS, Group, Member
from models.channel_groups.narrow import Norm
from models.cost import count_cost, without_weights
from models.errors import ModelError
from models.heads import HEADS
from models.student import Student, build_student
from models.summary import summarize
from prune.bn_recalibration import recalibrate
from prune.equivalence import NotEquivalent, check_equivalence
from prune.rewrite import rewrite

TASKS = {"type": 2, "age": 5, "beauty": 3}
# name: image size
FAMILIES = {
    "mobilenetv2_050": 32,
    "mobilenetv2_100": 32,
    "resnet18": 32,
    "resnet26": 32,
    "resnet50": 32,
    "resnest50d": 32,
    "efficientnet_lite0_packaged": 32,
    "fbnetc_100": 32,  # its stem runs through a residual block, behind an activation
    **{name: 256 if name in ("food11_big", "food11_standard") else 32 for name in BACKBONES},
}
SMALL = {"mobilenetv2_050": 32, "food11_standard": 256, "cifar10_student": 32}  # pooled, flattened, without norms
DISTINCT = {
    **SMALL,
    "resnet18": 32,
    "resnest50d": 32,
    "food11_student": 32,
    "food11_low_rank": 32,
    "food11_grouped": 32,
}


def lively_student(backbone: str, head: str = "multi-fc", *, seed: int = 0) -> Student:
    """Gammas and betas of all sorts, and statistics that fit them, so that one layer's errors reach the logits."""
    torch.manual_seed(seed)
    options = {"groups": 4} if head == "single-shuffle-conv" else {}
    student = build_student(backbone=backbone, head={"kind": head, **options}, tasks=TASKS)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(-1, 1)
                module.bias.normal_()
    size = FAMILIES[backbone]
    recalibrate(student, [torch.randn(4, 3, size, size)])
    return student.eval()


def some_units(group: Group, share: float, *, seed: int = 0) -> tuple[int, ...]:
    """A random choice that the group allows."""
    count = max(1, int(group.num_units * share) // group.unit_step) * group.unit_step
    order = torch.randperm(group.num_units, generator=torch.Generator().manual_seed(seed))
    return tuple(sorted(order[:count].tolist()))


def images(size: int) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("backbone", "size"), FAMILIES.items())
def test_masked_equals_rebuilt_for_every_backbone(backbone: str, size: int) -> None:
    student = lively_student(backbone)
    kept = {group.name: some_units(group, 0.6, seed=at) for at, group in enumerate(student.channel_groups())}
    for fold in (False, True):
        equivalence = check_equivalence(*rewrite(student, kept, fold=fold), {"random": images(size)})["random"]
        assert equivalence.largest_logit > 0


@pytest.mark.parametrize("head", [*HEADS, "multi-embedding, no activation", "multi-shared-fc, relu"])
@pytest.mark.parametrize(("backbone", "size"), SMALL.items())
def test_masked_equals_rebuilt_for_every_head(backbone: str, size: int, head: str) -> None:
    kind, _, variant = head.partition(", ")
    student = lively_student(backbone, kind)
    if variant:
        options = {"kind": kind, "activation": "relu" if variant == "relu" else "none"}
        student = build_student(backbone=backbone, head=options, tasks=TASKS).eval()
    kept = {group.name: some_units(group, 0.5, seed=at) for at, group in enumerate(student.channel_groups())}
    for fold in (False, True):
        check_equivalence(*rewrite(student, kept, fold=fold), {"random": images(size)})


@pytest.mark.parametrize(("backbone", "size"), DISTINCT.items())
def test_each_group_alone_matters_and_is_rebuilt(backbone: str, size: int) -> None:
    """Group by group, so that one group's errors cannot hide behind the silence of another."""
    student = lively_student(backbone, "multi-shared-fc")
    groups = student.channel_groups()
    if len(groups) > 15:
        # The families repeat their blocks: one group of each kind and shape, and both ends.
        seen: dict[tuple[object, ...], Group] = {}
        for group in groups:
            seen.setdefault((group.kind, group.copies, len(group.gates) > 2, group.foldable), group)
        groups = tuple(seen.values())
    inputs = images(size)
    with torch.no_grad():
        whole = copy.deepcopy(student).double()(inputs.double())
    for group in groups:
        masked, narrow = rewrite(student, {group.name: some_units(group, 0.5)}, fold=True)
        check_equivalence(masked, narrow, {"random": inputs})
        with torch.no_grad():
            changed = masked(inputs.double())
        assert any(not torch.equal(changed[task], whole[task]) for task in TASKS), group.name


def test_folding_moves_the_output_less_than_dropping() -> None:
    """Near-zero gammas: what such a channel passes on is its constant, and folding keeps it."""
    student = lively_student("mobilenetv2_050")
    groups = {group.name: group for group in student.channel_groups() if group.kind == "hidden"}
    kept = {name: some_units(group, 0.5) for name, group in groups.items()}
    with torch.no_grad():
        for name, group in groups.items():
            gone = [unit for unit in range(group.num_units) if unit not in kept[name]]
            student.get_submodule(group.gates[-1].module).weight[gone] = 1e-12
        inputs = images(32).double()
        whole = copy.deepcopy(student).double()(inputs)
        folded, dropped = (rewrite(student, kept, fold=fold)[1](inputs) for fold in (True, False))
    for task in TASKS:
        assert (folded[task] - whole[task]).abs().max() < 1e-6 * whole[task].abs().max()
        assert (dropped[task] - whole[task]).abs().max() > 1e-2 * whole[task].abs().max()


def test_the_constant_of_a_stream_is_followed_through_its_activations() -> None:
    """A channel of gammas near zero holds relu(relu(b0 + b1) + b2) behind the second block: folding keeps it."""
    student = lively_student("resnet26")
    stream = next(group for group in student.channel_groups() if group.name == "backbone.layer2.0.conv3")
    kept = some_units(stream, 0.5)
    gone = [unit for unit in range(stream.num_units) if unit not in kept]
    assert len(stream.gates) == 3
    inputs = images(32).double()
    with torch.no_grad():
        for gate in stream.gates:
            student.get_submodule(gate.module).weight[gone] = 1e-12
        whole = copy.deepcopy(student).double()(inputs)
        folded, dropped = (rewrite(student, {stream.name: kept}, fold=fold)[1](inputs) for fold in (True, False))
    for task in TASKS:
        assert (folded[task] - whole[task]).abs().max() < 1e-6 * whole[task].abs().max()
        assert (dropped[task] - whole[task]).abs().max() > 1e-3 * whole[task].abs().max()


def test_constants_are_folded_only_where_nothing_changes_them_on_the_way() -> None:
    folds = {group.name: group.foldable for group in lively_student("mobilenetv2_050").channel_groups()}
    assert all(folds.values())  # every reader is pointwise
    folds = {group.name: group.foldable for group in lively_student("resnet18").channel_groups()}
    assert not any(folds.values())  # every stream and block has a padded reader
    folds = {group.name: group.foldable for group in lively_student("resnest50d").channel_groups()}
    streams = [f"backbone.layer{stage}.0.conv3" for stage in (1, 2, 3, 4)]
    assert all(folds[name] for name in ("backbone.conv1.6", *streams))  # 1x1 readers throughout
    assert not any(folds[name] for name in ("backbone.conv1.0", "backbone.conv1.3", "backbone.layer1.0.conv1"))
    excited = {group.name: group.foldable for group in lively_student("mobilenetv2_050", "multi-se").channel_groups()}
    assert not excited["backbone.conv_head"]
    assert excited["heads.excite.0"]


def test_all_members_of_a_residual_stream_share_one_mask() -> None:
    student = lively_student("resnet18")
    stream = next(group for group in student.channel_groups() if group.name == "backbone.layer2.0.conv2")
    student.narrow({stream.name: some_units(stream, 0.25)})
    widths = {
        name: student.get_submodule(f"backbone.{name}").out_channels
        for name in ("layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2", "layer2.0.conv1", "layer3.0.conv1")
    }
    assert widths == {
        "layer2.0.conv2": 32,
        "layer2.0.downsample.0": 32,
        "layer2.1.conv2": 32,
        "layer2.0.conv1": 128,
        "layer3.0.conv1": 256,
    }


def test_the_shuffle_keeps_its_permutation_over_fewer_channels() -> None:
    """The column of the head's convolution that read channel c before the narrowing reads it after it, too."""
    student = lively_student("food11_low_rank", "single-shuffle-conv")
    features = next(group for group in student.channel_groups() if group.kind == "features")
    kept = some_units(features, 0.3)
    assert len(kept) % 4 == 0
    before = copy.deepcopy(student.heads)
    student.narrow({features.name: kept})
    for new, old in enumerate(kept):
        alone_before, alone_after = torch.zeros(1, features.num_units), torch.zeros(1, len(kept))
        alone_before[0, old] = alone_after[0, new] = 1.0
        with torch.no_grad():
            ours, theirs = student.heads(alone_after), before(alone_before)
        assert all(torch.equal(ours[task], theirs[task]) for task in TASKS)


@pytest.mark.parametrize("place", [0, 3, -3], ids=["first", "inside", "last"])
def test_a_wrong_rebuild_is_refused_wherever_it_is(place: int) -> None:
    student = lively_student("mobilenetv2_050")
    group = student.channel_groups()[place]
    masked, narrow = rewrite(student, {group.name: some_units(group, 0.5)}, fold=True)
    with torch.no_grad():
        narrow.get_submodule(group.consumers[0].module).weight[0, 0] *= 1 + 1e-4
    with pytest.raises(NotEquivalent, match=r"differs from the masked one by .*nothing was written"):
        check_equivalence(masked, narrow, {"random": images(32)})
    with torch.no_grad():
        narrow.get_submodule(group.consumers[0].module).weight.fill_(torch.nan)
    with pytest.raises(NotEquivalent):
        check_equivalence(masked, narrow, {"random": images(32)})


@pytest.mark.parametrize(("backbone", "size"), DISTINCT.items())
def test_a_narrowed_network_is_rebuilt_from_its_flat_arguments(backbone: str, size: int) -> None:
    student = lively_student(backbone, "multi-embedding")
    student.narrow({group.name: some_units(group, 0.4) for group in student.channel_groups()})
    again = build_student(**student.architecture).eval()
    again.load_state_dict(student.state_dict())
    assert again.num_features == student.num_features
    assert again.num_parameters == student.num_parameters < lively_student(backbone, "multi-embedding").num_parameters
    with torch.no_grad():
        ours, theirs = again(images(size)), student(images(size))
    assert all(torch.equal(ours[task], theirs[task]) for task in TASKS)


def test_narrowing_twice_says_the_final_widths() -> None:
    student = lively_student("mobilenetv2_050", "multi-embedding")
    first, second = "backbone.blocks.3.0.conv_pw", "heads.branches.task_age.0.0"
    student.narrow({first: range(64)})
    student.narrow({first: range(32), second: range(100), "backbone.conv_stem": range(16)})
    assert student.architecture["widths"] == {first: 32, second: 100}  # the stem kept all
    again = build_student(**student.architecture)
    assert again.get_submodule(first).out_channels == 32


def test_a_narrowed_network_trains_and_every_parameter_gets_a_gradient() -> None:
    student = lively_student("mobilenetv2_050", "multi-embedding")
    student.narrow({group.name: some_units(group, 0.4) for group in student.channel_groups()})
    logits = student.train()(torch.randn(4, 3, 64, 64))
    sum(values.square().sum() for values in logits.values()).backward()
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_member_exists_and_fits_its_group(backbone: str) -> None:
    student = lively_student(backbone, "multi-se")
    groups = student.channel_groups()
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        assert group.kind in KINDS
        for member in (*group.producers, *group.gates, *group.followers, *group.scalers):
            module = student.get_submodule(member.module)
            assert len(module.weight) == member.positions(group.num_units).numel(), member.module
        for consumer in group.consumers:
            module = student.get_submodule(consumer.module)
            inputs = module.in_channels if isinstance(module, nn.Conv2d) else module.in_features
            assert inputs == consumer.positions(group.num_units).numel(), consumer.module


def test_positions_of_copies_maps_and_shuffles() -> None:
    assert Member("m").positions(3).tolist() == [[0], [1], [2]]
    assert Member("m", copies=2).positions(3).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert Member("m", spread=2).positions(3).tolist() == [[0, 1], [2, 3], [4, 5]]
    # Six channels in two groups of three are read as 0, 3, 1, 4, 2, 5.
    assert Member("m", shuffle=2).positions(6).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnest50d_4s2x40d", r"split attention of radix 4 over 2 cardinal groups.*cannot be pruned"),
        ("mobilenetv1_100", r"ends without a last 1x1 convolution"),
        ("efficientnet_b0", r"squeeze-and-excitation, for which no channel groups are declared"),
        ("mixnet_s", r"conv_pw is a MixedConv2d, for which no channel groups are declared"),
        ("resnet50_gn", r"backbone.layer1.0.bn1 is a GroupNorm; only channels behind batch norms can be pruned"),
        ("test_efficientnet_evos", r"bn1 is a EvoNorm2dS0; only channels behind batch norms can be pruned"),
        ("test_convnext", r"class ConvNeXt cannot be pruned: no channel groups are declared"),
    ],
)
def test_backbones_that_cannot_be_pruned_say_why(backbone: str, message: str) -> None:
    student = build_student(backbone=backbone, head={"kind": "multi-fc"}, tasks=TASKS)
    with pytest.raises(ModelError, match=message):
        student.channel_groups()


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"backbone.blocks.1.0.conv_pwx": 8}, r"no channel group 'backbone.blocks.1.0.conv_pwx'; did you mean"),
        ({"backbone.conv_stem": 17}, r"'backbone.conv_stem' is 17; it must be a multiple of 1 from 1 to 16"),
        ({"backbone.conv_stem": 0}, r"'backbone.conv_stem' is 0"),
        ({"backbone.conv_head": 1270}, r"multiple of 4 from 4 to 1280"),
    ],
)
def test_widths_that_do_not_fit_are_refused_by_name(widths: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_student(backbone="mobilenetv2_050", head={"kind": "single-shuffle-conv"}, tasks=TASKS, widths=widths)


def test_published_weights_and_widths_exclude_each_other() -> None:
    with pytest.raises(ModelError, match="published weights do not fit a narrowed network"):
        build_student(
            backbone="resnet18",
            head={"kind": "multi-fc"},
            tasks=TASKS,
            pretrained=True,
            widths={"backbone.layer1.0.conv1": 8},
        )


@pytest.mark.parametrize(("backbone", "size"), [("mobilenetv2_050", 96), ("resnest50d", 64), ("cifar10_student", 32)])
def test_costs_are_those_of_the_summary_without_a_computation(backbone: str, size: int) -> None:
    student = lively_student(backbone, "multi-se")
    summary, cost = summarize(student, image_size=size), count_cost(student, image_size=size)
    assert (cost.parameters, cost.macs) == (summary.parameters, summary.macs)
    shadow = without_weights(student)
    assert all(tensor.device.type == "meta" for tensor in (*shadow.parameters(), *shadow.buffers()))
    assert all(tensor.device.type == "cpu" for tensor in student.parameters())
    groups = student.channel_groups()
    kept = {group.name: some_units(group, 0.5) for group in groups}
    shadow.narrow(kept)
    student.narrow(kept)
    assert count_cost(shadow, image_size=size) == count_cost(student, image_size=size) != cost
