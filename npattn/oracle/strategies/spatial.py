"""Modules that weigh positions, with any hyperparameters."""

from __future__ import annotations

from hypothesis import strategies as st

from npattn.attention import (
    AttentionGate,
    CBAMSpatialGate,
    EfficientMultiScaleAttention,
    HardAttention,
    SlidingWindowSegmentation,
    SoftHardAttention,
    SpatialGroupEnhance,
)
from npattn.oracle.strategies.hyperparameters import Modules, channels, gates, kernel_sizes

__all__: list[str] = []  # by key they stand in the catalogue


@st.composite
def sliding_window_modules(draw: st.DrawFn) -> SlidingWindowSegmentation:
    window = draw(st.integers(1, 7))
    stride = draw(st.integers(1, window))
    return SlidingWindowSegmentation(draw(st.integers(1, 9)), draw(st.integers(2, 5)), window, stride)


def sge_modules() -> Modules:
    return st.builds(
        lambda groups, each, variant: SpatialGroupEnhance(groups * each, groups, variant),
        st.integers(1, 4),
        st.integers(1, 3),
        st.sampled_from(["code", "paper"]),
    )


def ema_modules() -> Modules:
    return st.builds(
        lambda groups, each: EfficientMultiScaleAttention(groups * each, groups), st.integers(1, 3), st.integers(1, 4)
    )


def attention_gate_modules(training: bool = False) -> Modules:
    return st.builds(
        AttentionGate,
        channels=channels,
        gating_channels=st.none() | channels,
        hidden=st.integers(3, 6),  # of one or two a rectifier may let none pass
        stride=st.sampled_from([1, 1, 2, 3]),
        batch_norm=st.just(True) if training else st.booleans(),
        training=st.just(training),
    )


def cbam_spatial_modules(training: bool = False) -> Modules:
    return st.builds(CBAMSpatialGate, channels, st.booleans(), st.just(training), kernel_sizes, gates)


def hard_modules() -> Modules:
    return st.builds(HardAttention, channels)


def soft_hard_modules() -> Modules:
    return st.builds(SoftHardAttention, channels, k=st.integers(1, 12))
