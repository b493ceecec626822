"""Hypothesis strategies: modules with any hyperparameters, their parameters and inputs, for property tests.

They are drawn by seed through `generic_values`, away from zeros and ties, and shrink to small sizes and small seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from npattn.attention import (
    BAM,
    CBAM,
    CBAMChannelGate,
    CBAMSpatialGate,
    ChannelAttention,
    CoordinateAttention,
    CrissCrossAttention,
    DoubleAttention,
    DualAttentionHead,
    EfficientAttention,
    EfficientChannelAttention,
    ExternalAttention,
    FlexibleAttention,
    FlexibleSegmentation,
    GatherExcite,
    GlobalContext,
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
)
from npattn.checks import require_choice
from npattn.module import Module
from npattn.ops.convolution import pair
from npattn.oracle.values import generic_values

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("npattn.oracle.strategies needs Hypothesis: pip install hypothesis") from error

__all__ = ["cases", "inputs", "modules", "parameters"]

Modules = st.SearchStrategy[Module]
Sizes = st.SearchStrategy[int]

NORMS_BEHIND_POOLS = MultiScaleConcat, SelectiveKernel, SplitAttention
"""Systems in which batch norm stands behind a pool."""
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**31 - 1)
channels = st.integers(1, 9)
reductions = st.integers(1, 12)
pools = st.lists(st.sampled_from(["avg", "max", "lp", "lse"]), min_size=1, unique=True).map(tuple)
gates = st.sampled_from(["sigmoid", "hard_sigmoid"])
excitation: dict[str, st.SearchStrategy[Any]] = {
    "channels": channels,
    "reduction": reductions,
    "bias": st.booleans(),
    "hidden": st.none() | st.integers(1, 5),
    "activation": st.sampled_from(["relu", "silu", "hard_swish"]),
    "gate": gates,
}
kernel_sizes = st.sampled_from([7, 1, 3])


def se_modules() -> Modules:
    return st.builds(SqueezeExcitation, **excitation)


def eca_modules() -> Modules:
    return st.builds(
        EfficientChannelAttention,
        channels=channels,
        kernel_size=st.none() | st.sampled_from([1, 3, 5, 7]),
        gamma=st.sampled_from([1, 2, 3.5, -2]),
        b=st.sampled_from([0, 1, 2.5, -4]),
    )


def ge_modules(training: bool = False) -> Modules:
    options: dict[str, Any] = {
        "channels": channels,
        "mlp": st.booleans(),
        "hidden": st.integers(1, 5),
        "batch_norm": st.booleans(),
        "activation": excitation["activation"],
        "gate": gates,
        "training": st.just(training),
    }
    averages = st.builds(GatherExcite, extent=st.sampled_from([0, 2, 4, 6]), **options)
    kernels = st.builds(GatherExcite, extra_params=st.just(True), extent=st.sampled_from([2, 4]), **options)
    whole = st.builds(GatherExcite, extra_params=st.just(True), feat_size=st.sampled_from([1, 3, 5]), **options)
    return averages | kernels | whole


def flexible_modules() -> Modules:
    return st.builds(FlexibleAttention, channels=channels, reduction=reductions)


@st.composite
def sliding_window_modules(draw: st.DrawFn) -> SlidingWindowSegmentation:
    window = draw(st.integers(1, 7))
    stride = draw(st.integers(1, window))
    return SlidingWindowSegmentation(draw(st.integers(1, 9)), draw(st.integers(2, 5)), window, stride)


def flexible_segmentation_modules() -> Modules:
    def both(attention: FlexibleAttention, segmentation: SlidingWindowSegmentation) -> FlexibleSegmentation:
        return FlexibleSegmentation(**{**vars(attention), **vars(segmentation)})

    return st.builds(both, flexible_modules(), sliding_window_modules())


def coordinate_modules(training: bool = False) -> Modules:
    return st.builds(
        lambda channels, explicit, reduction: CoordinateAttention(
            channels, channels if explicit else None, reduction, training
        ),
        channels=channels,
        explicit=st.booleans(),
        reduction=st.sampled_from([1, 2, 32]),
    )


def shuffle_modules() -> Modules:
    def cut(groups: int, each: int) -> ShuffleAttention:
        return ShuffleAttention(2 * groups * each, groups)

    return st.builds(cut, groups=st.integers(1, 3), each=st.integers(1, 3))


def simam_modules() -> Modules:
    return st.builds(SimAM, channels, st.sampled_from([1e-4, 1e-2, 1.0]), st.sampled_from(["code", "paper"]))


def sge_modules() -> Modules:
    return st.builds(
        lambda groups, each, variant: SpatialGroupEnhance(groups * each, groups, variant),
        st.integers(1, 4),
        st.integers(1, 3),
        st.sampled_from(["code", "paper"]),
    )


@st.composite
def polarized_modules(draw: st.DrawFn) -> PolarizedSelfAttention:
    form, variant = draw(st.sampled_from(["parallel", "sequential"])), draw(st.sampled_from(["code", "paper"]))
    # A norm of one or two numbers leaves no gradient, and of few a rectifier may let none pass.
    channels_ = draw(st.integers(3, 9) if variant == "paper" else channels)
    narrow = form == "sequential" and variant == "code"
    hidden = draw(st.integers(12, 16) if narrow else st.none() | st.integers(1, 5))
    return PolarizedSelfAttention(channels_, form, variant, hidden)


def pam_modules() -> Modules:
    return st.builds(PositionAttention, channels=channels, reduction=reductions)


def gc_modules() -> Modules:
    """Draw transforms with three numbers inside at least: layer norm makes ±1 of two, and 0 of one, whatever they are.

    The gradient of what is inside is then all but 0.
    """
    return st.builds(
        GlobalContext,
        channels=channels,
        fuse=st.sampled_from([("scale",), ("add",), ("scale", "add"), ("add", "scale")]),
        attention=st.booleans(),
        hidden=st.integers(3, 6),
        activation=excitation["activation"],
        gate=gates,
        eps=st.sampled_from([1e-6, 1e-5, 0.5]),
    )


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


def triplet_modules(training: bool = False) -> Modules:
    return st.builds(TripletAttention, channels, st.booleans(), kernel_sizes, st.just(training))


@st.composite
def window_modules(draw: st.DrawFn) -> WindowAttention:
    window = draw(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shift: Any = draw(st.tuples(*(st.integers(0, side - 1) for side in pair(window))))
    heads, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    inner = draw(st.none() | st.integers(1, 4))
    mask_value = draw(st.sampled_from([None, -100.0]))
    return WindowAttention(heads * each, heads, window, shift, inner, draw(st.booleans()), mask_value)


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


def cbam_modules(training: bool = False) -> Modules:
    return st.builds(
        CBAM,
        **excitation,
        pools=pools,
        spatial=st.booleans(),
        batch_norm=st.booleans(),
        training=st.just(training),
        kernel_size=kernel_sizes,
    )


def cbam_channel_modules() -> Modules:
    return st.builds(CBAMChannelGate, **excitation, pools=pools)


def cbam_spatial_modules(training: bool = False) -> Modules:
    return st.builds(CBAMSpatialGate, channels, st.booleans(), st.just(training), kernel_sizes, gates)


def bam_modules(training: bool = False) -> Modules:
    return st.builds(
        BAM, channels, reductions, st.integers(1, 4), st.sampled_from(["code", "paper"]), st.just(training)
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


def multi_scale_modules(training: bool = False) -> Modules:
    return st.builds(
        MultiScaleConcat,
        in_channels=channels,
        out_channels=st.integers(1, 5),
        rates=st.lists(st.integers(1, 3) | st.integers(1, 40), min_size=1, max_size=4).map(tuple),
        training=st.just(training),
    )


@st.composite
def sk_modules(draw: st.DrawFn, training: bool = False) -> SelectiveKernel:
    kernel_sizes = tuple(draw(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=2, max_size=3)))
    split, groups = draw(st.booleans()), draw(st.sampled_from([1, 1, 2]))
    parts = groups * (len(kernel_sizes) if split else 1)
    return SelectiveKernel(
        in_channels=parts * draw(st.integers(1, 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        kernel_sizes=kernel_sizes,
        dilated=draw(st.booleans()),
        split_input=split,
        stride=draw(st.sampled_from([1, 1, 2])),
        groups=groups,
        hidden=draw(st.none() | st.integers(3, 5)),  # of one or two a rectifier may let none pass
        activation=draw(excitation["activation"]),
        training=training,
    )


@st.composite
def split_modules(draw: st.DrawFn, training: bool = False) -> SplitAttention:
    groups, radix = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 3))
    return SplitAttention(
        in_channels=groups * radix * draw(st.integers(1, 2)),
        out_channels=groups * draw(st.integers(1, 3)),
        kernel_size=draw(st.sampled_from([3, 1])),
        stride=draw(st.sampled_from([1, 1, 2])),
        dilation=draw(st.sampled_from([1, 2])),
        groups=groups,
        radix=radix,
        hidden=groups * draw(st.integers(3, 4)),  # of one or two a rectifier may let none pass
        activation=draw(excitation["activation"]),
        batch_norm=draw(st.booleans()) or training,
        bias=draw(st.booleans()) and not training,  # which a norm takes away again
        training=training,
    )


def hard_modules() -> Modules:
    return st.builds(HardAttention, channels)


def soft_hard_modules() -> Modules:
    return st.builds(SoftHardAttention, channels, k=st.integers(1, 12))


def keeps_shape(module: Module) -> bool:
    shapes = {"batch": 2, "height": 11, "width": 13}
    return list(module.output_shapes(**shapes).values()) == [next(iter(module.input_shapes(**shapes).values()))]


def residual_modules() -> Modules:
    """Draw a residual connection round any system that keeps the shape, or round another one."""
    once = st.builds(Residual, modules([key for key in MODULES if key != "residual"]).filter(keeps_shape))
    return once | st.builds(Residual, once)


def pcm_modules() -> Modules:
    return st.builds(PixelCorrelation, sizes, sizes)


MODULES: dict[str, Callable[[], Modules]] = {
    "se": se_modules,
    "eca": eca_modules,
    "ge": lambda: ge_modules() | ge_modules(training=True),
    "flexible": flexible_modules,
    "sliding-window": sliding_window_modules,
    "flexible-segmentation": flexible_segmentation_modules,
    "cbam": lambda: cbam_modules() | cbam_modules(training=True),
    "cbam-channel": cbam_channel_modules,
    "cbam-spatial": lambda: cbam_spatial_modules() | cbam_spatial_modules(training=True),
    "bam": lambda: bam_modules() | bam_modules(training=True),
    "coordinate": lambda: coordinate_modules() | coordinate_modules(training=True),
    "simam": simam_modules,
    "shuffle": shuffle_modules,
    "triplet": lambda: triplet_modules() | triplet_modules(training=True),
    "sge": sge_modules,
    "polarized": polarized_modules,
    "pam": pam_modules,
    "criss-cross": criss_cross_modules,
    "cam": cam_modules,
    "danet": danet_modules,
    "gc": gc_modules,
    "non-local": lambda: non_local_modules() | non_local_modules(training=True),
    "external": lambda: external_modules() | external_modules(training=True),
    "double": double_modules,
    "linear": linear_modules,
    "lambda": lambda: lambda_modules() | lambda_modules(training=True),
    "mhsa": lambda: mhsa_modules() | mhsa_modules(masked=True),
    "window": window_modules,
    "sdpa": sdpa_modules,
    "multi-scale": lambda: multi_scale_modules() | multi_scale_modules(training=True),
    "sk": lambda: sk_modules() | sk_modules(training=True),
    "split": lambda: split_modules() | split_modules(training=True),
    "residual": residual_modules,
    "hard": hard_modules,
    "soft-hard": soft_hard_modules,
    "pcm": pcm_modules,
}
"""A strategy for each system of the catalogue, by key."""


def modules(systems: Any = None) -> Modules:
    """Draw modules, with hyperparameters at and beyond the usual ones, in training and not.

    Parameters
    ----------
    systems : str, class, or several of them, optional
        Keys or classes of `npattn.CATALOGUE`; by default all.

    Returns
    -------
    hypothesis.strategies.SearchStrategy

    Raises
    ------
    TypeError, ValueError
        If a system is not in the catalogue.
    """
    if systems is None:
        return modules_of(*MODULES)
    several = systems if isinstance(systems, Iterable) and not isinstance(systems, str) else [systems]
    keys = [system.key if isinstance(system, type) and issubclass(system, Module) else system for system in several]
    for key in keys:
        require_choice("modules", MODULES, systems=key)
    return modules_of(*keys)


@functools.cache
def modules_of(*keys: str) -> Modules:
    """Make the strategy of some systems once: to validate it takes Hypothesis longer than to draw from it."""
    return st.one_of(*(MODULES[key]() for key in keys))


@st.composite
def parameters(draw: st.DrawFn, /, module: Module, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Draw a module's parameters and buffers, all of them away from 0 and 1."""
    return module.init(draw(seeds), dtype, generic=True)


