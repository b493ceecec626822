"""What primitives as systems have in common: they call a primitive on the inputs and the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from npattn.calls import as_tuple
from npattn.module import Module, Paper, Pass
from npattn.typing import Array, Params

__all__ = ["PrimitiveSystem", "Shapes"]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class PrimitiveSystem(Module):
    """Base of those here: calls its primitive on the inputs and the parameters, in this order."""

    paper: ClassVar = Paper("npattn.ops", "", "", 0, "")
    primitive: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "primitive" in vars(cls):
            cls.key = f"ops.{cls.primitive.__name__}"

    def options_of_call(self) -> dict[str, Any]:
        """Return what the primitive is called with beside arrays."""
        return {}

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        names = list(self.parameter_shapes())
        y, back = self.primitive(*inputs, *(params[name] for name in names), **self.options_of_call())

        def backward(dy: Array) -> Any:
            gradients = as_tuple(back(dy))
            dx, rest = gradients[: len(inputs)], gradients[len(inputs) :]
            # A bias that isn't there has the gradient None, which is left over.
            return dx if len(inputs) > 1 else dx[0], dict(zip(names, rest, strict=False))

        return Pass(y, backward)
