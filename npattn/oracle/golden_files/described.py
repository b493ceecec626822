"""A system known by name and hyperparameters alone, as a golden file speaks of one that npattn does not bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from npattn.files import one_line
from npattn.module import Module, Pass
from npattn.typing import Array, Params

__all__ = ["Described"]

MAX_LENGTH = 500
"""Characters of its description."""


@dataclass(frozen=True, repr=False)
class Described(Module):
    """What a golden file says of a system whose code it does not hold. Results are judged without it.

    Parameters
    ----------
    name : str
        Of the class.
    hyperparameters : tuple of (str, object)
        By name; a system among them is such a description too, or one that npattn brings.

    Examples
    --------
    >>> module = Described("RMSNorm", (("channels", 64), ("eps", 1e-06)))
    >>> module
    RMSNorm(channels=64, eps=1e-06)
    >>> module.input_shapes(1, 7, 5)
    Traceback (most recent call last):
    TypeError: RMSNorm(channels=64, eps=1e-06): a golden file names this system and does not hold its code; ...
    """

    name: str
    hyperparameters: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters)
        return one_line(f"{self.name}({listed})", MAX_LENGTH)

    def input_shapes(self, batch: int, height: int, width: int) -> NoReturn:
        """Refuse: nobody knows."""
        raise TypeError(
            f"{self}: a golden file names this system and does not hold its code; to call it, load the file with "
            f"systems=[{self.name}], the class"
        )

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Refuse: nobody knows."""
        self.input_shapes(1, 1, 1)
