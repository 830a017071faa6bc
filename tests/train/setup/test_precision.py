"""`precision: auto` takes the number format that a machine computes with quickly."""

import pytest

from train.config.loading import parse_config
from train.setup import precision
from train.setup.precision import choose_precision, fast_precision

CONFIG = "run: {dir: r}\ndata: {train: t}\nmodel: {backbone: mobilenetv2_050}\ndevice: cpu\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512_bf16 amx_tile amx_bf16", "bf16"),
        ("flags : fpu avx512_bf16", "fp32"),
        ("flags : fpu sse2", "fp32"),
    ],
)
def test_a_processor_needs_matrices_of_bf16(flags, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    assert fast_precision(on_gpu=False) == expected
    assert choose_precision(parse_config(CONFIG, ["precision=auto"])).precision == expected


def test_other_systems_have_no_list_of_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "none")
    assert fast_precision(on_gpu=False) == "fp32"


@pytest.mark.parametrize("given", ["fp32", "bf16", "fp16"])
def test_what_is_said_stays(given):
    config = parse_config(CONFIG, [f"precision={given}"])
    assert choose_precision(config) is config
