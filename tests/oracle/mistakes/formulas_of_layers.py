"""Mistakes in norms, activations, products and orders: values and gradients as their names say, by formulas apart."""

import math

import numpy as np
from scipy import special

from npattn import ops
from tests.oracle.mistakes.plain import draw

__all__ = ["BACKWARD", "FORWARD"]

EPS = 1e-5
ROWS = draw(2, 5, 3), draw(3), draw(3)
MAP = draw(2, 4, 3, 5)


def normal(x, axes):
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + EPS)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def difference(function, x):
    """The derivative of a function that takes complex numbers."""
    return function(x + 1e-30j).imag / 1e-30


def column_by_column(x):
    parts = [x[:, :, i : i + 2, j : j + 2].reshape(*x.shape[:2], 4) for j in (0, 2, 4) for i in (0, 2)]
    return np.stack(parts, axis=2)


LABELS = np.array([[[0, 1], [2, -100]], [[1, 1], [0, 2]]])


def log_probabilities(logits, labels):
    counted = np.take_along_axis(logits, labels[:, None], 1)[:, 0] - np.log(np.exp(logits).sum(axis=1))
    return counted[LABELS != -100]


FORWARD = {
    ("cross_entropy", "divided by all labels, ignored ones too"): (
        *(ops.cross_entropy, (draw(2, 3, 2, 2), LABELS)),
        lambda logits: -log_probabilities(logits, np.abs(LABELS) % 100).sum() / 8,
    ),
    ("cross_entropy", "labels off by one"): (
        *(ops.cross_entropy, (draw(2, 3, 2, 2), LABELS)),
        lambda logits: -log_probabilities(logits, (LABELS + 1) % 3).mean(),
    ),
    ("global_lse_pool", "zeros that fill up to a multiple of 16 counted"): (
        *(ops.global_lse_pool, (draw(2, 3, 5, 3),)),
        lambda x: np.log(np.exp(x).sum(axis=(2, 3)) + 1),
    ),
    ("channel_shuffle", "the wrong way round"): (
        *(ops.channel_shuffle, (draw(2, 6, 3), 2)),
        lambda x: x[:, [0, 2, 4, 1, 3, 5]],
    ),
    ("cyclic_shift", "zeros moved in, not what has left"): (
        *(ops.cyclic_shift, (MAP, (1, 2))),
        lambda x: np.pad(x[:, :, 1:, 2:], ((0, 0), (0, 0), (0, 1), (0, 2))),
    ),
    ("gram", "of rows less their mean (covariance)"): (
        *(ops.gram, (draw(2, 3, 7),)),
        lambda a: np.stack([np.cov(one) * 6 for one in a]),
    ),
    ("group_norm", "one group (layer norm)"): (
        *(ops.group_norm, (MAP, draw(4), draw(4), 2)),
        lambda x, weight, bias: normal(x, (1, 2, 3)) * weight[:, None, None] + bias[:, None, None],
    ),
    ("group_norm", "normalised over the batch (batch norm)"): (
        *(ops.group_norm, (MAP, draw(4), draw(4), 2)),
        lambda x, weight, bias: normal(x, (0, 2, 3)) * weight[:, None, None] + bias[:, None, None],
    ),
    ("l2_normalize", "over positions, not channels"): (
        *(ops.l2_normalize, (MAP, EPS)),
        lambda x: x / (np.linalg.norm(x.reshape(2, 4, 15), axis=2)[:, :, None, None] + EPS),
    ),
    ("layer_norm", "mean not subtracted (RMS norm)"): (
        *(ops.layer_norm, ROWS),
        lambda x, weight, bias: x / np.sqrt((x**2).mean(axis=2, keepdims=True) + EPS) * weight + bias,
    ),
    ("layer_norm", "over tokens, not channels"): (
        *(ops.layer_norm, ROWS),
        lambda x, weight, bias: normal(x, 1) * weight + bias,
    ),
    ("gelu", "by tanh"): (
        *(ops.gelu, (MAP,)),
        lambda x: x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    ),
    ("gelu", "erf of x, not of x/√2"): (
        *(ops.gelu, (MAP,)),
        lambda x: x * special.ndtr(x * math.sqrt(2)),
    ),
    ("leaky_relu", "slope 0.1"): (
        *(ops.leaky_relu, (MAP, 0.01)),
        lambda x: np.maximum(x, x / 10),
    ),
    ("leaky_relu", "sign of the slope turned"): (
        *(ops.leaky_relu, (MAP, 0.25)),
        lambda x: np.maximum(x, -x / 4),
    ),
    ("relu", "ELU"): (
        *(ops.relu, (MAP,)),
        lambda x: np.where(x > 0, x, np.expm1(x)),
    ),
    ("relu", "GELU by tanh"): (
        *(ops.relu, (MAP,)),
        lambda x: x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    ),
    ("score", "divided by √C"): (
        *(ops.score, (draw(2, 4, 6), draw(1, 4, 1), draw(1))),
        lambda x, weight, bias: (np.einsum("bcn,c->bn", x, weight.ravel()) + bias) / 2,
    ),
    ("sigmoid", "twice"): (
        *(ops.sigmoid, (MAP,)),
        lambda x: logistic(logistic(x)),
    ),
    ("silu", "slope 1.702"): (
        *(ops.silu, (MAP,)),
        lambda x: x * logistic(1.702 * x),
    ),
    ("tanh", "softsign"): (
        *(ops.tanh, (MAP,)),
        lambda x: x / (1 + np.abs(x)),
    ),
    ("window_partition", "windows column by column"): (
        *(ops.window_partition, (draw(1, 2, 4, 6), (2, 2))),
        column_by_column,
    ),
}
"""By primitive and name: the primitive, its arguments, and the value as it is with the mistake."""


