"""Every head over every kind of backbone: shapes, gradients, stable names, and what each shape promises."""

import pytest
import torch

from models.errors import ModelError
from models.heads import HEADS, build_head
from models.student import Student, build_student

TASKS = {"type": 2, "age": 5, "beauty": 3}  # "type" is also a method of nn.Module
BACKBONES = {"cifar_resnet20": 32, "cifar10_student": 32, "mobilenetv2_050": 64}  # name: image size

# Parameters over 1280 features for 10 classes in 3 tasks.
PARAMETERS = {
    "single-conv": 1280 * 10 * 9 + 10,
    "single-shuffle-conv": 1280 * 10 * 9 + 10,
    "multi-fc": 1280 * 10 + 10,
    "multi-se": (1280 * 80 + 80) + (80 * 1280 + 1280) + (1280 * 10 + 10),
    "multi-shared-fc": (1280 * 512 + 512) + (512 * 10 + 10),
    "multi-embedding": 3 * (1280 * 512 + 2 * 512) + (512 * 10 + 10),
}


def student(backbone: str, kind: str) -> Student:
    torch.manual_seed(0)
    return build_student(backbone=backbone, head={"kind": kind}, tasks=TASKS)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_task_gets_logits_and_every_parameter_a_gradient(backbone: str, kind: str) -> None:
    model = student(backbone, kind).train()
    logits = model(torch.randn(4, 3, BACKBONES[backbone], BACKBONES[backbone]))
    assert {task: tuple(values.shape) for task, values in logits.items()} == {t: (4, c) for t, c in TASKS.items()}
    assert list(logits) == list(TASKS)
    sum(values.square().sum() for values in logits.values()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.heads.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_each_loss_reaches_only_its_own_branch_and_what_is_shared(kind: str) -> None:
    model = student("cifar_resnet20", kind).train()
    model(torch.randn(4, 3, 32, 32))["age"].sum().backward()
    foreign = [n for n, p in model.heads.named_parameters() if "task_type" in n and p.grad is not None]
    assert not foreign


@pytest.mark.parametrize("kind", HEADS)
def test_one_image_in_eval_gives_what_it_gives_in_a_batch(kind: str) -> None:
    model = student("mobilenetv2_050", kind).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        batch, alone = model(images), model(images[:1])
    for task in TASKS:
        torch.testing.assert_close(alone[task], batch[task][:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_parameter_counts_are_those_of_the_recipe(kind: str) -> None:
    head = build_head(kind=kind, num_features=1280, tasks=TASKS)
    assert sum(parameter.numel() for parameter in head.parameters()) == PARAMETERS[kind]


def test_state_dict_names_are_a_promise_to_saved_models() -> None:
    names = {kind: sorted(build_head(kind=kind, num_features=32, tasks={"type": 2}).state_dict()) for kind in HEADS}
    fc = ["classifiers.task_type.bias", "classifiers.task_type.weight"]
    norm = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    assert names == {
        "single-conv": ["conv.bias", "conv.weight"],
        "single-shuffle-conv": ["conv.bias", "conv.weight"],
        "multi-fc": fc,
        "multi-se": [*fc, "excite.0.bias", "excite.0.weight", "excite.2.bias", "excite.2.weight"],
        "multi-shared-fc": [*fc, "shared.bias", "shared.weight"],
        "multi-embedding": [
            "branches.task_type.0.0.weight",
            *(f"branches.task_type.0.1.{name}" for name in norm),
            "branches.task_type.1.bias",
            "branches.task_type.1.weight",
        ],
    }


@pytest.mark.parametrize("kind", HEADS)
def test_bf16_autocast_trains_in_channels_last(kind: str) -> None:
    model = student("mobilenetv2_050", kind).to(memory_format=torch.channels_last).train()
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert all(values.dtype == torch.bfloat16 for values in logits.values())
    sum(values.float().square().sum() for values in logits.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_3x3_kernel_on_the_pooled_map_is_the_1x1_kernel_at_its_centre() -> None:
    wide = build_head(kind="single-conv", num_features=16, tasks=TASKS)
    narrow = build_head(kind="single-conv", num_features=16, tasks=TASKS, kernel=1)
    state = wide.state_dict()
    narrow.load_state_dict({"conv.weight": state["conv.weight"][:, :, 1:2, 1:2], "conv.bias": state["conv.bias"]})
    pooled = torch.randn(5, 16)
    for task in TASKS:
        torch.testing.assert_close(wide(pooled)[task], narrow(pooled)[task])


def test_the_shuffle_interleaves_its_groups() -> None:
    shuffled = build_head(kind="single-shuffle-conv", num_features=8, tasks=TASKS, groups=4)
    straight = build_head(kind="single-conv", num_features=8, tasks=TASKS)
    straight.load_state_dict(shuffled.state_dict())
    pooled = torch.randn(3, 8)
    interleaved = pooled[:, [0, 2, 4, 6, 1, 3, 5, 7]]  # first of each group of two, then second of each
    torch.testing.assert_close(shuffled(pooled)["age"], straight(interleaved)["age"])


@pytest.mark.parametrize("kind", ["multi-shared-fc", "multi-embedding"])
def test_without_activation_the_head_is_one_affine_map(kind: str) -> None:
    first, second, zero = torch.randn(2, 16), torch.randn(2, 16), torch.zeros(2, 16)

    def bend(activation: str) -> float:
        torch.manual_seed(0)
        head = build_head(kind=kind, num_features=16, tasks=TASKS, width=8, activation=activation).eval()
        outputs = [head(pooled)["age"].detach() for pooled in (first + second, first, second, zero)]
        return float((outputs[0] - outputs[1] - outputs[2] + outputs[3]).abs().max())

    assert bend("none") < 1e-5
    assert bend("relu") > 1e-3


def test_excitation_scales_features_by_their_sigmoid() -> None:
    head = build_head(kind="multi-se", num_features=16, tasks=TASKS, reduction=4)
    torch.nn.init.zeros_(head.excite[2].weight)
    torch.nn.init.zeros_(head.excite[2].bias)
    pooled = torch.randn(2, 16)
    torch.testing.assert_close(head(pooled)["age"], head.classifiers.task_age(pooled * 0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "multi_fc"}, r"unknown head.kind 'multi_fc'; did you mean 'multi-fc'\?"),
        ({"kind": "multi-fc", "width": 512}, r"head 'multi-fc' has no option 'width' \(its options: none\)"),
        ({"kind": "multi-se", "reductoin": 8}, r"no option 'reductoin' \(its options: reduction\)"),
        ({"kind": "multi-embedding", "activation": "gelu"}, r"head.activation is 'gelu'; it must be relu or none"),
        ({"kind": "single-conv", "kernel": 5}, r"head.kernel is 5; it must be 1 or 3"),
        ({"kind": "single-shuffle-conv", "groups": 5}, r"head.groups is 5; it must divide the backbone's 32 features"),
        ({"kind": "multi-se", "reduction": 64}, r"head.reduction is 64; it must be at most"),
        ({"kind": "multi-embedding", "width": 0}, r"head.width is 0; it must be a whole number of at least 1"),
        ({"kind": "multi-fc", "tasks": {"age": 1}}, r"task 'age' has 1 classes; classification needs at least 2"),
        ({"kind": "multi-fc", "tasks": {}}, r"no tasks"),
    ],
)
def test_what_a_head_cannot_be_is_said_by_name(arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_head(**{"num_features": 32, "tasks": TASKS, **arguments})
