"""Primitives as systems: what golden cases, files and the marker know of ``"ops.softmax"`` and others of `npattn.ops`.

Each class says which arrays a primitive takes, and of what shapes; what it computes stands with the primitive itself.
Arrays that networks learn are parameters, all others inputs.
"""

from npattn.module import Module
from npattn.oracle.primitives import elementwise, layers, maps, pools, products, selecting, windows
from npattn.oracle.primitives.system import PrimitiveSystem

__all__ = ["PRIMITIVE_SYSTEMS", "PrimitiveSystem"]

PRIMITIVE_SYSTEMS: dict[str, type[Module]] = {
    system.key: system
    for system in (
        *(maps.Add, products.ApplyLambdas, pools.AveragePool, layers.BatchNorm),
        *(selecting.ChannelShuffle, layers.Conv1d, layers.Conv2d, products.CrissCrossAttention),
        *(products.CrossEntropy, products.DotProductAttention, maps.Dropout),
        *(windows.FoldWindows, maps.Gate, maps.GatherAverage, windows.GatherRelative, elementwise.Gelu),
        *(pools.GlobalAveragePool, pools.GlobalLpPool, pools.GlobalLsePool, pools.GlobalMaxPool),
        *(products.Gram, layers.GroupNorm, elementwise.HardSigmoid, elementwise.HardSwish),
        *(elementwise.InverseEnergy, elementwise.L2Normalize, layers.LayerNorm, elementwise.LeakyRelu, layers.Linear),
        *(products.LinearAttention, products.Matmul, pools.MaxPool, windows.OverlapAverage),
        *(windows.Pad, elementwise.Relu, products.RelativeLogits, selecting.Repeat),
        *(maps.ResizeBilinear, maps.ResizeNearest, layers.Score, maps.Shift),
        *(elementwise.Sigmoid, elementwise.Silu, products.Softmax, products.Softmin),
        *(elementwise.SumNormalize, elementwise.Tanh, selecting.Top, windows.UnfoldWindows),
        *(windows.WindowAverage, elementwise.ZScore),
    )
}
"""By key: ``"ops.softmax"``."""
