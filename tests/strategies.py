"""What the tests draw from: the package's own strategies, and arrays laid out in every way that a caller may pass."""

import numpy as np
from hypothesis import strategies as st

import npattn
from npattn.oracle.strategies import cases, modules
from npattn.oracle.strategies.both import (
    bam_modules,
    cbam_modules,
    coordinate_modules,
    flexible_segmentation_modules,
    gc_modules,
    ge_modules,
    polarized_modules,
    shuffle_modules,
    simam_modules,
    triplet_modules,
)
from npattn.oracle.strategies.catalogue import multi_scale_modules, residual_modules
from npattn.oracle.strategies.channel import (
    cbam_channel_modules,
    eca_modules,
    flexible_modules,
    se_modules,
    sk_modules,
    split_modules,
)
from npattn.oracle.strategies.hyperparameters import pools, seeds, sizes
from npattn.oracle.strategies.self_attention import (
    bottleneck_modules,
    cam_modules,
    criss_cross_modules,
    danet_modules,
    double_modules,
    external_modules,
    halo_modules,
    lambda_modules,
    linear_modules,
    mhsa_modules,
    non_local_modules,
    pam_modules,
    pcm_modules,
    sdpa_modules,
    window_modules,
)
from npattn.oracle.strategies.spatial import (
    attention_gate_modules,
    cbam_spatial_modules,
    ema_modules,
    hard_modules,
    sge_modules,
    sliding_window_modules,
    soft_hard_modules,
)

__all__ = [
    "NAMESPACE",
    "SMALL_MODULES",
    "SYSTEMS",
    "arrange",
    "attention_gate_modules",
    "bam_modules",
    "bottleneck_modules",
    "cam_modules",
    "cases",
    "cbam_channel_modules",
    "cbam_modules",
    "cbam_spatial_modules",
    "coordinate_modules",
    "criss_cross_modules",
    "danet_modules",
    "double_modules",
    "eca_modules",
    "ema_modules",
    "external_modules",
    "flexible_modules",
    "flexible_segmentation_modules",
    "gc_modules",
    "ge_modules",
    "halo_modules",
    "hard_modules",
    "has_few_parameters",
    "lambda_modules",
    "layouts",
    "linear_modules",
    "mhsa_modules",
    "modules",
    "multi_scale_modules",
    "non_local_modules",
    "pam_modules",
    "pcm_modules",
    "polarized_modules",
    "pools",
    "residual_modules",
    "sdpa_modules",
    "se_modules",
    "seeds",
    "sge_modules",
    "shuffle_modules",
    "simam_modules",
    "sizes",
    "sk_modules",
    "sliding_window_modules",
    "small_example",
    "soft_hard_modules",
    "split_modules",
    "triplet_modules",
    "window_modules",
]

CHARACTERS = st.characters(exclude_categories=["Cs"])
"""All that UTF-8 has, as `st.text` takes by default: it tries the codec on each, for seconds in a clean clone."""
SYSTEMS = list(npattn.CATALOGUE.values())
NAMESPACE = {system.__name__: system for system in SYSTEMS}
"""What the text of a module is evaluated in."""
SMALL_MODULES = {
    "flexible-segmentation": npattn.FlexibleSegmentation(channels=8, classes=2, window=3, stride=2, reduction=4),
    "cbam": npattn.CBAM(channels=8, reduction=4),
    "coordinate": npattn.CoordinateAttention(channels=8),
    "pam": npattn.PositionAttention(channels=4, reduction=2),
    "criss-cross": npattn.CrissCrossAttention(channels=4, reduction=2),
    "danet": npattn.DualAttentionHead(in_channels=8, classes=2),
    "gc": npattn.GlobalContext(channels=8, reduction=2, fuse=("scale", "add")),
    "mhsa": npattn.MultiHeadSelfAttention(channels=6, heads=2),
    "bottleneck": npattn.BottleneckAttention(channels=4, feat_size=(3, 4), heads=2, head_dim=2, stride=2, bias=True),
    "halo": npattn.HaloAttention(channels=4, heads=2, head_dim=2, block_size=2, halo_size=1, bias=True),
    "multi-scale": npattn.MultiScaleConcat(in_channels=4, out_channels=2, rates=(1, 2)),
    "polarized": npattn.PolarizedSelfAttention(channels=4, hidden=2),
    "sk": npattn.SelectiveKernel(in_channels=4, out_channels=2, hidden=2),
    "split": npattn.SplitAttention(in_channels=4, out_channels=2, hidden=2),
    "window": npattn.WindowAttention(channels=4, heads=2, window=2, shift=1),
    "ge": npattn.GatherExcite(channels=8, extent=4, reduction=4),
    "triplet": npattn.TripletAttention(channels=4, kernel_size=3),
    "bam": npattn.BAM(channels=8, reduction=4, dilation=2),
    "external": npattn.ExternalAttention(channels=6, memory=5),
    "linear": npattn.EfficientAttention(channels=8, heads=2, key_channels=4, value_channels=6),
    "lambda": npattn.LambdaLayer(channels=8, heads=2, key_channels=2, kernel_size=3),
    "attention-gate": npattn.AttentionGate(channels=4, gating_channels=6),
    "double": npattn.DoubleAttention(channels=6, hidden=4, maps=3),
}
"""Modules, by key, of systems whose examples have many parameters; what they lack is more of the same layers."""
layouts = st.sampled_from(["contiguous", "transposed", "strided", "read-only"])


def small_example(system):
    """A system's example, or a module with fewer parameters and all of its layers."""
    return SMALL_MODULES.get(system.key) or system.example()


def has_few_parameters(case):
    """Tell whether a case is of a small module; what larger ones have is more of the same layers."""
    return sum(value.size for value in case[1].values()) <= 500


def arrange(array, layout):
    """Lay an array out in memory in another way, with the same values."""
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "strided":
        wide = np.repeat(array, 2, axis=-1)
        return wide[..., ::2]
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array
