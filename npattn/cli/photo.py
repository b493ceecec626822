"""What `npattn check` feeds a system: generic parameters, and the photograph's features where a map is wanted."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from npattn.data import photo_features
from npattn.module import Module
from npattn.oracle import generic_values
from npattn.typing import Array

__all__ = ["CHECKED_SIZE", "CROP_SIZE", "PAIRED_SIZE", "checked_size", "photo_values", "taken_size"]

CHECKED_SIZE = 40, 60
"""Rows and columns of the map that is checked: a fifth of the photograph's."""
PAIRED_SIZE = 20, 30
"""The same for systems that pair positions: their work grows as the square of its size."""
CROP_SIZE = 3, 4
"""Rows and columns of the crop on which the whole Jacobian is compared."""


def checked_size(module: Module) -> tuple[int, int]:
    """Return the rows and columns of the map on which a system is checked, unless the caller wants others.

    Examples
    --------
    >>> from npattn import CATALOGUE
    >>> checked_size(CATALOGUE["eca"].example()), checked_size(CATALOGUE["pam"].example())
    ((40, 60), (20, 30))
    """
    return PAIRED_SIZE if module.pairs_positions else CHECKED_SIZE


def photo_values(module: Module, size: tuple[int, int], seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draw generic parameters and inputs, and put the photograph's features in the place of maps.

    A map of a few positions is cut from the middle of a larger one, where it shows a part of the photograph.

    Parameters
    ----------
    module : Module
    size : tuple of int
        Rows and columns of the map; more, where the system takes no such map.
    seed : int

    Returns
    -------
    params, inputs : dict of arrays

    Examples
    --------
    >>> from npattn import CATALOGUE
    >>> params, inputs = photo_values(CATALOGUE["eca"].example(), CROP_SIZE, seed=0)
    >>> inputs["x"].shape
    (1, 32, 3, 4)
    """
    params, inputs = generic_values(module, batch=1, height=size[0], width=size[1], seed=seed)
    height, width = size = taken_size(module, size)
    rows, columns = max(height, CHECKED_SIZE[0]), max(width, CHECKED_SIZE[1])
    top, left = (rows - height) // 2, (columns - width) // 2
    for name, x in inputs.items():
        if x.shape[2:] == size:
            features = cached_features(x.shape[1], rows, columns)
            inputs[name] = features[:, :, top : top + height, left : left + width]
    return params, inputs


def taken_size(module: Module, size: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of the map that a system takes where it is asked for some: of whole blocks, say.

    Examples
    --------
    >>> from npattn import CATALOGUE
    >>> taken_size(CATALOGUE["eca"].example(), (3, 5)), taken_size(CATALOGUE["halo"].example(), (3, 5))
    ((3, 5), (4, 6))
    """
    *_, height, width = module.input_shapes(1, *size).get("x", size)
    return height, width


@functools.lru_cache(maxsize=2)
def cached_features(channels: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Keep the last maps, since a system is checked on the same one twice, and its neighbours often are too."""
    features = photo_features(channels, height, width)
    features.flags.writeable = False
    return features
