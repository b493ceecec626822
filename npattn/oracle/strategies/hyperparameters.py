"""Hyperparameters that several systems share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from npattn.module import Module
from npattn.ops.elementwise import ACTIVATIONS

Modules = st.SearchStrategy[Module]
Sizes = st.SearchStrategy[int]

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
    "activation": st.sampled_from(list(ACTIVATIONS)),
    "gate": gates,
}
kernel_sizes = st.sampled_from([7, 1, 3])
