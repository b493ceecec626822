"""What a mistake makes of a primitive is what its name says: held to formulas that are written down here alone."""

import numpy as np
import pytest

from npattn import ops
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.planting import completed
from tests.oracle.mistakes import formulas_of_layers, formulas_of_maps
from tests.oracle.mistakes.plain import draw, softmax

STEP = 1e-6
BEFORE_OTHERS = {
    ("dot_product_attention", f"{what} in bfloat16") for what in ("logits", "products of queries and keys")
}
"""Roundings whose derivative is that of what comes behind, at a number that is rounded."""


def weights_with_zeros(z, count, axis=-1):
    """Softmax beside so many logits that are 0."""
    zeros = np.zeros([count if i == axis % z.ndim else n for i, n in enumerate(z.shape)])
    return softmax(np.concatenate([z, zeros], axis=axis), axis).take(np.arange(z.shape[axis]), axis)


def by_own_maxima(z, ends):
    parts = [np.exp(part - part.max(axis=-1, keepdims=True)) for part in np.split(z, ends, axis=-1)]
    e = np.concatenate(parts, axis=-1)
    return e / e.sum(axis=-1, keepdims=True)


def attend(s, v):
    return np.einsum("bhmn,bhcn->bhcm", s, v)


def logits(q, k):
    return np.einsum("bhcm,bhcn->bhmn", q, k)


def narrow(a):
    """Round to eight bits."""
    scale = 2.0 ** (7 - np.floor(np.log2(np.abs(a))))
    return np.round(a * scale) / scale


def standardized(x, weight, bias, seen, eps):
    """Layer norm by the mean and variance of some of the features."""
    some = x[..., :seen]
    mean, variance = some.mean(axis=-1, keepdims=True), some.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def parts_of_all_heads(x):
    """Rows of heads, (B, h, 2 + 3, ...), read as if all heads' first two came before all heads' last three."""
    heads, rest = x.shape[1], x.shape[3:]
    rows = x.reshape(len(x), -1, *rest)
    first, second = rows[:, : 2 * heads], rows[:, 2 * heads :]
    return tuple(a.reshape(len(x), heads, -1, *rest) for a in (first, second))


Q, K, V = (draw(2, 2, 3, 19) for _ in range(3))
Z = draw(2, 3, 19)
FORWARD = (
    {
        ("dot_product_attention", "padded keys counted, tiles of 8"): (
            *(ops.dot_product_attention, (Q, K, V, 0.6)),
            lambda q, k, v: attend(weights_with_zeros(0.6 * logits(q, k), 5), v),
        ),
        ("dot_product_attention", "logits in bfloat16"): (
            *(ops.dot_product_attention, (Q, K, V, 0.6)),
            lambda q, k, v: attend(softmax(narrow(0.6 * logits(q, k))), v),
        ),
        ("dot_product_attention", "products of queries and keys in bfloat16"): (
            *(ops.dot_product_attention, (Q, K, V, 0.6)),
            lambda q, k, v: attend(softmax(0.6 * narrow(logits(q, k))), v),
        ),
        ("softmax", "zeros that fill up to a multiple of 8 counted"): (
            *(ops.softmax, (Z, -1)),
            lambda z: weights_with_zeros(z, 5),
        ),
        ("softmax", "tiles of 8 by their own maxima, not rescaled"): (
            *(ops.softmax, (Z, -1)),
            lambda z: by_own_maxima(z, [8, 16]),
        ),
        ("softmax", "last tile of 16 left out of the sum"): (
            *(ops.softmax, (Z, -1)),
            lambda z: np.exp(z) / np.exp(z[..., :16]).sum(axis=-1, keepdims=True),
        ),
        ("softmax", "over two axes together, as of all heads"): (
            *(ops.softmax, (Z, -1)),
            lambda z: np.exp(z) / np.exp(z).sum(axis=(1, 2), keepdims=True),
        ),
        ("softmax", "over the other of the last two axes"): (
            *(ops.softmax, (Z, -1)),
            lambda z: softmax(z, 1),
        ),
        ("matmul", "last tile of 16 of the terms ignored"): (
            *(ops.matmul, (draw(2, 3, 19), draw(2, 19, 4))),
            lambda a, b: np.einsum("bik,bkj->bij", a[..., :16], b[:, :16]),
        ),
        ("sum_normalize", "epsilon 1e-2"): (
            *(ops.sum_normalize, (np.abs(Z), -1, 1e-9)),
            lambda x: x / (x.sum(axis=-1, keepdims=True) + 1e-2),
        ),
        ("layer_norm", "last tile of 16 left out of mean and variance"): (
            *(ops.layer_norm, (draw(2, 3, 19), draw(19), draw(19))),
            lambda x, weight, bias: standardized(x, weight, bias, 16, 1e-5),
        ),
        ("conv2d", "weight's memory read as (in, out)"): (
            *(ops.conv2d, (draw(1, 3, 4, 4), draw(2, 3, 1, 1))),
            lambda x, w: np.einsum("bchw,co->bohw", x, w.reshape(3, 2)),
        ),
        ("linear_attention", "context's memory read as (keys, values)"): (
            *(ops.linear_attention, (draw(1, 2, 3, 5), draw(1, 2, 3, 5), draw(1, 2, 4, 5), 0.5)),
            lambda q, k, v: np.einsum(
                "bhkc,bhkn->bhcn", 0.5 * np.einsum("bhcn,bhkn->bhck", v, k).reshape(1, 2, 3, 4), q
            ),
        ),
        ("split", "all heads' first parts before their second ones"): (
            *(ops.split, (draw(2, 2, 5, 3, 2), (2, 3), 2)),
            parts_of_all_heads,
        ),
        ("unfold_windows", "last row and column not read"): (
            *(ops.unfold_windows, (draw(1, 2, 4, 4), 2, 2)),
            lambda x: ops.unfold_windows(x, 2, 2)[0] * np.array([[1.0, 0.0], [0.0, 0.0]]),
        ),
        ("gate", "value in bfloat16"): (
            *(ops.gate, (draw(2, 3, 4, 5), draw(2, 3))),
            lambda x, a: rounded(x * a[:, :, None, None]),
        ),
    }
    | formulas_of_maps.FORWARD
    | formulas_of_layers.FORWARD
)
"""By primitive and name: the primitive, its arguments, and the value as it is with the mistake."""


