"""The attention systems of the vision literature in plain NumPy: forward and backward by hand, derived, and exact."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npattn import attention, data, fields, layers, ops, oracle, parameters, tracing
    from npattn.attention import (
        BAM,
        CATALOGUE,
        CBAM,
        AttentionGate,
        BottleneckAttention,
        CBAMChannelGate,
        CBAMSpatialGate,
        ChannelAttention,
        CoordinateAttention,
        CrissCrossAttention,
        DoubleAttention,
        DualAttentionHead,
        EfficientAttention,
        EfficientChannelAttention,
        EfficientMultiScaleAttention,
        ExternalAttention,
        FlexibleAttention,
        FlexibleSegmentation,
        GatherExcite,
        GlobalContext,
        HaloAttention,
        HardAttention,
        LambdaLayer,
        MultiHeadSelfAttention,
        MultiScaleConcat,
        NonLocal,
        PixelCorrelation,
        PolarizedSelfAttention,
        PositionAttention,
        Residual,
        ScaledDotProductAttention,
        SelectiveKernel,
        ShuffleAttention,
        SimAM,
        SlidingWindowSegmentation,
        SoftHardAttention,
        SpatialGroupEnhance,
        SplitAttention,
        SqueezeExcitation,
        TripletAttention,
        WindowAttention,
        diversity_penalty,
        equivariance_loss,
    )
    from npattn.module import Module, Paper, Pass
    from npattn.ops.context import definitions
    from npattn.tracing import trace
    from npattn.transforms import Compose, Flip, QuarterTurns, Rescale, Transform, Translate

    __version__: str

__all__ = [
    "BAM",
    "CATALOGUE",
    "CBAM",
    "AttentionGate",
    "BottleneckAttention",
    "CBAMChannelGate",
    "CBAMSpatialGate",
    "ChannelAttention",
    "Compose",
    "CoordinateAttention",
    "CrissCrossAttention",
    "DoubleAttention",
    "DualAttentionHead",
    "EfficientAttention",
    "EfficientChannelAttention",
    "EfficientMultiScaleAttention",
    "ExternalAttention",
    "FlexibleAttention",
    "FlexibleSegmentation",
    "Flip",
    "GatherExcite",
    "GlobalContext",
    "HaloAttention",
    "HardAttention",
    "LambdaLayer",
    "Module",
    "MultiHeadSelfAttention",
    "MultiScaleConcat",
    "NonLocal",
    "Paper",
    "Pass",
    "PixelCorrelation",
    "PolarizedSelfAttention",
    "PositionAttention",
    "QuarterTurns",
    "Rescale",
    "Residual",
    "ScaledDotProductAttention",
    "SelectiveKernel",
    "ShuffleAttention",
    "SimAM",
    "SlidingWindowSegmentation",
    "SoftHardAttention",
    "SpatialGroupEnhance",
    "SplitAttention",
    "SqueezeExcitation",
    "Transform",
    "Translate",
    "TripletAttention",
    "WindowAttention",
    "attention",
    "data",
    "definitions",
    "diversity_penalty",
    "equivariance_loss",
    "fields",
    "layers",
    "ops",
    "oracle",
    "parameters",
    "trace",
    "tracing",
]

HOMES = ("npattn.attention", "npattn.module", "npattn.ops.context", "npattn.transforms", "npattn.tracing")


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: pytest loads `npattn.plugin` in runs that need no more."""
    if name in ("attention", "data", "fields", "layers", "ops", "oracle", "parameters", "tracing"):
        return import_module(f"npattn.{name}")
    if name == "__version__":
        return import_module("npattn.version").find_version()
    if name in __all__:
        found = next(vars(home)[name] for home in map(import_module, HOMES) if name in home.__all__)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'npattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what can be asked for."""
    return sorted({*globals(), *__all__, "__version__"})
