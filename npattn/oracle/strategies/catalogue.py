"""Modules of any system of the catalogue."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from npattn.attention import MultiScaleConcat, Residual
from npattn.checks import require_choice
from npattn.module import Module
from npattn.oracle.strategies import both, channel, self_attention, spatial
from npattn.oracle.strategies.hyperparameters import Modules, channels

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
    "se": lambda: channel.se_modules() | channel.se_modules(training=True),
    "eca": channel.eca_modules,
    "ge": lambda: both.ge_modules() | both.ge_modules(training=True),
    "flexible": channel.flexible_modules,
    "sliding-window": spatial.sliding_window_modules,
    "flexible-segmentation": both.flexible_segmentation_modules,
    "cbam": lambda: both.cbam_modules() | both.cbam_modules(training=True),
    "cbam-channel": channel.cbam_channel_modules,
    "cbam-spatial": lambda: spatial.cbam_spatial_modules() | spatial.cbam_spatial_modules(training=True),
    "bam": lambda: both.bam_modules() | both.bam_modules(training=True),
    "coordinate": lambda: both.coordinate_modules() | both.coordinate_modules(training=True),
    "simam": both.simam_modules,
    "shuffle": both.shuffle_modules,
    "triplet": lambda: both.triplet_modules() | both.triplet_modules(training=True),
    "sge": spatial.sge_modules,
    "polarized": both.polarized_modules,
    "ema": spatial.ema_modules,
    "attention-gate": lambda: spatial.attention_gate_modules() | spatial.attention_gate_modules(training=True),
    "pam": self_attention.pam_modules,
    "criss-cross": self_attention.criss_cross_modules,
    "cam": self_attention.cam_modules,
    "danet": self_attention.danet_modules,
    "gc": both.gc_modules,
    "non-local": lambda: self_attention.non_local_modules() | self_attention.non_local_modules(training=True),
    "external": lambda: self_attention.external_modules() | self_attention.external_modules(training=True),
    "double": self_attention.double_modules,
    "linear": self_attention.linear_modules,
    "lambda": lambda: self_attention.lambda_modules() | self_attention.lambda_modules(training=True),
    "mhsa": lambda: self_attention.mhsa_modules() | self_attention.mhsa_modules(masked=True),
    "window": self_attention.window_modules,
    "sdpa": self_attention.sdpa_modules,
    "bottleneck": self_attention.bottleneck_modules,
    "halo": self_attention.halo_modules,
    "multi-scale": lambda: multi_scale_modules() | multi_scale_modules(training=True),
    "sk": lambda: channel.sk_modules() | channel.sk_modules(training=True),
    "split": lambda: channel.split_modules() | channel.split_modules(training=True),
    "residual": residual_modules,
    "hard": spatial.hard_modules,
    "soft-hard": spatial.soft_hard_modules,
    "pcm": self_attention.pcm_modules,
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
