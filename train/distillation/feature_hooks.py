"""The outputs of named layers of a network, taken by forward hooks while it runs.

tap = ForwardHooks(model, ["backbone.layer1"]); model(image); feature = tap["backbone.layer1"]
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from models.errors import ModelError


class ForwardHooks:
    """Holds the features of the model's last forward pass. A layer whose output is not one tensor is refused when it
    runs. Raises ModelError for a name that the model lacks; `whose` says in messages which model that is."""

    def __init__(self, model: nn.Module, names: Iterable[str], *, whose: str = "the model") -> None:
        self._features: dict[str, Tensor] = {}
        self._whose = whose
        modules = {name: module for name, module in model.named_modules() if name}
        for name in dict.fromkeys(names):
            if name not in modules:
                near = get_close_matches(name, modules, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ModelError(f"{whose} has no layer {name!r}{hint} (valid: {_listing(modules)})")
            modules[name].register_forward_hook(self._keeper(name))

    def __getitem__(self, name: str) -> Tensor:
        return self._features[name]

    def clear(self) -> None:
        """Let go of the features, and with them of the graph behind them."""
        self._features.clear()

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ModelError(f"layer {name!r} of {self._whose} gives a {type(output).__name__}, not one tensor")
            self._features[name] = output

        return keep


def _listing(modules: dict[str, nn.Module]) -> str:
    """Every name, outermost first; the deepest ones only as far as they fit on a screen."""
    names = sorted(modules, key=lambda name: (name.count("."), list(modules).index(name)))
    shown = names[:60]
    return ", ".join(shown) + (f", and {len(names) - len(shown)} inside them" if len(names) > len(shown) else "")
