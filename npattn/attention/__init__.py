"""The attention systems, one file per paper, and the catalogue of them in reading order."""

from npattn.attention.cbam import CBAM, CBAMChannelGate, CBAMSpatialGate
from npattn.attention.coordinate import CoordinateAttention
from npattn.attention.efficient_channel import EfficientChannelAttention
from npattn.attention.flexible import FlexibleAttention
from npattn.attention.flexible_segmentation import FlexibleSegmentation
from npattn.attention.sliding_window import SlidingWindowSegmentation
from npattn.attention.squeeze_excitation import SqueezeExcitation
from npattn.module import Module

CATALOGUE: dict[str, type[Module]] = {
    system.key: system
    for system in (
        SqueezeExcitation,
        EfficientChannelAttention,
        FlexibleAttention,
        SlidingWindowSegmentation,
        FlexibleSegmentation,
        CBAM,
        CBAMChannelGate,
        CBAMSpatialGate,
        CoordinateAttention,
    )
}

__all__ = [
    "CATALOGUE",
    "CBAM",
    "CBAMChannelGate",
    "CBAMSpatialGate",
    "CoordinateAttention",
    "EfficientChannelAttention",
    "FlexibleAttention",
    "FlexibleSegmentation",
    "SlidingWindowSegmentation",
    "SqueezeExcitation",
]
