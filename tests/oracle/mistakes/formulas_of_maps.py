"""Mistakes in what is done to maps and rows: values and gradients as their names say, by formulas of their own."""

import numpy as np

from npattn import ops
from tests.oracle.mistakes.plain import draw, softmax

__all__ = ["BACKWARD", "FORWARD"]


def along_rows(q, k, v):
    return np.einsum("bhwu,bchu->bchw", softmax(np.einsum("bchw,bchu->bhwu", q, k)), v)


def standing_out(x, e_lambda):
    mean, variance = x.mean(axis=(2, 3), keepdims=True), x.var(axis=(2, 3), ddof=1, keepdims=True)
    return (x - mean) ** 2 / (4 * (variance + e_lambda)) + 0.5


def up_to_own_key(q, k, v):
    return np.einsum("...mn,...cn->...cm", np.tril(0.5 * np.einsum("...cm,...cn->...mn", q, k)), v)


MAP = draw(2, 3, 4, 5)
QKV = draw(1, 2, 3, 4), draw(1, 2, 3, 4), draw(1, 2, 3, 4)
WINDOWS = 3, 2
LAST_OVER = [0, 0, 1, 1, 1]
"""The last window of 3, 2 apart, over each of five columns."""
FORWARD = {
    ("apply_lambdas", "lambda of the position before"): (
        *(ops.apply_lambdas, (draw(2, 2, 3, 4), draw(2, 5, 3, 4))),
        lambda q, lambdas: np.einsum("bekn,bvkn->bevn", q, lambdas[..., [3, 0, 1, 2]]),
    ),
    ("conv1d", "reads one channel further on"): (
        *(ops.conv1d, (draw(2, 5), draw(1, 1, 3))),
        lambda x, w: sum(w[0, 0, j] * np.pad(x, ((0, 0), (0, j)))[:, j : j + 5] for j in range(3)),
    ),
    ("criss_cross_attention", "row alone"): (
        *(ops.criss_cross_attention, QKV),
        along_rows,
    ),
    ("gate", "gates of the next image"): (
        *(ops.gate, (draw(3, 2, 4, 5), draw(3, 2))),
        lambda x, a: x * a[[1, 2, 0], :, None, None],
    ),
    ("global_average_pool", "last row twice"): (
        *(ops.global_average_pool, (MAP,)),
        lambda x: (x.sum(axis=(2, 3)) + x[:, :, 3].sum(axis=2)) / 20,
    ),
    ("global_average_pool", "standard deviation for mean, unbiased"): (
        *(ops.global_average_pool, (MAP,)),
        lambda x: x.std(axis=(2, 3), ddof=1),
    ),
    ("inverse_energy", "lambda 1e-3"): (
        *(ops.inverse_energy, (0.1 * MAP,)),
        lambda x: standing_out(x, 1e-3),
    ),
    ("linear_attention", "causal: each query up to its own key"): (
        *(ops.linear_attention, (draw(2, 3, 4), draw(2, 3, 4), draw(2, 5, 4), 0.5)),
        up_to_own_key,
    ),
    ("overlap_average", "last window over a position alone"): (
        *(ops.overlap_average, (draw(2, 3, 1, 2), (3, 5), *WINDOWS)),
        lambda z: z[:, :, [0, 0, 0]][..., LAST_OVER],
    ),
    ("pad", "the edge's numbers for zeros"): (
        *(ops.pad, (MAP, 2)),
        lambda x: np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), "edge"),
    ),
    ("pad", "wrapped round for zeros"): (
        *(ops.pad, (MAP, 2)),
        lambda x: np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), "wrap"),
    ),
    ("resize_bilinear", "nearest read"): (
        *(ops.resize_bilinear, (draw(1, 2, 2, 3), (4, 3), False)),
        lambda x: x[:, :, [0, 0, 1, 1]],
    ),
    ("sum_normalize", "over the batch"): (
        *(ops.sum_normalize, (np.abs(draw(2, 3, 4)), -1, 1e-9)),
        lambda x: x / x.sum(axis=0),
    ),
    ("take", "number within its tile of 4"): (
        *(ops.take, (draw(2, 3, 6), np.array([[0, 5, 4], [3, 1, 5]]))),
        lambda x: np.stack([x[0][:, [0, 1, 0]], x[1][:, [3, 1, 1]]]),
    ),
    ("window_average", "last column left out"): (
        *(ops.window_average, (draw(2, 3, 3, 5), *WINDOWS)),
        lambda x: np.stack([x[..., j : j + 2].sum(axis=(2, 3)) for j in (0, 2)], axis=2)[:, :, None] / 9,
    ),
}
"""By primitive and name: the primitive, its arguments, and the value as it is with the mistake."""


def sums_apart(do, q, k, v):
    """Gradients of each position's row, with itself, and of the rest of its column, by sums of their own."""
    found = tuple(np.zeros_like(a) for a in (q, k, v))
    for i, j in np.ndindex(3, 4):
        seen = [(i, u) for u in range(4)] + [(h, j) for h in range(3) if h != i]
        keys, values = (np.stack([a[0, :, h, u] for h, u in seen]) for a in (k, v))
        s, ds = softmax(keys @ q[0, :, i, j]), values @ do[0, :, i, j]
        dz = np.concatenate([s[at] * (ds[at] - s[at] @ ds[at]) for at in (slice(4), slice(4, None))])
        found[0][0, :, i, j] = dz @ keys
        for n, (h, u) in enumerate(seen):
            found[1][0, :, h, u] += dz[n] * q[0, :, i, j]
            found[2][0, :, h, u] += s[n] * do[0, :, i, j]
    return found


def by_deviation_alone(dz, x):
    direct = (x - x.mean(axis=(2, 3), keepdims=True)) * dz / (2 * x.var(axis=(2, 3), ddof=1, keepdims=True) + 2e-4)
    return direct - direct.mean(axis=(2, 3), keepdims=True)


BACKWARD = {
    ("apply_lambdas", "gradient: dλ of the last head alone"): (
        *(ops.apply_lambdas, (draw(2, 2, 3, 4), draw(2, 5, 3, 4)), 1),
        lambda dy, q, lambdas: np.einsum("bvn,bkn->bvkn", dy[:, 1], q[:, 1]),
    ),
    ("criss_cross_attention", "gradient: sums of row and column apart"): (
        *(ops.criss_cross_attention, QKV, None),
        sums_apart,
    ),
    ("inverse_energy", "gradient: variance constant"): (
        *(ops.inverse_energy, (MAP,), 0),
        by_deviation_alone,
    ),
    ("repeat", "gradient: first head of a group alone"): (
        *(ops.repeat, (draw(2, 3, 4), 2, 1), 0),
        lambda dy, x: dy[:, ::2],
    ),
    ("window_average", "gradient: of the last window over a position alone"): (
        *(ops.window_average, (draw(2, 3, 3, 5), *WINDOWS), 0),
        lambda dp, x: dp[:, :, [0, 0, 0]][..., LAST_OVER] / 9,
    ),
}
"""By primitive and name: the primitive, its arguments, the number of the gradient or None for all, and what it is."""
