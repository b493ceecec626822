"""A system known by name and hyperparameters alone, as a golden file speaks of one that npattn does not bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from npattn.calls import takes_heads, takes_maps
from npattn.files import one_line
from npattn.module import Module, Pass
from npattn.oracle.systems import is_known
from npattn.typing import Array, Params

__all__ = ["AXES", "Described", "axes_of"]

AXES = ("maps", "heads", "other")
"""What the four axes of inputs may be: batch, channels, height and width; batch, heads, positions and channels; what
only the system's author knows."""
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
    axes : str, optional
        One of `AXES`; empty if the file does not say, as those of versions below 5.

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
    axes: str = ""

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters)
        return one_line(f"{self.name}({listed})", MAX_LENGTH)

    def __str__(self) -> str:
        """Write all: what is so by default, the code says."""
        return repr(self)

    def input_shapes(self, batch: int, height: int, width: int) -> NoReturn:
        """Refuse: nobody knows."""
        raise TypeError(
            f"{self}: a golden file names this system and does not hold its code; to call it, load the file with "
            f"systems=[{self.name}], the class"
        )

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Refuse: nobody knows."""
        self.input_shapes(1, 1, 1)


def axes_of(module: Module) -> str:
    """Return which of `AXES` a system's inputs have; nothing where nobody knows.

    Examples
    --------
    >>> import npattn
    >>> axes_of(npattn.CBAM(channels=16)), axes_of(npattn.ScaledDotProductAttention(heads=2, head_dim=4))
    ('maps', 'heads')
    """
    if isinstance(module, Described):
        return module.axes
    if takes_heads(module):
        return "heads"
    return "maps" if is_known(module) or takes_maps(module) else "other"
