"""Primitives: each a function that returns its value and its vector-Jacobian product, or a step of such functions.

The latter (VJP, or pullback) is a closure, `backward`, that carries a gradient of the value back through the step.
Every derivative is written out by hand. The functions call NumPy by protocol only, so any array that follows NEP 13
and NEP 18 flows through: real, complex, longdouble, rounding, or on a GPU. Arguments are trusted here, as they are
checked once, in `npattn.Module`; attention alone refuses shapes that it would misread. Arrays that go in together have
one dtype, which what comes out has too.

These are definitions. Faster ways to the same numbers stand in `npattn.fast`, and enter through `npattn.ops.primitive`.
"""

from importlib import import_module
from importlib.util import find_spec

from npattn.ops.adding import accumulate, add, shift
from npattn.ops.affinity import affinity_sums
from npattn.ops.attention import dot_product_attention
from npattn.ops.convolution import conv1d, conv2d, project
from npattn.ops.criss_cross import criss_cross_attention
from npattn.ops.dropping import dropout
from npattn.ops.elementwise import gelu, hard_sigmoid, hard_swish, leaky_relu, relu, sigmoid, silu, tanh
from npattn.ops.energy import inverse_energy
from npattn.ops.gathering import gather_average
from npattn.ops.gating import gate
from npattn.ops.global_pooling import (
    global_average_pool,
    global_lp_pool,
    global_lse_pool,
    global_max_pool,
    global_pools,
)
from npattn.ops.joining import channel_shuffle, concatenate, concatenate_and_shuffle, repeat, split
from npattn.ops.lambdas import apply_lambdas
from npattn.ops.linear import linear
from npattn.ops.linear_attention import linear_attention
from npattn.ops.losses import cross_entropy
from npattn.ops.masking import masked_attention
from npattn.ops.normalisation import batch_norm, group_norm, l2_normalize, layer_norm, sum_normalize, z_score
from npattn.ops.partitioning import cyclic_shift, gather_relative, window_partition, window_reverse
from npattn.ops.pooling import average_pool, max_pool
from npattn.ops.products import gram, matmul
from npattn.ops.relative import relative_logits
from npattn.ops.resizing import resize_bilinear, resize_nearest
from npattn.ops.selecting import score, select, take, top
from npattn.ops.weighting import softmax, softmin
from npattn.ops.windowing import (
    fold_windows,
    overlap_average,
    pad,
    unfold_windows,
    window_average,
    window_starts,
)

__all__ = [
    "accumulate",
    "add",
    "affinity_sums",
    "apply_lambdas",
    "average_pool",
    "batch_norm",
    "channel_shuffle",
    "concatenate",
    "concatenate_and_shuffle",
    "conv1d",
    "conv2d",
    "criss_cross_attention",
    "cross_entropy",
    "cyclic_shift",
    "dot_product_attention",
    "dropout",
    "fold_windows",
    "gate",
    "gather_average",
    "gather_relative",
    "gelu",
    "global_average_pool",
    "global_lp_pool",
    "global_lse_pool",
    "global_max_pool",
    "global_pools",
    "gram",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "inverse_energy",
    "l2_normalize",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_attention",
    "masked_attention",
    "matmul",
    "max_pool",
    "overlap_average",
    "pad",
    "project",
    "relative_logits",
    "relu",
    "repeat",
    "resize_bilinear",
    "resize_nearest",
    "score",
    "select",
    "shift",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "split",
    "sum_normalize",
    "take",
    "tanh",
    "top",
    "unfold_windows",
    "window_average",
    "window_partition",
    "window_reverse",
    "window_starts",
    "z_score",
]

# They register themselves, once all primitives are there. Without that folder everything is computed as defined.
if find_spec("npattn.fast"):
    import_module("npattn.fast")
