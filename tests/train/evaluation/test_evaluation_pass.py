"""One pass serves every purpose: whole or not at all, summed over the ranks, the same for a live and a saved model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.errors import LoaderLost
from data.index import load_index
from data.loading.batch import BadRecord
from data.loading.eval_loader import EvalBatch
from data.loading.image_sets import ShardImages
from models.artifact import load_artifact
from models.preprocessing import Normalise
from tests.conftest import TINY_TASKS
from tests.tiny_models import SIZE, save_tiny_model
from train.distributed.comm import SingleProcess
from train.evaluation.ensemble import live_predictor, load_ensemble
from train.evaluation.evaluation import Evaluation, evaluate
from train.evaluation.evaluation_pass import Accumulator, Outputs, Predict, SeenSamples, rank_batches, run_evaluation

CPU = torch.device("cpu")
NUM_CLASSES = {task: len(names) for task, names in TINY_TASKS.items()}


def batch_of(keys: str, *, bad: str = "") -> EvalBatch:
    """A sample per letter; its one class is its place in the alphabet."""
    label = torch.tensor([ord(key) - ord("a") for key in keys], dtype=torch.int64)
    records = [BadRecord("0.tar", key, "cut", (0, 0), len(keys) + at) for at, key in enumerate(bad)]
    return EvalBatch(image={}, label={"letter": label}, key=list(keys), row=list(range(len(keys))), bad=records)


class Seen(Accumulator):
    """Keeps what it is given, and two numbers to be added up."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, dict[str, list[float]]]] = []
        self.total = torch.zeros(2, dtype=torch.float64)

    @property
    def sums(self) -> Sequence[Tensor]:
        return [self.total]

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        given = {name: output["letter"].tolist() for name, output in outputs.items()}
        self.batches.append(("".join(batch.key), len(batch.bad), given))
        self.total += torch.tensor([1.0, len(batch)])


def double(batch: EvalBatch) -> dict[str, Tensor]:
    return {"letter": batch.label["letter"] * 2.0}


def minus(batch: EvalBatch) -> dict[str, Tensor]:
    return {"letter": -1.0 * batch.label["letter"]}


def run(batches: Sequence[EvalBatch], *accumulators: Accumulator, num_samples: int) -> SeenSamples:
    models: dict[str, Predict] = {"double": double, "minus": minus}
    return run_evaluation(models, batches, accumulators, num_samples=num_samples, what="testing", device=CPU)


def test_every_accumulator_gets_every_batch_with_the_outputs_of_every_model() -> None:
    one, other = Seen(), Seen()
    seen = run([batch_of("ab"), batch_of("", bad="x"), batch_of("c", bad="y")], one, other, num_samples=5)
    assert one.batches == [
        ("ab", 0, {"double": [0, 2], "minus": [0, -1]}),
        ("", 1, {}),  # no model is asked about nothing
        ("c", 1, {"double": [4], "minus": [-2]}),
    ]
    assert other.batches == one.batches
    assert (seen.num_good, seen.num_bad, [record.key for record in seen.bad]) == (3, 2, ["x", "y"])


@pytest.mark.parametrize("num_samples", [3, 5])
def test_a_pass_that_is_not_whole_is_no_result(num_samples: int) -> None:
    with pytest.raises(LoaderLost, match=f"testing: 4 samples came, {num_samples} were planned"):
        run([batch_of("abc", bad="x")], num_samples=num_samples)


def test_progress_counts_bad_samples_as_well() -> None:
    counts: list[int] = []
    batches = [batch_of("ab", bad="x"), batch_of("", bad="y")]
    run_evaluation({}, batches, [], num_samples=4, what="testing", device=CPU, progress=counts.append)
    assert counts == [3, 1]


class Twins(SingleProcess):
    """Two ranks that have seen the same; counts the sums over them."""

    num_sums = 0

    def allreduce(self, tensor: Tensor, *, name: str) -> None:
        self.num_sums += 1
        assert name == "evaluation"
        tensor *= 2


def test_what_the_ranks_saw_is_added_up_in_one_sum() -> None:
    comm, one, other = Twins(), Seen(), Seen()
    batches = [batch_of("ab", bad="x"), batch_of("c")]
    options = {"num_samples": 8, "what": "testing", "device": CPU, "comm": comm}
    seen = run_evaluation({"double": double}, batches, [one, other], **options)  # type: ignore[arg-type]
    assert comm.num_sums == 1
    assert one.total.tolist() == other.total.tolist() == [4, 6]
    assert (seen.num_good, seen.num_bad, len(seen.bad)) == (6, 2, 1)  # bad ones are named by the rank that met them


def on_validation(predict: Predict, shards: Path, *, num_views: int = 1) -> Evaluation:
    index, comm = load_index(shards / "val"), SingleProcess()
    batches = rank_batches(ShardImages(index), comm, sizes=[SIZE], num_views=num_views, batch_size=5, workers=0)
    options = {"num_samples": index.num_samples, "num_classes": NUM_CLASSES, "device": CPU}
    return evaluate(predict, batches, comm, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_in_memory_measures_to_the_bit_as_the_file_that_it_is_saved_in(
    precision: str, tiny_shards: Path, tmp_path: Path
) -> None:
    """So that a validation in training and `train.evaluate` of best/ cannot differ."""
    folder = save_tiny_model(tmp_path / "a", seed=1)
    model, meta = load_artifact(folder)
    live = live_predictor(
        model.eval(),
        NUM_CLASSES,
        normalise=Normalise(meta.preprocessing["mean"], meta.preprocessing["std"]),
        image_size=SIZE,
        precision=precision,
        device=CPU,
    )
    saved, _ = load_ensemble([str(folder)], device=CPU, tasks=TINY_TASKS, precision=precision)
    ours, theirs = on_validation(live, tiny_shards), on_validation(saved, tiny_shards)
    assert ours.flat() == theirs.flat()
    assert all(torch.equal(ours.confusion[task], theirs.confusion[task]) for task in TINY_TASKS)
    several = on_validation(replace(live, precision="fp32"), tiny_shards, num_views=3)
    assert several.flat() != ours.flat()  # it would see a difference
