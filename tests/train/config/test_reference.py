"""docs/CONFIG.md and the config are one: every key is there, with its default, its values and what it does."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from data.images.augment import OPERATION_NAMES, POLICIES
from models.channel_groups import KINDS
from models.heads import HEADS, head_options
from tests.train.config.test_loading import section_classes
from train.config.base import Positive, Unit, sections
from train.config.data import AugmentConfig
from train.config.key_hints import all_keys
from train.config.loading import parse_config
from train.config.model import HeadConfig
from train.config.reference import allowed, descriptions, reference
from train.config.schema import Config
from train.config.training import SparsityConfig

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "CONFIG.md"


def test_the_page_is_what_the_config_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "stale: make docs"


@pytest.mark.parametrize("model", list(section_classes()), ids=lambda model: model.__name__)
def test_every_key_is_described_by_a_sentence(model: type[BaseModel]) -> None:
    texts = descriptions(model)
    assert texts.keys() == model.model_fields.keys()
    assert [key for key, text in texts.items() if not text.endswith(".")] == []


def test_every_key_has_one_row() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    headed = {name for name, section in sections(Config).items()}
    assert sorted([*rows, *headed]) == sorted(all_keys())


def test_the_example_that_the_page_opens_with_loads() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    config = parse_config(example[1], ["optimizer.lr=3e-2", "tasks.age.weight=2", "data.val="])
    assert (config.optimizer.lr, config.tasks["age"].weight, config.data.val) == (0.03, 2, None)
    assert config.tasks["age"].class_weights == "balanced"


class Sample(BaseModel):
    a: int
    """Line one,
    line two."""
    b: int = 0
    c: int = 0
    """More."""


def test_the_text_under_a_key_is_its_own() -> None:
    assert descriptions(Sample) == {"a": "Line one,\nline two.", "c": "More."}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "`true`, `false`"),
        (str | None, "text; or `null`"),
        (Literal["a", "b"], "`a`, `b`"),
        (Positive, "whole number, 1 or more"),
        (Annotated[Positive, Unit("pixels")] | None, "pixels, 1 or more; or `null`"),
        (Annotated[int, Field(ge=0)] | Literal["auto"], "whole number, 0 or more; or `auto`"),
        (Annotated[float, Field(gt=0)], "number, above 0"),
        (Annotated[float, Field(ge=0, le=1), Unit("of all")], "of all, 0 to 1"),
        (Annotated[float, Field(gt=0, lt=1)], "number, above 0 to below 1"),
        (tuple[str, ...], "a list of: text"),
        (tuple[float, float], "a pair of: number"),
        (dict[str, Positive], "name: whole number, 1 or more"),
    ],
)
def test_the_values_of_a_key_in_words(annotation: Any, words: str) -> None:
    assert allowed(annotation) == words


@pytest.mark.parametrize("kind", HEADS)
def test_the_options_of_a_head_are_told_with_their_defaults(kind: str) -> None:
    texts = descriptions(HeadConfig)
    assert f"`{kind}`: " in texts["kind"]
    for option, default in head_options(kind=kind, options={}).items():
        told = re.search(rf"`{kind}`(?:, `[\w-]+`)*: `?(\w+)", texts[option])
        assert told is not None, option
        assert told[1] == str(default)


def test_policies_and_kinds_of_channels_are_told_by_name() -> None:
    policies, groups = AugmentConfig.__doc__ or "", descriptions(SparsityConfig)["groups"]
    assert [name for name in POLICIES if f"`{name}`" not in policies] == []
    assert [name for name in KINDS if f"`{name}`" not in groups] == []
    assert set(OPERATION_NAMES) == AugmentConfig.model_fields.keys() - {"policy", "seed", "views"}


def test_a_config_is_read_without_anything_slow() -> None:
    """A typo is told in a fraction of a second; torch alone takes many of them."""
    code = (
        "import sys; from train.config.loading import parse_config\n"
        "try: parse_config('epoch: 3')\n"
        "except ValueError as error: print(error)\n"
        "print(sorted(sys.modules.keys() & {'torch', 'numpy', 'cv2', 'timm', 'PIL', 'fsspec', 'wandb'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "did you mean 'schedule.epochs'?" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
