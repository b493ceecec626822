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


def flexible_modules():
    return st.builds(npattn.FlexibleAttention, channels=st.integers(1, 9), reduction=st.integers(1, 12))


@st.composite
def sliding_window_modules(draw):
    window = draw(st.integers(1, 7))
    stride = draw(st.integers(1, window))
    return npattn.SlidingWindowSegmentation(draw(st.integers(1, 9)), draw(st.integers(2, 5)), window, stride)


def flexible_segmentation_modules():
    def both(attention, segmentation):
        return npattn.FlexibleSegmentation(**{**vars(attention), **vars(segmentation)})

    return st.builds(both, flexible_modules(), sliding_window_modules())


def coordinate_modules(training=False, least=1):
    return st.builds(
        lambda channels, explicit, reduction: npattn.CoordinateAttention(
            channels, channels if explicit else None, reduction, training
        ),
        channels=st.integers(least, 9),
        explicit=st.booleans(),
        reduction=st.sampled_from([1, 2, 32]),
    )


def pam_modules():
    return st.builds(npattn.PositionAttention, channels=st.integers(1, 9), reduction=st.integers(1, 12))


pools = st.lists(st.sampled_from(["avg", "max", "lp", "lse"]), min_size=1, unique=True).map(tuple)


def cbam_modules(training=False):
    return st.builds(
        npattn.CBAM,
        channels=st.integers(1, 9),
        reduction=st.integers(1, 12),
        pools=pools,
        spatial=st.booleans(),
        batch_norm=st.booleans(),
        training=st.just(training),
    )


def cbam_channel_modules():
    return st.builds(npattn.CBAMChannelGate, st.integers(1, 9), st.integers(1, 12), pools)


def cbam_spatial_modules(training=False):
    return st.builds(npattn.CBAMSpatialGate, st.integers(1, 9), st.booleans(), st.just(training))


def cam_modules():
    return st.builds(npattn.ChannelAttention, st.integers(1, 9), st.sampled_from(["paper", "code"]))


def danet_modules(training=False):
    return st.builds(
        npattn.DualAttentionHead,
        in_channels=st.sampled_from([8, 13, 16]),
        classes=st.integers(1, 4),
        dropout=st.sampled_from([0.0, 0.1, 0.5]),
        variant=st.sampled_from(["paper", "code"]),
        training=st.just(training),
        size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    )


def modules():
    """Any module of the catalogue, with hyperparameters at and beyond the usual ones."""
    return st.one_of(
        se_modules(),
        eca_modules(),
        flexible_modules(),
        sliding_window_modules(),
        flexible_segmentation_modules(),
        cbam_modules(),
        cbam_channel_modules(),
        cbam_spatial_modules(),
        coordinate_modules(),
        pam_modules(),
        cam_modules(),
        danet_modules(),
        cbam_modules(training=True),
        cbam_spatial_modules(training=True),
        # With one or two channels, batch norm takes from the narrow layer's weights all but a trace of their effect.
        coordinate_modules(training=True, least=4),
    )


@st.composite
def cases(draw, systems=None, dtype=np.float64, **sizes_by_name):
    """A module with generic parameters and inputs: (module, params, inputs by name)."""
    module = draw(modules() if systems is None else systems)
    shape = {name: draw(sizes_by_name.get(name, sizes)) for name in ("batch", "height", "width")}
    if getattr(module, "training", False):  # a variance of one or two values leaves no gradient
        shape = {name: max(size, 2) for name, size in shape.items()}
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
