"""Generic values: inputs and parameters behind which no term of a gradient can hide."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.calls import declared_shapes
from npattn.checks import require_integers
from npattn.module import Module

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
    random = np.random.RandomState([seed, 1])  # another stream than that of the parameters
    shapes = declared_shapes(module, batch, height, width)
    inputs = {name: value.astype(dtype) for name, value in module.draw_inputs(shapes, random).items()}
    return module.init(seed, dtype, generic=True), inputs
