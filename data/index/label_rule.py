"""How labels were read from tars, kept in `index.json` so that they are read the same way again.

Use: `rule = LabelRule(cls_task="item", classes_given=True); parse_label_rule(asdict(rule), "index.json") == rule`
"""

from dataclasses import dataclass

from data.errors import DataError


@dataclass(frozen=True, slots=True)
class LabelRule:
    """cls_task: the task of `.cls` members. classes_given: the classes were given, not found in the labels. max_pixels:
    larger images are bad (None: the default)."""

    cls_task: str = "class"
    classes_given: bool = False
    max_pixels: int | None = None


def parse_label_rule(content: object, url: str) -> LabelRule:
    """A rule from its JSON; `url` is used in the DataError when it is none."""
    kinds = {"cls_task": str, "classes_given": bool, "max_pixels": int | None}
    if not isinstance(content, dict) or set(content) != set(kinds):
        raise DataError(f"{url}: 'label_rule' needs exactly {', '.join(kinds)}; run data.index or data.build again")
    for name, kind in kinds.items():
        if not isinstance(content[name], kind):
            raise DataError(f"{url}: 'label_rule' has the {name} {content[name]!r}; run data.index or data.build again")
    return LabelRule(**content)
