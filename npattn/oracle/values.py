"""Generic values: inputs and parameters behind which no term of a gradient can hide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npattn.calls import declared_shapes
from npattn.checks import require_integers, require_seed
from npattn.module import Module
from npattn.oracle.systems import require_system

__all__ = ["generic_values"]


def generic_values(
    module: Module, *, batch: int = 2, height: int = 5, width: int = 4, seed: int = 0, dtype: Any = np.float64
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw parameters and inputs of a module, away from zeros, ones and ties.

    A module often starts at special values (biases at 0, residual scales at 0) under which whole terms of its gradient
    vanish. Here every number is random; `Module.draw_inputs` says how inputs are drawn.

    Parameters
    ----------
    module : Module
    batch, height, width : int, default 2, 5, 4
        A batch may be empty.
    seed : int, default 0
        Of NumPy's frozen `RandomState` stream: the same values on every version.
    dtype : dtype, default float64

    Returns
    -------
    params, inputs : dict of numpy.ndarray

    Examples
    --------
    >>> import npattn
    >>> params, inputs = generic_values(npattn.SqueezeExcitation(channels=4, reduction=2))
    >>> bool((params["fc1.bias"] == 0).any())
    False
    >>> inputs["x"].shape
    (2, 4, 5, 4)
    """
    require_integers("generic_values", least=0, batch=batch)
    require_integers("generic_values", height=height, width=width)
    require_system("generic_values", module)
    random = np.random.RandomState(
        [require_seed("generic_values", seed), 1]
    )  # another stream than that of the parameters
    shapes = declared_shapes(module, batch, height, width)
    params = module.init(seed, dtype, generic=True)
    drawn = module.draw_inputs(shapes, random)
    check_drawn(module, drawn, shapes)
    inputs = {name: value.astype(dtype) for name, value in drawn.items()}
    return params, inputs


def check_drawn(module: Module, drawn: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse inputs that a system has drawn otherwise than it says: other names or shapes, or no real numbers."""
    if list(drawn) != list(shapes):
        raise ValueError(f"{module}: draw_inputs returns {', '.join(drawn) or 'none'}; expected {', '.join(shapes)}")
    for name, value in drawn.items():
        if np.shape(value) != tuple(shapes[name]):
            raise ValueError(
                f"{module}: {name} is drawn of shape {np.shape(value)}; expected {tuple(shapes[name])}: "
                "draw_input(name, shape, random) is to return an array of the shape that it is given"
            )
        if value.dtype.kind not in "fiub":
            raise TypeError(f"{module}: {name} is drawn of dtype {value.dtype}; expected real numbers")