def of_mean_alone(dy, x, weight, bias):
    """Layer norm's gradient with the variance held constant."""
    direct = dy * weight / np.sqrt(x.var(axis=2, keepdims=True) + EPS)
    return direct - direct.mean(axis=2, keepdims=True)


BACKWARD = {
    ("cross_entropy", "gradient: not less 1 for the label"): (
        *(ops.cross_entropy, (draw(2, 3, 2, 2), LABELS), 0),
        lambda dy, logits: np.where(
            LABELS[:, None] == -100, 0, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) * dy / 7
        ),
    ),
    ("gram", "gradient: the other side alone"): (
        *(ops.gram, (draw(2, 3, 7),), 0),
        lambda dg, a: np.einsum("bji,bjk->bik", dg, a),
    ),
    ("gelu", "gradient: of GELU by tanh"): (
        *(ops.gelu, (MAP,), 0),
        lambda dy, x: dy * difference(lambda x: x * logistic(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)), x),
    ),
    ("gelu", "gradient: gate constant"): (
        *(ops.gelu, (MAP,), 0),
        lambda dy, x: dy * special.ndtr(x),
    ),
    ("gelu", "gradient: slope of the gate alone"): (
        *(ops.gelu, (MAP,), 0),
        lambda dy, x: dy * x * difference(special.ndtr, x),
    ),
    ("gelu", "gradient: density not multiplied by x"): (
        *(ops.gelu, (MAP,), 0),
        lambda dy, x: dy * (special.ndtr(x) + difference(special.ndtr, x)),
    ),
    ("gelu", "gradient: density not divided by √(2π)"): (
        *(ops.gelu, (MAP,), 0),
        lambda dy, x: dy * (special.ndtr(x) + x * math.sqrt(2 * math.pi) * difference(special.ndtr, x)),
    ),
    ("leaky_relu", "gradient: of ReLU"): (
        *(ops.leaky_relu, (MAP, 0.25), 0),
        lambda dy, x: dy * np.heaviside(x, 0),
    ),
    ("leaky_relu", "gradient: mask of dy"): (
        *(ops.leaky_relu, (MAP, 0.25), 0),
        lambda dy, x: np.maximum(dy, dy / 4),
    ),
    ("layer_norm", "gradient: variance constant"): (
        *(ops.layer_norm, ROWS, 0),
        of_mean_alone,
    ),
    ("matmul", "gradient: transpose forgotten"): (
        *(ops.matmul, (draw(2, 3, 3), draw(2, 3, 4)), 1),
        lambda dc, a, b: np.einsum("bij,bjk->bik", a, dc),
    ),
    ("silu", "gradient: slope of the gate alone"): (
        *(ops.silu, (MAP,), 0),
        lambda dy, x: dy * x / (2 + 2 * np.cosh(x)),
    ),
    ("tanh", "gradient: y (1 - y)"): (
        *(ops.tanh, (MAP,), 0),
        lambda dy, x: dy * np.sinh(x) / np.cosh(x) * (1 - np.sinh(x) / np.cosh(x)),
    ),
}
"""By primitive and name: the primitive, its arguments, the number of the gradient or None for all, and what it is."""
