"""Modules that weigh channels and positions, with any hyperparameters."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from npattn.attention import (
    BAM,
    CBAM,
    CoordinateAttention,
    FlexibleAttention,
    FlexibleSegmentation,
    GatherExcite,
    GlobalContext,
    PolarizedSelfAttention,
    ShuffleAttention,
    SimAM,
    SlidingWindowSegmentation,
    TripletAttention,
)
from npattn.oracle.strategies.channel import flexible_modules
from npattn.oracle.strategies.hyperparameters import (
    Modules,
    channels,
    excitation,
    gates,
    kernel_sizes,
    pools,
    reductions,
)
from npattn.oracle.strategies.spatial import sliding_window_modules

__all__: list[str] = []  # by key they stand in the catalogue


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
    kernels = st.builds(GatherExcite, extra_params=st.just(True), extent=st.sampled_from([2, 4, 6]), **options)
    side = st.integers(1, 5)
    whole = st.builds(GatherExcite, extra_params=st.just(True), feat_size=side | st.tuples(side, side), **options)
    return averages | kernels | whole


def flexible_segmentation_modules() -> Modules:
    def both(attention: FlexibleAttention, segmentation: SlidingWindowSegmentation) -> FlexibleSegmentation:
        return FlexibleSegmentation(**{**vars(attention), **vars(segmentation)})

    return st.builds(both, flexible_modules(), sliding_window_modules())


def coordinate_modules(training: bool = False) -> Modules:
    return st.builds(
        lambda channels, explicit, reduction, hidden, bias: CoordinateAttention(
            channels, channels if explicit else None, reduction, training, hidden, bias
        ),
        channels=channels,
        explicit=st.booleans(),
        reduction=st.sampled_from([1, 2, 32]),
        hidden=st.none() | st.integers(9, 12),  # of few units all may be off
        bias=st.booleans(),
    )


def shuffle_modules() -> Modules:
    def cut(groups: int, each: int) -> ShuffleAttention:
        return ShuffleAttention(2 * groups * each, groups)

    return st.builds(cut, groups=st.integers(1, 3), each=st.integers(1, 3))


def simam_modules() -> Modules:
    return st.builds(SimAM, channels, st.sampled_from([1e-4, 1e-2, 1.0]), st.sampled_from(["code", "paper"]))


@st.composite
def polarized_modules(draw: st.DrawFn) -> PolarizedSelfAttention:
    form, variant = draw(st.sampled_from(["parallel", "sequential"])), draw(st.sampled_from(["code", "paper"]))
    # A norm of one or two numbers leaves no gradient, and of few a rectifier may let none pass.
    channels_ = draw(st.integers(3, 9) if variant == "paper" else channels)
    squeezes = form == "sequential" and variant == "code"
    hidden = draw(st.integers(12, 16) if squeezes else st.none() | st.integers(1, 5))
    return PolarizedSelfAttention(channels_, form, variant, hidden)


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


def triplet_modules(training: bool = False) -> Modules:
    return st.builds(TripletAttention, channels, st.booleans(), kernel_sizes, st.just(training))


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


def bam_modules(training: bool = False) -> Modules:
    return st.builds(
        BAM, channels, reductions, st.integers(1, 4), st.sampled_from(["code", "paper"]), st.just(training)
    )
