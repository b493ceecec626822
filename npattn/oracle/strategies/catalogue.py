"""Modules of any system of the catalogue."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from npattn.attention import MultiScaleConcat, Residual
from npattn.checks import require_choice
from npattn.module import Module
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
from npattn.oracle.strategies.channel import (
    cbam_channel_modules,
    eca_modules,
    flexible_modules,
    se_modules,
    sk_modules,
    split_modules,
)
from npattn.oracle.strategies.hyperparameters import Modules, channels
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

__all__ = ["MODULES", "modules"]


def multi_scale_modules(training: bool = False) -> Modules:
    return st.builds(
        MultiScaleConcat,
        in_channels=channels,
        out_channels=st.integers(1, 5),
        rates=st.lists(st.integers(1, 3) | st.integers(1, 40), min_size=1, max_size=4).map(tuple),
        training=st.just(training),
    )


def keeps_shape(module: Module) -> bool:
    shapes = {"batch": 2, "height": 11, "width": 13}
    return list(module.output_shapes(**shapes).values()) == [next(iter(module.input_shapes(**shapes).values()))]


def residual_modules() -> Modules:
    """Draw a residual connection round any system that keeps the shape, or round another one."""
    once = st.builds(Residual, modules([key for key in MODULES if key != "residual"]).filter(keeps_shape))
    return once | st.builds(Residual, once)


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
    "ema": ema_modules,
    "attention-gate": lambda: attention_gate_modules() | attention_gate_modules(training=True),
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
    "bottleneck": bottleneck_modules,
    "halo": halo_modules,
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
