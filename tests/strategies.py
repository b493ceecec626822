"""What the tests draw from: modules, arrays of every kind that a caller may pass, and values that provoke mistakes."""

import numpy as np
from hypothesis import strategies as st

import npattn

SYSTEMS = list(npattn.CATALOGUE.values())
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**31 - 1)
layouts = st.sampled_from(["contiguous", "transposed", "strided", "read-only"])


def se_modules():
    return st.builds(
        npattn.SqueezeExcitation, channels=st.integers(1, 9), reduction=st.integers(1, 12), bias=st.booleans()
    )


def eca_modules():
    return st.builds(
        npattn.EfficientChannelAttention,
        channels=st.integers(1, 9),
        kernel_size=st.none() | st.sampled_from([1, 3, 5, 7]),
        gamma=st.sampled_from([1, 2, 3.5, -2]),
        b=st.sampled_from([0, 1, 2.5, -4]),
    )


def modules():
    """Any module of the catalogue, with hyperparameters at and beyond the usual ones."""
    return se_modules() | eca_modules()


@st.composite
def cases(draw, systems=None, dtype=np.float64, **sizes_by_name):
    """A module with generic parameters and inputs: (module, params, inputs by name)."""
    module = draw(modules() if systems is None else systems)
    shape = {name: draw(sizes_by_name.get(name, sizes)) for name in ("batch", "height", "width")}
    return module, *npattn.oracle.generic_values(module, **shape, seed=draw(seeds), dtype=dtype)


def arrange(array, layout):
    """Lay an array out in memory in another way, with the same values."""
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "strided":
        wide = np.repeat(array, 2, axis=-1)
        return wide[..., ::2]
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array
