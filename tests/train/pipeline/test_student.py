"""In which rounds the student is made: to a budget, or as long as it keeps its accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from train.pipeline.config import PipelineConfig
from train.pipeline.recipe import Recipe
from train.pipeline.student import amount, make_student

TEACHER = {"model": "teacher/last", "files": {"teacher": "0"}}
RECIPE = Recipe(160, 14, 4, 8, 64, 0.1, 0.04, "fp32", 1.0)


@dataclass
class Told:
    """Takes what a user would be told."""

    lines: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        self.lines.append(line)


@dataclass
class WrittenSteps:
    """Steps that are only written down. smallest: MACs below which nothing is pruned; top1: of the n-th tuned network.
    macs: of each model, by its folder."""

    config: PipelineConfig
    top1_of_round: Sequence[float] = ()
    smallest: float = 0.0
    recipe: Recipe = RECIPE
    workshop: Told = field(default_factory=Told)
    done: list[str] = field(default_factory=list)
    macs: dict[str, float] = field(default_factory=lambda: {"teacher/last": 100e6})

    def prune(self, name: str, model: Any, limits: Sequence[str], **options: Any) -> dict[str, Any]:
        before = self.macs[model["model"]]
        wanted = dict(zip(limits[::2], limits[1::2], strict=True))["--max-macs"]
        after = before * float(wanted.rstrip("%")) / 100 if wanted.endswith("%") else amount(wanted)
        self.done.append(f"{name} {after / 1e6:.1f}M, {options.get('nothing_where', 'the model already fits')}")
        if after >= before or after < self.smallest:
            return {**model, "is_new": False, "costs": {}}
        self.macs[name] = after
        costs = {kind: {"before": before, "after": after} for kind in ("macs", "parameters", "int8_bytes")}
        return {"model": name, "files": {name: "0"}, "is_new": True, "costs": costs}

    def tune(self, name: str, pruned: Any, *, epochs: int, eval_size: int) -> dict[str, Any]:
        self.done.append(f"{name} {epochs} epochs")
        self.macs[f"{name}/last"] = self.macs[pruned["model"]]
        return {"model": f"{name}/last", "files": {name: "0"}}

    def top1(self, name: str, model: Any, *, sizes: Sequence[int]) -> dict[int, dict[str, float]]:
        number = 0 if "teacher" in name else int(name.rpartition("round")[2])
        return {sizes[0]: {"a": self.top1_of_round[number], "b": 0.5}}


def steps(top1: Sequence[float] = (), smallest: float = 0.0, **budget: Any) -> WrittenSteps:
    return WrittenSteps(PipelineConfig(source="s", out="o", budget=budget), top1, smallest)


def test_without_a_budget_two_rounds_leave_thirty_percent():
    written = steps()
    student = make_student(written, TEACHER, eval_size=208)
    assert written.done == [
        "student/round1 54.8M, the model already fits",
        "student/round1-tuned 4 epochs",
        "student/round2 30.0M, the model already fits",
        "tuned 8 epochs",
    ]
    assert [model["model"] for model in student.rounds] == ["teacher/last", "student/round1-tuned/last", "tuned/last"]
    assert student.model["model"] == "tuned/last"


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        ("60M", ["60.0M"]),
        ("12%", ["58.9M", "34.6M", "20.4M", "12.0M"]),
        (5_000_000, ["54.9M", "30.2M", "16.6M", "9.1M", "5.0M"]),
    ],
)
def test_a_small_budget_is_reached_in_rounds_and_exactly(budget, rounds):
    written = steps(max_macs=budget)
    make_student(written, TEACHER, eval_size=208)
    pruned = [line.split()[1].rstrip(",") for line in written.done if line.startswith("student/round") and "M," in line]
    assert pruned == rounds


def test_a_budget_that_the_teacher_keeps_prunes_nothing():
    written = steps(max_macs="200M")
    student = make_student(written, TEACHER, eval_size=208)
    assert student.model["model"] == "tuned/last"
    assert written.macs["tuned/last"] == 100e6


def test_rounds_end_where_a_task_loses_too_much_and_the_last_that_kept_it_is_taken():
    written = steps(top1=[0.9, 0.91, 0.895, 0.88], max_points_lost=1.0)
    student = make_student(written, TEACHER, eval_size=208)
    assert student.model["model"] == "student/round2-tuned/last"
    assert len(student.rounds) == 4
    assert "student/round3: task 'a' lost most, 2.0 points of 1 allowed" in written.workshop.lines


def test_the_teacher_is_taken_where_no_round_keeps_every_task():
    written = steps(top1=[0.9, 0.5], max_points_lost=1.0)
    assert make_student(written, TEACHER, eval_size=208).model is TEACHER
    assert any("the teacher is exported" in line for line in written.workshop.lines)


def test_rounds_end_where_nothing_more_can_be_pruned():
    written = steps(top1=[0.9] * 9, smallest=30e6, max_points_lost=1.0)
    student = make_student(written, TEACHER, eval_size=208)
    assert student.model["model"] == "student/round2-tuned/last"
    assert written.done[-1] == "student/round3 21.6M, cannot be reached"
