"""Rounding arrays: NumPy arrays on which every operation makes an error that a kernel in some format may make.

A `RoundingArray` speaks NumPy's protocols (NEP 13 and 18), so the systems' code runs on it as it stands. Run several
times, it shows how far each result of a correct kernel may stray; ``derivations/error_budgets.md`` says why.
"""

from npattn.oracle.rounding import contractions, functions, gates, kernels, layers, single_values, weights, written_out
from npattn.oracle.rounding.arrays import RoundingArray
from npattn.oracle.rounding.footprint import Footprint
from npattn.oracle.rounding.selections import Selections
from npattn.oracle.rounding.stochastic import Rounding

__all__ = [
    "Footprint",
    "Rounding",
    "RoundingArray",
    "Selections",
    "contractions",
    "functions",
    "gates",
    "kernels",
    "layers",
    "single_values",
    "weights",
    "written_out",
]
