"""Primitives: each a function that returns its value and the closure that carries a gradient back through it.

Every derivative is written out by hand. The functions call NumPy by protocol only, so any array that follows NEP 13
and NEP 18 flows through: real, complex, longdouble, rounding, or on a GPU. Arguments are trusted here; they are checked
once, in `npattn.Module`.
"""

from npattn.ops.convolution import conv1d
from npattn.ops.elementwise import relu, sigmoid
from npattn.ops.gating import gate
from npattn.ops.linear import linear
from npattn.ops.pooling import global_average_pool

__all__ = ["conv1d", "gate", "global_average_pool", "linear", "relu", "sigmoid"]
