"""Modules that weigh channels, with any hyperparameters."""

from __future__ import annotations

from hypothesis import strategies as st

from npattn.attention import (
    CBAMChannelGate,
    EfficientChannelAttention,
    FlexibleAttention,
    SelectiveKernel,
    SplitAttention,
    SqueezeExcitation,
)
from npattn.oracle.strategies.hyperparameters import Modules, channels, excitation, pools, reductions

__all__: list[str] = []  # by key they stand in the catalogue


def se_modules(training: bool = False) -> Modules:
    return st.builds(
        SqueezeExcitation,
        **excitation,
        batch_norm=st.just(True) if training else st.booleans(),
        add_maxpool=st.booleans(),
        training=st.just(training),
    )


def eca_modules() -> Modules:
    return st.builds(
        EfficientChannelAttention,
        channels=channels,
        kernel_size=st.none() | st.sampled_from([1, 3, 5, 7]),
        gamma=st.sampled_from([1, 2, 3.5, -2]),
        b=st.sampled_from([0, 1, 2.5, -4]),
    )


def flexible_modules() -> Modules:
    return st.builds(FlexibleAttention, channels=channels, reduction=reductions)


def cbam_channel_modules() -> Modules:
    return st.builds(CBAMChannelGate, **excitation, pools=pools)


@st.composite
def sk_modules(draw: st.DrawFn, training: bool = False) -> SelectiveKernel:
    kernel_sizes = tuple(draw(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=2, max_size=3)))
    split, groups = draw(st.booleans()), draw(st.sampled_from([1, 1, 2]))
    parts = groups * (len(kernel_sizes) if split else 1)
    return SelectiveKernel(
        in_channels=parts * draw(st.integers(1, 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        kernel_sizes=kernel_sizes,
        dilated=draw(st.booleans()),
        split_input=split,
        stride=draw(st.sampled_from([1, 1, 2])),
        groups=groups,
        hidden=draw(st.none() | st.integers(3, 5)),  # of one or two a rectifier may let none pass
        activation=draw(excitation["activation"]),
        training=training,
    )


@st.composite
def split_modules(draw: st.DrawFn, training: bool = False) -> SplitAttention:
    groups, radix = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 3))
    return SplitAttention(
        in_channels=groups * radix * draw(st.integers(1, 2)),
        out_channels=groups * draw(st.integers(1, 3)),
        kernel_size=draw(st.sampled_from([3, 1])),
        stride=draw(st.sampled_from([1, 1, 2])),
        dilation=draw(st.sampled_from([1, 2])),
        groups=groups,
        radix=radix,
        hidden=groups * draw(st.integers(3, 4)),  # of one or two a rectifier may let none pass
        activation=draw(excitation["activation"]),
        batch_norm=draw(st.booleans()) or training,
        bias=draw(st.booleans()) and not training,  # which a norm takes away again
        training=training,
    )
