"""The predicted bytes of an int8 file against those of files that are really made."""

from pathlib import Path

import numpy as np
import pytest

from models.artifact import load_artifact
from models.formats.int8_size import predicted_int8_bytes
from models.formats.onnx_graph import export_graph
from models.formats.quantization import measure_ranges, prepare, quantise
from tests.prune.sparse_models import SIZE, save, sparse_student


@pytest.mark.parametrize("head", ["multi-embedding", "single-conv"])
def test_the_prediction_is_near_the_file_and_not_below_it(head: str, tmp_path: Path) -> None:
    student, meta = load_artifact(save(sparse_student(head=head), tmp_path / "model"))
    graph = prepare(export_graph(student, meta, image_size=SIZE))
    images = np.random.default_rng(0).normal(size=(16, 3, SIZE, SIZE)).astype(np.float32)
    ranges = measure_ranges(graph, [images], method="minmax")
    for kept in ([], ["backbone.layer4.3"]):
        real = quantise(graph, ranges, keep_float=kept).ByteSize()
        predicted = predicted_int8_bytes(student, meta.tasks, image_size=SIZE, keep_float=kept)
        assert 0 <= predicted - real < 0.02 * real, (kept, predicted, real)


def test_a_prediction_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    student = sparse_student()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    names = {task: [str(number) for number in range(count)] for task, count in student.tasks.items()}
    assert predicted_int8_bytes(student, names, image_size=SIZE) > student.num_parameters
    assert all(np.array_equal(tensor, before[name]) for name, tensor in student.state_dict().items())
