"""Functions as kernels compute them, of an exponential in base 2 too: correct kernels of another make, which pass."""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from npattn.oracle import cases, golden
from npattn.oracle.formats import representable
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS


def cross_entropy(case, *, forgets=1.0, of_sum=False):
    """In float32, with softmax less 1 as the label's gradient."""
    z, labels = case.inputs["logits"].astype(np.float32), case.inputs["labels"]
    counted, own = labels != -100, labels[:, None] == np.arange(z.shape[1])[:, None, None]
    total = logsumexp(z, axis=1, keepdims=True)
    y = np.exp(z - total) if of_sum else softmax(z, axis=1)
    loss = np.where(own, total - z, 0).sum() / counted.sum()
    dz = np.where(counted[:, None], (y - own * np.float32(forgets)) / counted.sum(), 0) * case.upstream["output"]
    return {name: representable(np.float64(a), case.format) for name, a in {"output": loss, "logits.grad": dz}.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cross_entropy_may_be_made_of_a_sum_that_the_largest_term_is_in(dtype):
    case = next(recipe for recipe in cases("ops.cross_entropy", [dtype], seed=3) if recipe.label == "large").make()
    assert case.compare(cross_entropy(case)).passed
    assert case.compare(cross_entropy(case, of_sum=True)).passed
    assert not case.compare(cross_entropy(case, forgets=0.9)).passed


def test_the_loss_of_what_is_nearly_sure_may_cancel():
    module = PRIMITIVE_SYSTEMS["ops.cross_entropy"]()
    labels = np.arange(15).reshape(1, 3, 5)
    logits = 19.0 * (labels[:, None] == np.arange(16)[:, None, None]) + 30
    case = golden(module, inputs={"logits": logits, "labels": labels}, dtype="float32")
    assert 0 < case.expected["output"] < 1e-6
    assert case.compare(cross_entropy(case)).passed
    assert case.compare(cross_entropy(case, of_sum=True)).passed


@pytest.mark.parametrize("key", ["softmax", "sigmoid"])
def test_an_exponential_of_large_numbers_may_be_made_in_base_2(key):
    case = next(recipe for recipe in cases(f"ops.{key}", ["float32"], seed=3) if recipe.label == "large").make()
    x = case.inputs["x"].astype(np.float32)

    def exponential(x):
        return np.exp2(x * np.float32(1.442695))

    e = exponential(x - x.max(axis=-1, keepdims=True) if key == "softmax" else -np.abs(x))
    y = e / e.sum(axis=-1, keepdims=True) if key == "softmax" else np.where(x < 0, e, 1) / (1 + e)
    assert case.compare({"output": y}).passed
    assert not case.compare({"output": y * (1 + 1e-5)}).passed


def test_terms_of_a_gradient_of_nearest_resizing_may_be_added_in_any_order():
    case = next(recipe for recipe in cases("ops.resize_nearest", ["float32"], seed=3) if recipe.label == "large").make()
    (height, width), (rows, columns) = case.inputs["x"].shape[2:], case.module.size
    read = np.arange(rows)[:, None] * height // rows, np.arange(columns) * width // columns
    dx = np.zeros(case.inputs["x"].shape, np.float32)
    np.add.at(dx, (..., *read), case.upstream["output"].astype(np.float32))
    assert case.compare({"x.grad": dx}).passed
    assert not case.compare({"x.grad": dx * (1 + 1e-5)}).passed