def rounded(a):
    """Round to eight bits, ties to even."""
    mantissa, exponent = np.frexp(a)
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


def made(primitive, name, way):
    (found,) = (one for one in MISTAKES if (one.primitive, one.name, one.way) == (primitive, name, way))
    return found


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def arrays_of(arguments):
    return [a for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"]


def results(call, arguments):
    """Return values and gradients, the upstream gradient being drawn."""
    value, back = call(*arguments)
    dy = tuple(np.random.RandomState(i).standard_normal(y.shape) for i, y in enumerate(as_tuple(value)))
    gradients = back(dy if isinstance(value, tuple) else dy[0])
    return as_tuple(value), [g for g in as_tuple(gradients) if g is not None], dy


def spoilt(mistake, primitive):
    def call(*arguments):
        given, options = completed(primitive, arguments, {})
        return mistake.apply(primitive, *given, **options)

    return call


def applies(mistake, primitive, arguments):
    given, options = completed(primitive, arguments, {})
    return mistake.when(*given, **options)


@pytest.mark.parametrize("key", FORWARD, ids=": ".join)
def test_a_mistake_in_forward_alone_has_the_value_of_its_formula_and_the_right_gradients(key):
    primitive, arguments, formula = FORWARD[key]
    mistake = made(*key, "forward")
    assert applies(mistake, primitive, arguments)
    values, gradients, _ = results(spoilt(mistake, primitive), arguments)
    expected = as_tuple(formula(*arrays_of(arguments)))
    right, right_gradients, _ = results(primitive, arguments)
    assert all(np.allclose(a, b) for a, b in zip(values, expected, strict=True))
    assert any(a.shape != b.shape or not np.allclose(a, b) for a, b in zip(values, right, strict=True))
    assert all(np.allclose(a, b) for a, b in zip(gradients, right_gradients, strict=True))


@pytest.mark.parametrize("key", [key for key in FORWARD if key not in BEFORE_OTHERS], ids=": ".join)
def test_a_mistake_carried_through_backward_has_the_derivative_of_its_formula(key):
    """Along a direction that is drawn; a rounding has that of what it rounds."""
    primitive, arguments, formula = FORWARD[key]
    values, gradients, dy = results(spoilt(made(*key, "carried"), primitive), arguments)
    given = arrays_of(arguments)
    assert all(np.allclose(a, b) for a, b in zip(values, as_tuple(formula(*given)), strict=True))
    smooth = primitive if "bfloat16" in key[1] else lambda *some: (formula(*some), None)
    directions = [np.random.RandomState(i + 9).standard_normal(a.shape) for i, a in enumerate(given)]
    ahead, behind = (
        as_tuple(smooth(*(a + step * v for a, v in zip(given, directions, strict=True)))[0]) for step in (STEP, -STEP)
    )
    slope = sum(np.vdot(g, a - b) for g, a, b in zip(dy, ahead, behind, strict=True)) / (2 * STEP)
    assert np.isclose(sum(np.vdot(g, v) for g, v in zip(gradients, directions, strict=True)), slope, rtol=1e-6)


def slopes_beside(axis):
    """Softmax's gradient with the sum over another axis."""
    return lambda dy, z: softmax(z) * (dy - (softmax(z) * dy).sum(axis=axis, keepdims=True))


S = softmax(draw(2, 3, 4))
BACKWARD = (
    {
        ("softmax", "gradient: sum over the axis before the right one"): (
            *(ops.softmax, (Z, 2), 0),
            slopes_beside(1),
        ),
        ("sigmoid", "gradient: slope at the gate, as if it were the logit"): (
            *(ops.sigmoid, (Z,), 0),
            lambda dy, x: dy / (2 + 2 * np.cosh(1 / (1 + np.exp(-x)))),
        ),
        ("average_pool", "gradient: divided by the number of channels, whichever axis was pooled"): (
            *(ops.average_pool, (draw(2, 3, 4, 5), 2), 0),
            lambda dy, x: np.broadcast_to(dy / 3, x.shape),
        ),
        ("sum_normalize", "gradient: divided twice by the sum"): (
            *(ops.sum_normalize, (np.abs(Z), -1, 1e-9), 0),
            lambda dy, x: (
                (dy - (dy * x).sum(axis=-1, keepdims=True) / x.sum(axis=-1, keepdims=True))
                / x.sum(axis=-1, keepdims=True) ** 2
            ),
        ),
        ("matmul", "gradient: of the right side by exponentials, not divided by their sum"): (
            *(ops.matmul, (S, draw(2, 4, 5)), 1),
            lambda dy, a, b: np.einsum("bik,bij->bkj", a / a.max(axis=-1, keepdims=True), dy),
        ),
        ("matmul", "gradient: of the left side by exponentials, not divided by their sum"): (
            *(ops.matmul, (draw(2, 5, 3), softmax(draw(2, 3, 4), 1)), 0),
            lambda dy, a, b: np.einsum("bij,bkj->bik", dy, b / b.max(axis=1, keepdims=True)),
        ),
        ("gate", "gradient: of the first channel alone"): (
            *(ops.gate, (draw(2, 3, 4, 5), draw(2, 1, 4, 5)), 1),
            lambda dy, x, a: (dy[:, 0] * x[:, 0])[:, None],
        ),
        ("gate", "gradient: of the last of every 2 images alone"): (
            *(ops.gate, (draw(6, 3, 4, 5), draw(1, 3, 1, 1)), 1),
            lambda dy, x, a: np.einsum("bchw,bchw->c", dy[1::2], x[1::2]).reshape(1, 3, 1, 1),
        ),
        ("conv2d", "gradient: of the weights from the last of every 2 images alone"): (
            *(ops.conv2d, (draw(6, 3, 4, 4), draw(2, 3, 1, 1)), 1),
            lambda dy, x, w: np.einsum("bohw,bchw->oc", dy[1::2], x[1::2])[:, :, None, None],
        ),
        ("conv2d", "gradient: of the weights from the last image alone"): (
            *(ops.conv2d, (draw(3, 3, 4, 4), draw(2, 3, 1, 1)), 1),
            lambda dy, x, w: np.einsum("ohw,chw->oc", dy[-1], x[-1])[:, :, None, None],
        ),
        ("linear_attention", "gradient: dk by the first head's values"): (
            *(ops.linear_attention, (draw(1, 2, 3, 5), draw(1, 2, 3, 5), draw(1, 2, 4, 5), 0.5), 1),
            lambda dy, q, k, v: np.einsum("bhck,bcn->bhkn", 0.5 * np.einsum("bhcm,bhkm->bhck", dy, q), v[:, 0]),
        ),
        ("linear_attention", "gradient: dv by the first head's keys"): (
            *(ops.linear_attention, (draw(1, 2, 3, 5), draw(1, 2, 3, 5), draw(1, 2, 4, 5), 0.5), 2),
            lambda dy, q, k, v: np.einsum("bhck,bkn->bhcn", 0.5 * np.einsum("bhcm,bhkm->bhck", dy, q), k[:, 0]),
        ),
        ("unfold_windows", "gradient: of the middle of windows alone, not of what overlaps"): (
            *(ops.unfold_windows, (draw(1, 1, 6, 6), 4, 2), 0),
            lambda dy, x: sum(
                np.pad(dy[0, 0, i, j][1:3, 1:3], ((2 * i + 1, 3 - 2 * i), (2 * j + 1, 3 - 2 * j)))
                for i in range(2)
                for j in range(2)
            )[None, None],
        ),
    }
    | formulas_of_maps.BACKWARD
    | formulas_of_layers.BACKWARD
)
"""By primitive and name: the primitive, its arguments, the number of the gradient or None for all, and what it is."""


@pytest.mark.parametrize("key", BACKWARD, ids=": ".join)
def test_a_mistake_in_backward_has_the_gradient_of_its_formula_and_others_right(key):
    primitive, arguments, i, formula = BACKWARD[key]
    mistake = made(*key, "backward")
    assert applies(mistake, primitive, arguments)
    values, gradients, dy = results(spoilt(mistake, primitive), arguments)
    right, right_gradients, _ = results(primitive, arguments)
    assert all(np.array_equal(a, b) for a, b in zip(values, right, strict=True))
    assert not all(np.allclose(a, b) for a, b in zip(gradients, right_gradients, strict=True))
    expected = formula(dy[0], *arrays_of(arguments))
    if i is not None:
        expected = [*right_gradients[:i], expected, *right_gradients[i + 1 :]]
    assert all(np.allclose(a, b) for a, b in zip(gradients, expected, strict=True))
