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
from npattn.oracle.rounding.written_out import Exponentials, Weighted, Weights


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


WAYS = [written, by_functions, in_place, without_maximum, hidden_by_a_product, hidden_by_a_choice]


@pytest.mark.parametrize("weigh", WAYS)
def test_weights_are_known_however_they_are_written_and_what_backward_finds_is_undone(weigh):
    logits = np.random.RandomState(0).standard_normal((5, 4)) + 200 * (weigh in (written, by_functions, in_place))
    found = []
    for number in range(8):
        rounding = Rounding(FORMATS["float32"], [0, number])
        a = weigh(rounding.array(logits))
        assert isinstance(a.made, Weights) and a.made.axis == 1
        assert isinstance((a * rounding.array(logits)).made, Weighted)
        before = np.array(a)
        rounding.begin_backward()
        found.append(np.abs(np.asarray(a) - before).max())
        rounding.end_backward()
        np.testing.assert_array_equal(a, before)
    changed = np.array(found) > 0
    assert 2 <= changed.sum() <= 6
    if weigh in (written, by_functions, in_place):
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