@st.composite
def inputs(
    draw: st.DrawFn, /, module: Module, dtype: Any = np.float64, **sizes_by_name: Sizes
) -> dict[str, np.ndarray]:
    """Draw a module's inputs by name, on a map whose `batch`, `height` and `width` are from 1 to 6 unless given."""
    return generic_values(module, **draw(map_sizes(module, **sizes_by_name)), seed=draw(seeds), dtype=dtype)[1]


@st.composite
def cases(
    draw: st.DrawFn, /, systems: Any = None, dtype: Any = np.float64, **sizes_by_name: Sizes
) -> tuple[Module, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw what a forward pass needs: a module, its parameters and its inputs, as `inputs` has them.

    Parameters
    ----------
    systems : strategy of Module, or what `modules` takes, optional
    dtype : dtype, default float64
    batch, height, width : strategy of int, optional
    """
    module = draw(systems if isinstance(systems, st.SearchStrategy) else modules(systems))
    sizes = draw(map_sizes(module, **sizes_by_name))
    return module, *generic_values(module, **sizes, seed=draw(seeds), dtype=dtype)


@st.composite
def map_sizes(
    draw: st.DrawFn,
    /,
    module: Module,
    batch: Sizes = sizes,
    height: Sizes = sizes,
    width: Sizes = sizes,
) -> dict[str, int]:
    """Draw sizes on which a module's gradients don't vanish."""
    b, h, w = draw(batch), draw(height), draw(width)
    if getattr(module, "training", False):  # a variance of one or two values leaves no gradient
        b, h, w = max(b, 2), max(h, 2), max(w, 2)
        if isinstance(module, GatherExcite):  # what its norms see is a part of the map, and not smaller than this
            b, h, w = max(b, 3), max(h, module.extent + 1), max(w, module.extent + 1)
        if isinstance(module, (MultiScaleConcat, SelectiveKernel, SplitAttention, BAM)):
            b = max(b, 3)  # one of their norms sees a value an image
    inner: Any = module
    while hasattr(inner, "inner"):
        inner = inner.inner
    if getattr(inner, "subsample", False) or (isinstance(inner, LambdaLayer) and inner.stride == 2):
        h, w = max(h, 2), max(w, 2)  # a pool needs two rows and two columns
    if isinstance(inner, LambdaLayer) and inner.feat_size is not None:  # a table is for maps of one size
        h, w = inner.feat_size
    if isinstance(module, SoftHardAttention):  # it chooses k positions
        w = max(w, -(-module.k // h))
    return {"batch": b, "height": h, "width": w}
