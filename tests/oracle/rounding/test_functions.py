"""Functions as kernels compute them: correct kernels of another make, which pass."""

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
