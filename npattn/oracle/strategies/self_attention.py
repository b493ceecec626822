"""Self-attention modules, with any hyperparameters."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from npattn.attention import (
    BottleneckAttention,
    ChannelAttention,
    CrissCrossAttention,
    DoubleAttention,
    DualAttentionHead,
    EfficientAttention,
    ExternalAttention,
    HaloAttention,
    LambdaLayer,
    MultiHeadSelfAttention,
    NonLocal,
    PixelCorrelation,
    PositionAttention,
    ScaledDotProductAttention,
    WindowAttention,
)
from npattn.ops.convolution import pair
from npattn.oracle.strategies.hyperparameters import Modules, channels, kernel_sizes, reductions, sizes

__all__: list[str] = []  # by key they stand in the catalogue


def pam_modules() -> Modules:
    return st.builds(PositionAttention, channels=channels, reduction=reductions)


def non_local_modules(training: bool = False) -> Modules:
    return st.builds(
        NonLocal,
        channels=channels,
        variant=st.sampled_from(["embedded_gaussian", "dot_product"]),
        subsample=st.booleans(),
        scale=st.sampled_from([None, 1.0, -0.5]),
        hidden=st.none() | st.integers(1, 5),
        batch_norm=st.booleans(),
        training=st.just(training),
    )


def external_modules(training: bool = False) -> Modules:
    return st.builds(ExternalAttention, channels, st.integers(1, 7), st.booleans(), st.just(training))


def double_modules() -> Modules:
    return st.builds(DoubleAttention, channels, reductions, st.none() | st.integers(1, 5), st.none() | sizes)


@st.composite
def linear_modules(draw: st.DrawFn) -> EfficientAttention:
    heads = draw(st.integers(1, 3))
    several = st.none() | st.integers(1, 3).map(lambda each: each * heads)
    return EfficientAttention(draw(channels), heads, draw(several), draw(several))


@st.composite
def lambda_modules(draw: st.DrawFn, training: bool = False) -> LambdaLayer:
    heads, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    reach: dict[str, Any] = draw(
        st.fixed_dictionaries({"kernel_size": kernel_sizes})
        | st.fixed_dictionaries({"feat_size": st.tuples(st.integers(2, 4), st.integers(2, 4))})
    )
    stride, bias = draw(st.sampled_from([1, 2])), draw(st.booleans())
    return LambdaLayer(heads * each, heads, draw(sizes), **reach, stride=stride, bias=bias, training=training)


@st.composite
def window_modules(draw: st.DrawFn) -> WindowAttention:
    window = draw(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shift: Any = draw(st.tuples(*(st.integers(0, side - 1) for side in pair(window))))
    heads, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    inner = draw(st.none() | st.integers(1, 4))
    mask_value = draw(st.sampled_from([None, -100.0]))
    return WindowAttention(heads * each, heads, window, shift, inner, draw(st.booleans()), mask_value)


@st.composite
def bottleneck_modules(draw: st.DrawFn) -> BottleneckAttention:
    heads, stride = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    sides = st.integers(stride, 5)
    return BottleneckAttention(
        channels=draw(channels),
        feat_size=(draw(sides), draw(sides)),
        out_channels=heads * draw(st.integers(1, 3)),
        stride=stride,
        heads=heads,
        head_dim=draw(st.sampled_from([None, 1, 3])),
        qk_ratio=draw(st.sampled_from([1.0, 0.5, 2])),
        bias=draw(st.booleans()),
        scale_pos_embed=draw(st.booleans()),
    )


@st.composite
def halo_modules(draw: st.DrawFn) -> HaloAttention:
    heads, stride, block = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 4))
    return HaloAttention(
        channels=draw(channels),
        out_channels=heads * draw(st.integers(1, 3)),
        stride=stride,
        heads=heads,
        head_dim=draw(st.sampled_from([None, 1, 3])),
        block_size=max(block, stride),
        halo_size=draw(st.integers(0, 2)),
        qk_ratio=draw(st.sampled_from([1.0, 0.5, 2])),
        bias=draw(st.booleans()),
        avg_down=draw(st.booleans()),
        scale_pos_embed=draw(st.booleans()),
    )


def mhsa_modules(masked: bool = False) -> Modules:
    options = [st.booleans() if masked else st.just(False)] * 3
    return st.builds(
        lambda heads, each, *options: MultiHeadSelfAttention(heads * each, heads, *options),
        st.integers(1, 4),
        st.integers(1, 4),
        *options,
    )


@st.composite
def sdpa_modules(draw: st.DrawFn) -> ScaledDotProductAttention:
    groups, shared = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    return ScaledDotProductAttention(
        heads=groups * shared,
        key_heads=draw(st.sampled_from([groups, None])) if shared == 1 else groups,
        head_dim=draw(st.integers(1, 4)),
        value_dim=draw(st.none() | st.integers(1, 4)),
        scale=draw(st.sampled_from([None, 0.25, -1.5])),
        causal=draw(st.sampled_from([None, "top-left", "bottom-right"])),
        window=draw(st.none() | st.tuples(st.integers(0, 4), st.integers(0, 4))),
        softcap=draw(st.sampled_from([None, 0.75, 20.0])),
        bias=draw(st.booleans()),
        mask=draw(st.booleans()),
        lengths=draw(st.booleans()),
        sink=draw(st.booleans()),
        logsumexp=draw(st.booleans()),
    )


def criss_cross_modules() -> Modules:
    return st.builds(CrissCrossAttention, channels, reductions, st.integers(1, 3))


def cam_modules() -> Modules:
    return st.builds(ChannelAttention, channels, st.sampled_from(["paper", "code"]))


def danet_modules(training: bool = False) -> Modules:
    return st.builds(
        DualAttentionHead,
        in_channels=st.sampled_from([8, 13, 16]),
        classes=st.integers(1, 4),
        dropout=st.sampled_from([0.0, 0.1, 0.5]),
        variant=st.sampled_from(["paper", "code"]),
        training=st.just(training),
        size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    )


def pcm_modules() -> Modules:
    return st.builds(PixelCorrelation, sizes, sizes)
