"""How labels were read from tars, kept in `index.json` so that they are read the same way again.

Use: `rule = LabelRule(cls_task="item", classes_given=True); parse_label_rule(label_rule_to_json(rule), url) == rule`
"""

from dataclasses import asdict, dataclass
from typing import Any

from data.errors import DataError

_KINDS = {"cls_task": str, "classes_given": bool, "max_pixels": int | None}
# Written only where they say something, so that an index that does without them has the bytes it always had.
_OPTIONAL_KINDS = {"image": str, "label": str, "first_dot": bool}


@dataclass(frozen=True, slots=True)
class LabelRule:
    """cls_task: the task of `.cls` members. classes_given: the classes were given, not found in the labels. max_pixels:
    larger images are bad (None: the default).

    image, label: the suffix, from the first dot of a name, of each sample's image and of its label ("input.jpg",
    "output.cls"); "" where it is found by itself. first_dot: a longer suffix (`x.input.jpg`) is one of the sample `x`
    where there is no other; without it, as in indexes of before, it is the sample `x.input`.
    """

    cls_task: str = "class"
    classes_given: bool = False
    max_pixels: int | None = None
    image: str = ""
    label: str = ""
    first_dot: bool = False


def label_rule_to_json(rule: LabelRule) -> dict[str, Any]:
    """The keys of `index.json`."""
    return {name: value for name, value in asdict(rule).items() if name in _KINDS or value}


def parse_label_rule(content: object, url: str) -> LabelRule:
    """A rule from its JSON; `url` is used in the DataError when it is none."""
    kinds = {**_KINDS, **_OPTIONAL_KINDS}
    if not isinstance(content, dict) or not set(_KINDS) <= set(content) <= set(kinds):
        raise DataError(f"{url}: 'label_rule' needs exactly {', '.join(_KINDS)}; run data.index or data.build again")
    for name, value in content.items():
        if not isinstance(value, kinds[name]):
            raise DataError(f"{url}: 'label_rule' has the {name} {value!r}; run data.index or data.build again")
    return LabelRule(**content)
