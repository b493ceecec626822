"""What a forward pass needs: parameters and inputs, away from zeros and ties."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from npattn.attention import (
    BAM,
    AttentionGate,
    GatherExcite,
    LambdaLayer,
    MultiScaleConcat,
    SelectiveKernel,
    SoftHardAttention,
    SplitAttention,
    SqueezeExcitation,
)
from npattn.module import Module
from npattn.oracle.strategies.catalogue import modules
from npattn.oracle.strategies.hyperparameters import Sizes, seeds, sizes
from npattn.oracle.values import generic_values

__all__ = ["cases", "inputs", "parameters"]


@st.composite
def parameters(draw: st.DrawFn, /, module: Module, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Draw a module's parameters and buffers, all of them away from 0 and 1."""
    return module.init(draw(seeds), dtype, generic=True)


@st.composite
def inputs(
    draw: st.DrawFn, /, module: Module, dtype: Any = np.float64, **sizes_by_name: Sizes
) -> dict[str, np.ndarray]:
    """Draw a module's inputs by name, on a map whose `batch`, `height` and `width` are from 1 to 6 unless given."""
    return generic_values(module, **draw(map_sizes(module, **sizes_by_name)), seed=draw(seeds), dtype=dtype)[1]


@st.composite
def cases(
    draw: st.DrawFn, /, systems: Any = None, dtype: Any = np.float64, **sizes_by_name: Sizes
) -> tuple[Module, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw what a forward pass needs: a module, its parameters and its inputs, as `inputs` has them.

    Parameters
    ----------
    systems : strategy of Module, or what `modules` takes, optional
    dtype : dtype, default float64
    batch, height, width : strategy of int, optional
    """
    module = draw(systems if isinstance(systems, st.SearchStrategy) else modules(systems))
    sizes = draw(map_sizes(module, **sizes_by_name))
    return module, *generic_values(module, **sizes, seed=draw(seeds), dtype=dtype)


@st.composite
def map_sizes(
    draw: st.DrawFn,
    /,
    module: Module,
    batch: Sizes = sizes,
    height: Sizes = sizes,
    width: Sizes = sizes,
) -> dict[str, int]:
    """Draw sizes on which a module's gradients don't vanish."""
    b, h, w = draw(batch), draw(height), draw(width)
    inner: Any = module
    while hasattr(inner, "inner"):
        inner = inner.inner
    if getattr(inner, "training", False):  # a variance of one or two values leaves no gradient
        b, h, w = max(b, 2), max(h, 2), max(w, 2)
        if isinstance(inner, GatherExcite):  # what its norms see is a part of the map, and not smaller than this
            b, h, w = max(b, 3), max(h, inner.extent + 1), max(w, inner.extent + 1)
        if isinstance(inner, (MultiScaleConcat, SelectiveKernel, SplitAttention, BAM, SqueezeExcitation)):
            b = max(b, 3)  # one of their norms sees a value an image
    if isinstance(inner, GatherExcite) and inner.feat_size is not None:  # an even kernel leaves a row less
        h, w = max(h, 2), max(w, 2)
    if getattr(inner, "subsample", False) or (isinstance(inner, LambdaLayer) and inner.stride == 2):
        h, w = max(h, 2), max(w, 2)  # a pool needs two rows and two columns
    if isinstance(inner, LambdaLayer) and inner.feat_size is not None:  # a table is for maps of one size
        h, w = inner.feat_size
    if isinstance(inner, AttentionGate):  # a kernel needs as many rows and columns as it has
        b, h, w = max(b, 3 if inner.training else 1), max(h, inner.stride), max(w, inner.stride)
    if isinstance(inner, SoftHardAttention):  # it chooses k positions
        w = max(w, -(-inner.k // h))
    return {"batch": b, "height": h, "width": w}
