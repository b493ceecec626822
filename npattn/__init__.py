"""The attention systems of the vision literature in plain NumPy: forward and backward by hand, derived, and exact."""

from importlib.metadata import version

from npattn import attention, data, ops, oracle
from npattn.attention import (
    CATALOGUE,
    CBAM,
    CBAMChannelGate,
    CBAMSpatialGate,
    ChannelAttention,
    CoordinateAttention,
    DualAttentionHead,
    EfficientChannelAttention,
    FlexibleAttention,
    FlexibleSegmentation,
    PositionAttention,
    SlidingWindowSegmentation,
    SqueezeExcitation,
)
from npattn.module import Module, Paper, Pass

__version__ = version("npattn")
__all__ = [
    "CATALOGUE",
    "CBAM",
    "CBAMChannelGate",
    "CBAMSpatialGate",
    "ChannelAttention",
    "CoordinateAttention",
    "DualAttentionHead",
    "EfficientChannelAttention",
    "FlexibleAttention",
    "FlexibleSegmentation",
    "Module",
    "Paper",
    "Pass",
    "PositionAttention",
    "SlidingWindowSegmentation",
    "SqueezeExcitation",
    "attention",
    "data",
    "ops",
    "oracle",
]
