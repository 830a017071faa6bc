"""A student learns from its teacher: all tasks or some, from one model or several, and the teacher stays untouched."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from models.artifact import load_artifact
from models.errors import ModelError
from tests.conftest import TINY_TASKS, jpeg_bytes
from tests.edited_json import edit_json, read_json
from tests.small_run import Outcome, train_small
from tests.tiny_models import save_tiny_model
from train.distillation.loss_terms import distillation_term, teacher_columns
from train.distillation.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
LONG = ("schedule.epochs=12", "augment.policy=none", "optimizer.lr=0.05", "checkpoint.every_steps=null")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1)


def one_of(folder: Path, *tasks: str, seed: int = 2, **options: Any) -> Path:
    return save_tiny_model(folder, seed=seed, tasks={task: TINY_TASKS[task] for task in tasks}, **options)


def trained(shards: Path, folder: Path, *overrides: str) -> Outcome:
    outcome = train_small(shards, folder, "seed=3", *overrides)
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


def curve(outcome: Outcome, name: str) -> list[float]:
    return [line[name] for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]


def falls(values: list[float]) -> bool:
    return sum(values[-6:]) < 0.85 * sum(values[:6])


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.run / "last/model.safetensors")


def assert_same_weights(ours: Outcome, theirs: Outcome, *, tolerance: float = 0.0) -> None:
    expected = weights(theirs)
    for name, tensor in weights(ours).items():
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)


def test_the_teachers_answers_move_the_student_towards_it(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = trained(tiny_shards, tmp_path, *LONG, f"teacher={{model: {teacher}, temperature: 2}}")
    for task in TINY_TASKS:
        assert falls(curve(outcome, f"loss.{task}.teacher"))
    assert "teacher of colour, tone: computed in every step" in outcome.stdout


def test_the_total_is_labels_plus_teacher_with_their_weights(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    tasks = "tasks={colour: {weight: 2.0}, tone: {}}"
    for number, (teacher_options, shares) in enumerate(
        [
            ("", {"colour": (2, 2), "tone": (1, 1)}),
            (", weight: {colour: 3, tone: 0.5}", {"colour": (2, 6), "tone": (1, 0.5)}),
            (", alpha: 0.25", {"colour": (1.5, 0.5), "tone": (0.75, 0.25)}),
        ]
    ):
        outcome = trained(tiny_shards, tmp_path / str(number), tasks, f"teacher={{model: {teacher}{teacher_options}}}")
        for line in outcome.lines("metrics.jsonl"):
            if line["kind"] == "train":
                total = sum(
                    label * line[f"loss.{task}"] + kd * line[f"loss.{task}.teacher"]
                    for task, (label, kd) in shares.items()
                )
                assert line["loss"] == pytest.approx(total, rel=1e-5)


def test_a_ramp_starts_at_nothing_and_ends_at_the_full_weight(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = trained(
        tiny_shards,
        tmp_path,
        "schedule.epochs=3",
        "tasks={colour: {weight: 10, ramp: 2}}",
        f"teacher={{model: {teacher}, alpha: 0.5}}",
    )
    lines = [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]
    for line in lines:
        share = (line["epoch"] / 2) ** 2
        expected = 10 * share * (0.5 * line["loss.colour"] + 0.5 * line["loss.colour.teacher"])
        assert line["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert [line["epoch"] for line in lines] == [0] * 3 + [1] * 3 + [2] * 3


def test_a_teacher_per_task_is_the_teacher_that_has_them_all(tiny_shards: Path, tmp_path: Path) -> None:
    """Two models of which each has the other's heads, too: only the named one is heard."""
    one, other = save_tiny_model(tmp_path / "one", seed=1), save_tiny_model(tmp_path / "other", seed=2)
    outcome = trained(tiny_shards, tmp_path / "a", f"teacher={{model: {{colour: {one}, tone: {other}}}}}")
    of_one = trained(tiny_shards, tmp_path / "b", f"teacher={{model: {one}, weight: 0}}")
    first = [curve(run, "loss.colour")[0] for run in (outcome, of_one)]
    assert first[0] == first[1]
    answers = {path: load_teacher(str(path), device=CPU, precision="fp32") for path in (one, other)}
    both = load_teacher({"colour": str(one), "tone": str(other)}, device=CPU, precision="fp32")
    image = torch.randint(256, (4, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(both(image)[:, :3], answers[one](image)[:, :3])
    assert torch.equal(both(image)[:, 3:], answers[other](image)[:, 3:])


def test_tasks_that_the_teacher_lacks_learn_from_labels_alone(tiny_shards: Path, tmp_path: Path) -> None:
    teacher = one_of(tmp_path / "teacher", "tone")
    outcome = trained(tiny_shards, tmp_path / "a", f"teacher={{model: {teacher}, alpha: 0.4}}")
    for line in outcome.lines("metrics.jsonl"):
        if line["kind"] == "train":
            assert "loss.colour.teacher" not in line
            expected = line["loss.colour"] + 0.6 * line["loss.tone"] + 0.4 * line["loss.tone.teacher"]
            assert line["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_task_that_only_the_teacher_knows_is_learnt_from_it_alone(tiny_shards: Path, tmp_path: Path) -> None:
    classes = {"shape": ("round", "square", "odd"), **TINY_TASKS}
    teacher = save_tiny_model(tmp_path / "teacher", seed=4, tasks=classes)
    outcome = trained(
        tiny_shards, tmp_path, "tasks={colour: {}, shape: {}}", f"teacher={{model: {teacher}}}", "schedule.epochs=6"
    )
    _, meta = load_artifact(outcome.run / "last")
    assert meta.tasks == {"colour": TINY_TASKS["colour"], "shape": classes["shape"]}
    lines = [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]
    assert all(line["loss.shape"] is None for line in lines)
    assert lines[-1]["loss.shape.teacher"] < lines[0]["loss.shape.teacher"]


def test_photos_without_any_label_train_through_the_teacher_only(teacher: Path, tmp_path: Path) -> None:
    from data.build import main as build

    photos = tmp_path / "photos"
    photos.mkdir()
    rows = ["image"]
    for number in range(22):
        (photos / f"{number}.jpg").write_bytes(jpeg_bytes(colour=number % 3, tone=number % 2, seed=number))
        rows.append(f"{number}.jpg")
    (photos / "list.csv").write_text("\n".join(rows) + "\n")
    assert build(["--source", f"manifest:{photos / 'list.csv'}", "--out", str(tmp_path / "shards/train")]) == 0
    options = (f"data.train={tmp_path / 'shards/train/train'}", "data.val=null")
    outcome = train_small(tmp_path / "shards", tmp_path, *options, f"teacher={{model: {teacher}}}")
    assert outcome.exit_code == 0, outcome.stderr
    lines = [line for line in outcome.lines("metrics.jsonl") if line["kind"] == "train"]
    assert all(line["loss.colour"] is None and line["loss.colour.teacher"] > 0 for line in lines)
    without = train_small(tmp_path / "shards", tmp_path / "b", *options)
    assert without.exit_code == 2
    assert "train has no labels, so a teacher must bring them" in without.stderr


def test_classes_are_matched_by_name_whatever_their_order() -> None:
    columns = teacher_columns(
        tasks={"tone": ("dark", "bright"), "colour": ("red", "green", "blue")},
        teacher={"other": ("x", "y"), "colour": ("blue", "red", "green"), "tone": ("dark", "bright")},
    )
    assert {task: chosen.tolist() for task, chosen in columns.items()} == {"colour": [3, 4, 2], "tone": [5, 6]}


def test_a_teacher_may_know_more_classes() -> None:
    columns = teacher_columns(
        tasks={"colour": ("red", "blue"), "tone": ("dark", "bright")},
        teacher={"colour": ("blue", "cyan", "red"), "tone": ("dark", "dim", "bright")},
    )
    assert {task: chosen.tolist() for task, chosen in columns.items()} == {"colour": [2, 0], "tone": [3, 5]}


def test_a_teacher_with_its_classes_in_another_order_teaches_the_same(tiny_shards: Path, tmp_path: Path) -> None:
    teacher = one_of(tmp_path / "teacher", "colour")
    turned = tmp_path / "turned"
    shutil.copytree(teacher, turned)
    order = [2, 0, 1]
    tensors = load_file(teacher / "model.safetensors")
    for name in ("weight", "bias"):
        key = f"heads.classifiers.task_colour.{name}"
        tensors[key] = tensors[key][order].contiguous()
    save_file(tensors, turned / "model.safetensors")
    rewrite_meta(turned, classes=[TINY_TASKS["colour"][number] for number in order])
    plain, other = (
        trained(tiny_shards, tmp_path / name, f"teacher={{model: {path}}}")
        for name, path in (("a", teacher), ("b", turned))
    )
    assert_same_weights(plain, other, tolerance=1e-6)


def rewrite_meta(folder: Path, *, classes: list[str] | None = None) -> None:
    import hashlib

    meta = read_json(folder / "model.json")
    meta["weights"]["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if classes is not None:
        meta["tasks"][0]["classes"] = classes
    edit_json(folder / "model.json", **meta)


def test_classes_that_the_teacher_lacks_are_refused_by_name(tiny_shards: Path, tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", seed=1, tasks={"colour": ("red", "green", "yellow")})
    outcome = train_small(tiny_shards, tmp_path, f"teacher={{model: {teacher}}}")
    assert outcome.exit_code == 2
    assert "task 'colour': the teacher does not know 'blue', classes of the data" in outcome.stderr


def test_a_teacher_without_a_common_task_is_refused() -> None:
    with pytest.raises(ModelError, match="the teacher knows food, none of the tasks colour, tone"):
        teacher_columns(tasks=TINY_TASKS, teacher={"food": ("a", "b")})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{model: nowhere}", "nowhere"),
        ("{model: {colour: TEACHER, shape: TEACHER}}", "teacher.model.shape: TEACHER has no such task; it has colour"),
        ("{cache: nowhere}", "A teacher cache needs it: make one with python -m train.cache_teacher"),
        (
            "{model: TEACHER, hints: [{kind: mse, student: backbone.layr1, teacher: backbone.layer1}]}",
            "the student has no layer 'backbone.layr1'; did you mean 'backbone.layer1'?",
        ),
        (
            "{model: TEACHER, hints: [{kind: mse, student: backbone.layer1, teacher: backbone.layer9}]}",
            "the teacher has no layer 'backbone.layer9'",
        ),
        (
            "{model: TEACHER, hints: [{kind: mse, student: backbone.layer1, teacher: backbone.layer2}]}",
            "the student's layer gives 64x6x6, the teacher's 128x3x3; bridge: regressor (trained) or pool (fixed)",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    setting: str, message: str, tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    outcome = train_small(tiny_shards, tmp_path, f"teacher={setting.replace('TEACHER', str(teacher))}")
    assert outcome.exit_code in (2, 65)
    assert message.replace("TEACHER", str(teacher)) in outcome.stderr
    assert "Traceback" not in outcome.stderr


HINTS = """[
  {kind: smooth-l1, student: backbone.layer1, teacher: backbone.layer1, weight: 30.0},
  {kind: mse, student: backbone.layer2, teacher: backbone.layer3, bridge: regressor, weight: 0.5, ramp: 1},
  {kind: attention, student: backbone.layer3, teacher: backbone.layer2, bridge: pool},
  {kind: cosine, student: backbone, teacher: backbone, weight: 0}
]""".replace("\n", "")


def test_hints_have_their_own_curves_and_bridges_stay_out_of_the_student(
    tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    outcome = trained(tiny_shards, tmp_path, f"teacher={{model: {teacher}, hints: {HINTS}}}", *LONG)
    names = ["hint0.smooth-l1.backbone.layer1", "hint1.mse.backbone.layer2", "hint2.attention.backbone.layer3"]
    for name in names:
        assert falls(curve(outcome, f"loss.{name}"))
    assert not [key for line in outcome.lines("metrics.jsonl") for key in line if "cosine" in key]
    checkpoint = load_file(max((outcome.run / "checkpoints").glob("*.safetensors")))
    assert "model.bridges.1.map.weight" in checkpoint
    assert "optimizer.bridges.1.map.weight.momentum_buffer" in checkpoint
    assert not [name for name in weights(outcome) if "bridge" in name]
    plain = train_small(tiny_shards, tmp_path / "plain")
    assert set(weights(outcome)) == set(weights(plain))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_hints_cross_their_bridges_in_half_precision(
    precision: str, tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    setting = f"teacher={{model: {teacher}, hints: {HINTS}}}"
    whole, half = (trained(tiny_shards, tmp_path / name, setting, f"precision={name}") for name in ("fp32", precision))
    key = "loss.hint1.mse.backbone.layer2"
    assert curve(half, key)[0] == pytest.approx(curve(whole, key)[0], rel=0.05)


def test_a_run_with_bridges_continues_to_the_same_end(
    tiny_shards: Path, teacher: Path, tmp_path: Path, stop_at: Any
) -> None:
    setting = f"teacher={{model: {teacher}, hints: {HINTS}}}"
    whole = trained(tiny_shards, tmp_path / "whole", setting)
    stop_at(4)
    first = train_small(tiny_shards, tmp_path / "parts", "seed=3", setting)
    assert first.exit_code == 75
    second = trained(tiny_shards, tmp_path / "parts", setting)
    assert_same_weights(second, whole)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The run is asked to stop before this step, once."""
    from train.distributed.preemption import StopSignal

    def arrange(step: int) -> None:
        calls = iter([False] * step + [True])
        monkeypatch.setattr(StopSignal, "requested", lambda self: next(calls, False))

    return arrange


def test_the_teacher_is_as_it_was_after_an_epoch(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    """Its parameters, its statistics, and its mode, although the student's train() and eval() ran around it."""
    from train.setup import distillation as assemble_teacher

    kept: list[Any] = []
    original = assemble_teacher.load_teacher

    def keep(*arguments: Any, **options: Any) -> Any:
        kept.append(original(*arguments, **options))
        kept.append(copy.deepcopy(kept[0].models[0].state_dict()))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble_teacher, "load_teacher", keep)
        outcome = trained(
            tiny_shards, tmp_path, f"teacher={{model: {teacher}, hints: {HINTS}}}", "augment.policy=strong"
        )
    model, before = kept[0].models[0], kept[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    checkpoint = load_file(max((outcome.run / "checkpoints").glob("*.safetensors")))
    assert not [name for name in checkpoint if "teacher" in name]


def break_teacher(folder: Path, *, every_photo: bool) -> None:
    """No finite logits, for any photo or for none."""
    tensors = load_file(folder / "model.safetensors")
    if every_photo:
        tensors["heads.classifiers.task_colour.weight"][:] = 3e38  # of which no sum is finite
    save_file(tensors, folder / "model.safetensors")
    rewrite_meta(folder)


def test_a_teacher_without_finite_logits_stops_the_run_with_the_list(
    tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(teacher, broken)
    break_teacher(broken, every_photo=True)
    outcome = train_small(tiny_shards, tmp_path, f"teacher={{model: {broken}}}")
    assert outcome.exit_code == 65
    assert "the teacher's logits are not finite" in outcome.stderr
    assert "bad samples are more than the 10 that data.max_bad_share allows" in outcome.stderr


def test_below_the_limit_such_samples_are_named_and_the_others_teach(
    tiny_shards: Path, teacher: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(teacher, broken)
    break_teacher(broken, every_photo=True)
    allowed = ("data.max_bad_share=1.0", f"teacher={{model: {broken}, weight: {{colour: 0, tone: 1}}}}")
    outcome = trained(tiny_shards, tmp_path / "a", *allowed)
    listed = outcome.lines("bad_samples.jsonl")
    assert {line["split"] for line in listed} == {"teacher"}
    assert len({(line["shard"], line["key"]) for line in listed}) == 33
    healthy = trained(tiny_shards, tmp_path / "b", allowed[0], f"teacher={{model: {teacher}, weight: {{colour: 0}}}}")
    assert_same_weights(outcome, healthy)  # only `colour` was broken, and it was not asked for


def test_the_teacher_sees_the_same_views_at_its_own_size(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = trained(tiny_shards, tmp_path, f"teacher={{model: {teacher}, image_size: 40}}", "augment.policy=strong")
    same_size = trained(tiny_shards, tmp_path / "b", f"teacher={{model: {teacher}}}", "augment.policy=strong")
    assert curve(outcome, "loss.colour")[0] == curve(same_size, "loss.colour")[0]
    assert curve(outcome, "loss.colour.teacher")[0] != curve(same_size, "loss.colour.teacher")[0]
    assert "40 px" in outcome.stdout


def test_a_term_reads_a_view_where_it_can_and_a_permutation_where_it_must() -> None:
    for columns in (torch.tensor([2, 3, 4]), torch.tensor([4, 2, 3])):
        term = distillation_term("a", columns=columns, loss="mse", temperature=1.0, weight=1.0)
        teacher = torch.randn(3, 6)
        batch: Any = type("B", (), {"teacher": teacher, "__len__": lambda self: 3})()
        student = {"a": torch.zeros(3, 3)}
        expected = teacher[:, columns].var(dim=1, unbiased=False).sum() / 2
        assert term.loss(student, batch).item() == pytest.approx(expected.item(), rel=1e-5)
        assert term.weight_sum(batch) == 3.0


def test_the_saved_config_names_the_teacher(tiny_shards: Path, teacher: Path, tmp_path: Path) -> None:
    outcome = trained(tiny_shards, tmp_path, f"teacher={{model: {teacher}, temperature: {{colour: 3}}}}")
    saved = yaml.safe_load((outcome.run / "config.yaml").read_text())
    assert saved["teacher"]["model"] == str(teacher)
    assert saved["teacher"]["temperature"] == {"colour": 3.0}
