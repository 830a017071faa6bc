"""The network for the phone: the teacher pruned in rounds to a budget or as far as it keeps its accuracy, or a smaller
backbone that learns from it.

student = make_student(steps, teacher, eval_size=208); student.model, student.rounds
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from train.pipeline.config import Budget
from train.pipeline.recipe import DEFAULT_SHARE, round_shares
from train.pipeline.steps import Model, Steps

_MOST_ROUNDS = 8
_SMALLER = 0.6  # of the MACs that a round keeps where accuracy decides
_TEACHER = {"temperature": 5.0, "weight": 0.2}


@dataclass(frozen=True)
class MadeStudent:
    """model: the one to export. rounds: every trained network on the way, the teacher first."""

    model: Model
    rounds: tuple[Model, ...]


def make_student(steps: Steps, teacher: Model, *, eval_size: int) -> MadeStudent:
    """As the config wants it."""
    if steps.config.student != "pruned":
        return _distil(steps, teacher, eval_size)
    if steps.config.budget.max_points_lost is not None:
        return _prune_while_it_keeps(steps, teacher, eval_size, allowed=steps.config.budget.max_points_lost)
    return _prune_to_budget(steps, teacher, eval_size)


def _prune_to_budget(steps: Steps, teacher: Model, eval_size: int) -> MadeStudent:
    share, limits = _goal(steps, teacher)
    shares = round_shares(share)
    rounds = [teacher]
    for number, kept in enumerate(shares, start=1):
        is_last = number == len(shares)
        relative = ["--max-macs", f"{100 * kept:.4g}%"]
        pruned = steps.prune(f"student/round{number}", rounds[-1], limits if is_last and limits else relative)
        if not pruned["is_new"] and not is_last:
            continue
        name = "tuned" if is_last else f"student/round{number}-tuned"
        epochs = steps.recipe.tune_epochs if is_last else steps.recipe.round_epochs
        rounds.append(steps.tune(name, pruned, epochs=epochs, eval_size=eval_size))
    return MadeStudent(rounds[-1], tuple(rounds))


def _prune_while_it_keeps(steps: Steps, teacher: Model, eval_size: int, *, allowed: float) -> MadeStudent:
    """Rounds until a task loses more points of top-1 than is allowed; the smallest network that kept it."""
    before = steps.top1("student/measured-teacher", teacher, sizes=[eval_size])[eval_size]
    rounds, kept = [teacher], teacher
    for number in range(1, _MOST_ROUNDS + 1):
        name = f"student/round{number}"
        pruned = steps.prune(
            name, rounds[-1], ["--max-macs", f"{100 * _SMALLER:g}%"], nothing_where="cannot be reached"
        )
        if not pruned["is_new"]:
            break
        tuned = steps.tune(f"{name}-tuned", pruned, epochs=steps.recipe.tune_epochs, eval_size=eval_size)
        rounds.append(tuned)
        now = steps.top1(f"student/measured-round{number}", tuned, sizes=[eval_size])[eval_size]
        lost = {task: 100 * (before[task] - top1) for task, top1 in now.items()}
        worst = max(lost, key=lambda task: lost[task])
        steps.workshop.tell(f"{name}: task {worst!r} lost most, {lost[worst]:.1f} points of {allowed:g} allowed")
        if lost[worst] > allowed:
            break
        kept = tuned
    if kept is teacher:
        steps.workshop.tell(f"student: no round keeps every task within {allowed:g} points; the teacher is exported")
    return MadeStudent(kept, tuple(rounds))


def _distil(steps: Steps, teacher: Model, eval_size: int) -> MadeStudent:
    epochs = 2 * steps.recipe.epochs
    settings = steps.settings(epochs=epochs, eval_size=eval_size, lr=steps.recipe.lr)
    settings["model"] = {"backbone": steps.config.student, "head": {"kind": "multi-fc"}}
    settings["teacher"] = {"model": teacher["model"], **_TEACHER}
    what = f"{steps.config.student} learns from the teacher, {epochs} epochs"
    tuned = steps.train("tuned", settings, what=what, models=[teacher])
    return MadeStudent(tuned, (teacher, tuned))


def _goal(steps: Steps, teacher: Model) -> tuple[float, list[str]]:
    """(share of the teacher's MACs that the budget leaves, its limits in absolute numbers as options of prune: the
    rounds see smaller networks than the teacher, of which shares would be others)."""
    words = budget_words(steps.config.budget)
    if not words:
        return DEFAULT_SHARE, []
    # Without a limit for layers, which the rounds have: it says how small the network becomes, not how.
    costs = steps.prune("student/probe", teacher, words, score=("--score", "l2"))["costs"]
    if not costs:
        return 1.0, words
    share = costs["macs"]["after"] / costs["macs"]["before"]
    before = {kind: costs[kind]["before"] for kind in costs}
    absolute = [_absolute(option, value, before) for option, value in zip(words[::2], words[1::2], strict=True)]
    return share, [word for pair in absolute for word in pair]


def budget_words(budget: Budget) -> list[str]:
    """The limits as options of `python -m prune`, each followed by its value; none where there are none."""
    given = {
        "--max-bytes": budget.max_bytes,
        "--max-macs": budget.max_macs,
        "--max-params": budget.max_params,
        "--max-latency-ms": budget.max_latency_ms,
    }
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    if budget.max_latency_ms is not None:
        words += ["--threads", str(budget.threads)]
    return words


def amount(text: str | int) -> float:
    """`500K` -> 500000."""
    text = str(text)
    return float(text.rstrip("KMG")) * {"K": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)


def _absolute(option: str, value: str, before: Mapping[str, Any]) -> tuple[str, str]:
    """A share of what the teacher has, as a number."""
    kinds = {"--max-macs": "macs", "--max-params": "parameters", "--max-bytes": "int8_bytes"}
    if not value.endswith("%"):
        return option, value
    return option, str(math.floor(float(value.rstrip("%")) / 100 * before[kinds[option]]))
