"""Systems, others whose parameters they are given, and the hyperparameters that are told to make these fit."""

from npattn import (
    CBAM,
    CoordinateAttention,
    DualAttentionHead,
    EfficientChannelAttention,
    FlexibleAttention,
    MultiHeadSelfAttention,
    MultiScaleConcat,
    PixelCorrelation,
    PositionAttention,
    Residual,
    SqueezeExcitation,
)

__all__ = ["MISFITS"]

MISFITS = [
    (SqueezeExcitation(64), SqueezeExcitation(64, 8), {"reduction=8"}),
    (SqueezeExcitation(64), SqueezeExcitation(64, bias=False), {"bias=False"}),
    (SqueezeExcitation(64, bias=False), SqueezeExcitation(64), {"bias=True"}),
    (SqueezeExcitation(64), SqueezeExcitation(256, 4), {"channels=256", "reduction=4"}),
    (SqueezeExcitation(64), SqueezeExcitation(64, hidden=20), {"hidden=20"}),
    (SqueezeExcitation(64), SqueezeExcitation(256, hidden=20), {"channels=256", "hidden=20"}),
    (CBAM(64), CBAM(64, kernel_size=3), {"kernel_size=3"}),
    (CBAM(64), CBAM(64, bias=False, hidden=20), {"bias=False", "hidden=20"}),
    (EfficientChannelAttention(256), EfficientChannelAttention(64), {"kernel_size=3"}),
    (CBAM(64), CBAM(64, spatial=False), {"spatial=False"}),
    (CBAM(64, spatial=False), CBAM(64), {"spatial=True"}),
    (CBAM(64), CBAM(64, batch_norm=False), {"batch_norm=False"}),
    (CBAM(64), CBAM(512, 8, batch_norm=False), {"channels=512", "reduction=8", "batch_norm=False"}),
    (FlexibleAttention(64), FlexibleAttention(32, 8), {"channels=32", "reduction=8"}),
    (CoordinateAttention(64), CoordinateAttention(128, reduction=4), {"channels=128", "reduction=4"}),
    (DualAttentionHead(512, 19), DualAttentionHead(2048, 21), {"in_channels=2048", "classes=21"}),
    (MultiHeadSelfAttention(16, 2), MultiHeadSelfAttention(768, 2), {"channels=768"}),
    (PositionAttention(64), PositionAttention(64, 2), {"reduction=2"}),
    (MultiScaleConcat(8, 4), MultiScaleConcat(8, 4, (6, 12)), {"rates of length 2"}),
    (PixelCorrelation(16, 8), PixelCorrelation(100, 24), {"channels=100", "embedding=24"}),
    (Residual(SqueezeExcitation(64)), Residual(SqueezeExcitation(64, 8)), {"inner.reduction=8"}),
]
