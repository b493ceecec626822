"""What a picture shows: a system at work on the photograph's features, with parameters that let something be seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npattn.module import Module, Pass
from npattn.parameters import strip_prefix
from npattn.pictures.features import EYE, OTHER_PIXELS, photo_inputs
from npattn.pictures.weights import score_layer, score_map, sharpness
from npattn.typing import Array, Params

__all__ = [
    "DRAWN_SIZE",
    "LARGE_HYPERPARAMETERS",
    "NUM_TOP",
    "Scene",
    "make_scene",
    "telling_parameters",
    "with_photo_statistics",
]

DRAWN_SIZE = 100, 150
"""Positions of the feature map that is drawn: every second pixel of the photograph."""
COARSE_SIZE = 40, 60
"""The same for systems that have a parameter for each offset in rows, and hold a number for each pair."""
NUM_TOP = 100
"""Positions that top-k attention keeps."""
LARGE_HYPERPARAMETERS = {"window": 24, "stride": 8, "rates": (4, 12, 24), "k": NUM_TOP, "embedding": 48}
"""Hyperparameters in place of the examples', which are for small maps."""
OF_WINDOWS = "window", "stride"
"""Those of them that are changed together."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A system at work.

    Attributes
    ----------
    module, inner : Module
        The whole, and the system that attends, within any residual connections: the same where there are none.
    params : mapping of str to array
        Those of `inner`.
    x : array
        The whole's first input.
    run : Pass
        Of the whole.
    pixels : sequence of tuple of int
        Rows and columns of the photograph from which attention is drawn.
    seed : int
    """

    module: Any
    inner: Any
    params: Params
    x: Array
    run: Pass
    pixels: tuple[tuple[int, int], ...]
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        height, width = self.x.shape[2:]
        return height, width


def make_scene(module: Module, seed: int, at: tuple[int, int] | None, size: tuple[int, int] | None = None) -> Scene:
    """Set a system to work, as `draw` says; on a map of another size than `DRAWN_SIZE`, if one is given."""
    together = all(hasattr(module, name) for name in OF_WINDOWS)
    large = {
        name: value
        for name, value in LARGE_HYPERPARAMETERS.items()
        if isinstance(getattr(module, name, None), type(value)) and (together or name not in OF_WINDOWS)
    }
    module = replace(module, **large)
    if hasattr(module, "branch_channels"):  # so many that each branch has as many as other systems' maps
        changes: dict[str, Any] = {"in_channels": 128, "size": None, "training": False}
        module = replace(module, **changes)
    size = size or (DRAWN_SIZE if module.for_size(*DRAWN_SIZE) == module else COARSE_SIZE)
    module = module.for_size(*size)
    inputs = photo_inputs(module, size, seed)
    x = next(iter(inputs.values()))
    params = module.init(seed, generic=True)
    params = telling_parameters(module, params, x)
    run = module(params, *inputs.values())
    for name in params:
        if name.endswith("classifier.bias"):  # else a random classifier gives every window one class
            params[name] -= run.attention["windows"].mean(axis=(0, 2, 3))
            run = module(params, x)
    inner: Any = module
    inner_params: Params = params
    while hasattr(inner, "inner"):
        inner, inner_params = inner.inner, strip_prefix("inner.", inner_params)
    return Scene(module, inner, inner_params, x, run, (at or EYE, *OTHER_PIXELS), seed)


def telling_parameters(module: Module, params: Params, x: Array) -> dict[str, Array]:
    """Change random parameters and statistics of which nothing could be seen."""
    params = dict(params)
    if layer := score_layer(params):  # else hardly any position weighs more than another, or one outweighs all
        params[f"{layer}.weight"] = params[f"{layer}.weight"] * sharpness(score_map(params, x))
    if hasattr(module, "branch_channels"):
        params |= {f"{name}.1.weight": params["conv8.1.weight"] for name in ("conv6", "conv7")}
        params = with_photo_statistics(module, params, x)
    if module.key == "bam":  # two halves, as it has a norm of averages, which takes a variance of images
        params = with_photo_statistics(module, params, np.concatenate(np.split(x, 2, axis=3)))
    return params


def with_photo_statistics(module: Module, params: Params, x: Array) -> dict[str, Array]:
    """Put the features' own mean and variance in the place of running statistics that have nothing to do with them."""
    changes: dict[str, Any] = {"training": True}
    training = replace(module, **changes)
    masks = [np.ones(shape) for shape in list(training.input_shapes(len(x), *x.shape[2:]).values())[1:]]
    running = training(params, x, *masks).buffers  # a tenth of the way from the old to those of the batch
    return {**params, **{name: params[name] + 10 * (value - params[name]) for name, value in running.items()}}
