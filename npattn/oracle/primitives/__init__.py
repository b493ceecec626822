"""Primitives as systems: what golden cases, files and the marker know of ``"ops.softmax"`` and others of `npattn.ops`.

Each class says which arrays a primitive takes, and of what shapes; what it computes stands with the primitive itself.
Arrays that networks learn are parameters, all others inputs.
"""

from npattn.module import Module
from npattn.oracle.primitives import layers, maps, products, selecting, windows
from npattn.oracle.primitives.system import PrimitiveSystem

__all__ = ["PRIMITIVE_SYSTEMS", "PrimitiveSystem"]

PRIMITIVE_SYSTEMS: dict[str, type[Module]] = {
    system.key: system
    for system in (
        *(maps.Add, products.ApplyLambdas, maps.AveragePool, layers.BatchNorm, selecting.ChannelShuffle),
        *(layers.Conv1d, layers.Conv2d),
        *(products.CrissCrossAttention, products.CrossEntropy, products.DotProductAttention, maps.Dropout),
        *(windows.FoldWindows, maps.Gate),
        *(maps.GlobalAveragePool, maps.GlobalLpPool, maps.GlobalLsePool, maps.GlobalMaxPool, products.Gram),
        *(layers.GroupNorm, maps.HardSigmoid, maps.HardSwish, maps.InverseEnergy, maps.L2Normalize),
        *(
            layers.LayerNorm,
            layers.Linear,
            products.LinearAttention,
            products.Matmul,
            maps.MaxPool,
            windows.OverlapAverage,
            maps.Relu,
        ),
        *(selecting.Repeat, maps.ResizeBilinear, layers.Score, maps.Shift, maps.Sigmoid, maps.Silu),
        *(products.Softmax, products.Softmin, maps.SumNormalize, selecting.Top, windows.UnfoldWindows),
        *(windows.WindowAverage, maps.GatherAverage, windows.GatherRelative, maps.ResizeNearest, maps.ZScore),
    )
}
"""By key: ``"ops.softmax"``."""
