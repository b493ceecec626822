"""A softmax that a system writes out is known, and judged as one by the primitive is."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from npattn import Module, Pass
from npattn.fields import integer
from npattn.oracle import cases
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.rounding import Rounding
from npattn.oracle.rounding.written_out import Dropped, Exponentials, Total, Weighted, Weights


@dataclass(frozen=True)
class Head(Module):
    """Causal attention, all of it written out."""

    channels: int = integer(least=1, default=8)

    def input_shapes(self, batch, height, width):
        return dict.fromkeys("qkv", (batch, width, self.channels))

    def forward(self, params, q, k, v):
        scale = 1 / math.sqrt(self.channels)
        z = np.where(np.tri(q.shape[1]) > 0, scale * (q @ k.swapaxes(-1, -2)), -1e30)
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        a = e / e.sum(axis=-1, keepdims=True)

        def backward(dy):
            da = dy @ v.swapaxes(-1, -2)
            dz = scale * a * (da - (a * da).sum(axis=-1, keepdims=True))
            return (dz @ k, dz.swapaxes(-1, -2) @ q, a.swapaxes(-1, -2) @ dy), {}

        return Pass(a @ v, backward)


def by_tiles(case):
    """A kernel of attention in float32: weights again by their logsumexp, δ by the rounded output."""
    q, k, v = (case.inputs[name].astype(np.float32) for name in "qkv")
    dy = case.upstream["output"].astype(np.float32)

    def narrow(a):
        return representable(np.float64(a), case.format).astype(np.float32)

    scale = np.float32(1 / math.sqrt(case.module.channels))
    z = np.where(np.tri(q.shape[1]) > 0, scale * (q @ k.swapaxes(-1, -2)), -np.inf)
    largest = z.max(axis=-1, keepdims=True)
    e = np.exp(z - largest)
    total = e.sum(axis=-1, keepdims=True)
    y = narrow(narrow(e) @ v / total)
    a = np.exp(z - (largest + np.log(total)))
    dz = narrow(a * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(axis=-1, keepdims=True)))
    dq, dk, dv = scale * (dz @ k), scale * (dz.swapaxes(-1, -2) @ q), narrow(a).swapaxes(-1, -2) @ dy
    return {"output": y, "q.grad": narrow(dq), "k.grad": narrow(dk), "v.grad": narrow(dv)}


@pytest.mark.parametrize(
    ("dtype", "label", "seed"),
    [("float32", "large", 4), ("float32", "sliced", 0), ("float16", "large", 5), ("bfloat16", "large", 4)],
)
def test_a_kernel_by_tiles_passes(dtype, label, seed):
    case = next(recipe for recipe in cases(Head, [dtype], seed=seed) if recipe.label == label).make()
    found = by_tiles(case)
    case.assert_matches(found)
    assert not case.compare({"v.grad": found["v.grad"] * 1.01}).passed


def written(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def by_functions(z):
    e = np.exp(z - np.max(z, axis=1, keepdims=True))
    return np.divide(e, np.sum(e, axis=(1,), keepdims=True))


def in_place(z):
    e = np.exp(z - z.max(axis=1)[:, None])
    e /= e.sum(axis=1)[:, None]
    return e


def without_maximum(z):
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


def hidden_by_a_product(z):
    e = np.exp(z - z.max(axis=1, keepdims=True)) * np.tri(*z.shape)
    return e / e.sum(axis=1, keepdims=True)


def hidden_by_a_choice(z):
    e = np.where(np.tri(*z.shape) > 0, np.exp(z), 0)
    return e / e.sum(axis=1, keepdims=True)


def by_a_factor(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e * (1 / e.sum(axis=1, keepdims=True))


def by_einsum(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / np.einsum("ij -> i", e)[:, None]


def by_a_logarithm(z):
    z = z - z.max(axis=1, keepdims=True)
    return np.exp(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def by_logsumexp(z):
    largest = z.max(axis=1, keepdims=True)
    return np.exp(z - (largest + np.log(np.exp(z - largest).sum(axis=1, keepdims=True))))


def beside_a_sink(z):
    largest = np.maximum(z.max(axis=1, keepdims=True), 0)
    e = np.exp(z - largest)
    return e / (np.exp(-largest) + e.sum(axis=1, keepdims=True))


WITH_MAXIMUM = [
    *(written, by_functions, in_place, by_a_factor, by_einsum),
    *(by_a_logarithm, by_logsumexp, beside_a_sink),
]
WAYS = [*WITH_MAXIMUM, without_maximum, hidden_by_a_product, hidden_by_a_choice]


@pytest.mark.parametrize("weigh", WAYS)
def test_weights_are_known_however_they_are_written_and_what_backward_finds_is_undone(weigh):
    logits = np.random.RandomState(0).standard_normal((5, 4)) + 200 * (weigh in WITH_MAXIMUM)
    found = []
    for number in range(8):
        rounding = Rounding(FORMATS["float32"], [0, number])
        a = weigh(rounding.array(logits))
        assert isinstance(a.made, Weights) and a.made.axis == 1
        assert isinstance((a * rounding.array(logits)).made, Weighted)
        before = np.array(a)
        rounding.known.begin_backward(rounding.choose)
        found.append(np.abs(np.asarray(a) - before).max())
        rounding.known.end_backward()
        np.testing.assert_array_equal(a, before)
    changed = np.array(found) > 0
    assert 2 <= changed.sum() <= 6
    if weigh in WITH_MAXIMUM:
        assert max(found) > 1e-6


def test_other_quotients_are_no_weights():
    rounding = Rounding(FORMATS["float32"], [0, 1])
    x = rounding.array(np.ones((3, 4)))
    e = np.exp(x)
    others = [x / x.sum(axis=1, keepdims=True), e / x, e / np.exp(x).sum(axis=1, keepdims=True), e / e.sum()]
    assert [y.made for y in others] == [None] * 4
    assert (e + e).made is None
    e += x
    assert e.made is None
    assert isinstance(np.exp(x).T.made, Exponentials)


@dataclass(frozen=True)
class LogSoftmax(Module):
    """Log-probabilities, written out; backward has the exponentials, or makes them again."""

    again: bool = False

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height * width, 7)}

    def forward(self, params, x):
        def exponentials():
            z = x - x.real.max(axis=-1, keepdims=True)
            return z, np.exp(z)

        z, e = exponentials()
        total = e.sum(axis=-1, keepdims=True)

        def backward(dy):
            weights = exponentials()[1] if self.again else e
            return dy - weights / weights.sum(axis=-1, keepdims=True) * dy.sum(axis=-1, keepdims=True), {}

        return Pass(z - np.log(total), backward)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("again", [False, True])
def test_log_probabilities_may_be_made_of_a_rounded_logsumexp(dtype, again):
    case = next(recipe for recipe in cases(LogSoftmax(again), [dtype]) if recipe.label == "large").make()
    x, dy = (a.astype(np.float32) for a in (case.inputs["x"], case.upstream["output"]))

    def narrow(a):
        return representable(np.float64(a), case.format).astype(np.float32)

    largest = x.max(axis=-1, keepdims=True)
    y = narrow(x - narrow(largest + np.log(np.exp(x - largest).sum(axis=-1, keepdims=True))))
    dx = narrow(dy - np.exp(y) * dy.sum(axis=-1, keepdims=True))
    case.assert_matches({"output": y, "x.grad": dx})
    assert not case.compare({"x.grad": dy - 1.05 * np.exp(y) * dy.sum(axis=-1, keepdims=True)}).passed


def test_a_gradient_keeps_its_average_where_weights_are_dropped():
    random, rounding = np.random.RandomState(0), Rounding(FORMATS["float16"], [0, 1])
    z, v, do = (random.standard_normal(shape) for shape in ((4, 6), (6, 5), (4, 5)))
    keep = random.uniform(size=z.shape) < 0.8
    values = rounding.array(v)
    a = written(rounding.array(z))
    dropped = np.where(keep, a / 0.8, 0)
    assert isinstance(dropped.made, Dropped)
    o = dropped @ values
    rounding.known.begin_backward(rounding.choose)
    da = np.where(keep, (rounding.array(do) @ values.T) / 0.8, 0)
    average, _ = da.average()
    np.testing.assert_allclose(average.ravel(), (np.asarray(o) * do).sum(axis=1), atol=0.02)
    np.testing.assert_allclose(average.ravel(), np.asarray(a * da).sum(axis=1), atol=0.02)


def test_an_einsum_is_a_total_where_it_sums_one_axis_and_keeps_the_order_of_the_others():
    z = Rounding(FORMATS["float32"], [0, 1]).array(np.arange(24.0).reshape(2, 3, 4))
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    for subscripts, axis in {"bij->bi": 2, "bij->bj": 1, "bij->ij": 0}.items():
        made = np.einsum(subscripts, e).made
        assert isinstance(made, Total)
        assert made.axis == axis
    for subscripts in ("bij->b", "bij->", "bij->ib", "bij->bji", "bij->bij"):
        assert np.einsum(subscripts, e).made is None
