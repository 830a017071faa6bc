"""JSON files that carry a checksum: no damaged number or name is taken for the written one."""

import json
from pathlib import Path

import pytest

from data.errors import DataError
from data.index import load_index
from data.sealed_json import BrokenSeal, open_sealed, seal
from data.shards.external_tars import index_tars
from tests.photos import jpeg, write_tar

CONTENT = {"format": "x/1", "classes": ["cat", "dög", "\udc80"], "mean": [0.485, 1e-7], "weights": {"sha256": "ab"}}


@pytest.mark.parametrize("indent", [None, 2])
def test_no_flipped_bit_changes_what_is_read(indent: int | None) -> None:
    data = seal(CONTENT, indent=indent)
    assert open_sealed(data, name="x") == CONTENT
    refused = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = open_sealed(bytes(damaged), name="x")
        except ValueError:
            refused += 1
        else:  # white space, or the checksum's own name
            assert {key: found[key] for key in CONTENT} == CONTENT
    assert refused > 6 * len(data)


def test_a_changed_value_is_named_with_the_way_out(tmp_path: Path) -> None:
    data = seal(CONTENT).replace(b'"cat"', b'"cau"')
    with pytest.raises(BrokenSeal, match=r"^x\.json: is damaged, or was changed .* delete its key 'checksum'"):
        open_sealed(data, name="x.json")
    plain = json.loads(data)
    del plain["checksum"]
    assert open_sealed(json.dumps(plain).encode(), name="x.json")["classes"][0] == "cau"


def test_a_key_that_is_checked_otherwise_may_change() -> None:
    data = seal(CONTENT, apart="weights").replace(b'"ab"', b'"cd"')
    assert open_sealed(data, name="x", apart="weights")["weights"] == {"sha256": "cd"}
    with pytest.raises(BrokenSeal):
        open_sealed(data, name="x")


def test_a_damaged_class_name_of_an_index_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(0)), ("a.cls", b"cat")])
    index_tars([tmp_path / "0.tar"], tasks=None, cls_task="class")
    path = tmp_path / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"cat"', b'"cau"'))
    with pytest.raises(DataError, match=r"index\.json: is damaged, or was changed"):
        load_index(tmp_path)
