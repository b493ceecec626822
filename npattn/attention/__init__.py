"""The attention systems, one file per paper, and the catalogue of them in reading order."""

from npattn.attention.bam import BAM
from npattn.attention.cbam import CBAM, CBAMChannelGate, CBAMSpatialGate
from npattn.attention.channel import ChannelAttention
from npattn.attention.coordinate import CoordinateAttention
from npattn.attention.criss_cross import CrissCrossAttention
from npattn.attention.diversity import diversity_penalty
from npattn.attention.double import DoubleAttention
from npattn.attention.dual import DualAttentionHead
from npattn.attention.efficient import EfficientAttention
from npattn.attention.efficient_channel import EfficientChannelAttention
from npattn.attention.equivariance import equivariance_loss
from npattn.attention.external import ExternalAttention
from npattn.attention.flexible import FlexibleAttention
from npattn.attention.flexible_segmentation import FlexibleSegmentation
from npattn.attention.gather_excite import GatherExcite
from npattn.attention.global_context import GlobalContext
from npattn.attention.hard import HardAttention
from npattn.attention.lambda_layer import LambdaLayer
from npattn.attention.multi_head import MultiHeadSelfAttention
from npattn.attention.multi_scale import MultiScaleConcat
from npattn.attention.non_local import NonLocal
from npattn.attention.pixel_correlation import PixelCorrelation
from npattn.attention.polarized import PolarizedSelfAttention
from npattn.attention.position import PositionAttention
from npattn.attention.residual import Residual
from npattn.attention.scaled_dot_product import ScaledDotProductAttention
from npattn.attention.selective_kernel import SelectiveKernel
from npattn.attention.shuffle import ShuffleAttention
from npattn.attention.simam import SimAM
from npattn.attention.sliding_window import SlidingWindowSegmentation
from npattn.attention.soft_hard import SoftHardAttention
from npattn.attention.spatial_group import SpatialGroupEnhance
from npattn.attention.split import SplitAttention
from npattn.attention.squeeze_excitation import SqueezeExcitation
from npattn.attention.triplet import TripletAttention
from npattn.attention.window import WindowAttention
from npattn.module import Module

CATALOGUE: dict[str, type[Module]] = {
    system.key: system
    for system in (
        SqueezeExcitation,
        EfficientChannelAttention,
        GatherExcite,
        FlexibleAttention,
        SlidingWindowSegmentation,
        FlexibleSegmentation,
        CBAM,
        CBAMChannelGate,
        CBAMSpatialGate,
        BAM,
        CoordinateAttention,
        SimAM,
        ShuffleAttention,
        TripletAttention,
        SpatialGroupEnhance,
        PolarizedSelfAttention,
        PositionAttention,
        CrissCrossAttention,
        ChannelAttention,
        DualAttentionHead,
        GlobalContext,
        NonLocal,
        ExternalAttention,
        DoubleAttention,
        EfficientAttention,
        LambdaLayer,
        MultiHeadSelfAttention,
        WindowAttention,
        ScaledDotProductAttention,
        MultiScaleConcat,
        SelectiveKernel,
        SplitAttention,
        Residual,
        HardAttention,
        SoftHardAttention,
        PixelCorrelation,
    )
}

__all__ = [
    "BAM",
    "CATALOGUE",
    "CBAM",
    "CBAMChannelGate",
    "CBAMSpatialGate",
    "ChannelAttention",
    "CoordinateAttention",
    "CrissCrossAttention",
    "DoubleAttention",
    "DualAttentionHead",
    "EfficientAttention",
    "EfficientChannelAttention",
    "ExternalAttention",
    "FlexibleAttention",
    "FlexibleSegmentation",
    "GatherExcite",
    "GlobalContext",
    "HardAttention",
    "LambdaLayer",
    "MultiHeadSelfAttention",
    "MultiScaleConcat",
    "NonLocal",
    "PixelCorrelation",
    "PolarizedSelfAttention",
    "PositionAttention",
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
    "TripletAttention",
    "WindowAttention",
    "diversity_penalty",
    "equivariance_loss",
]
