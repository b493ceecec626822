import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops.criss_cross import gather_on_lines, products, scatter_on_lines
from tests.ops.primitives import torch_gradients
from tests.ops.test_attention import leads
from tests.strategies import seeds, sizes


def maps(lead, shape, seed):
    """Queries, keys, values, and a gradient of the output."""
    d, e, height, width = shape
    random = np.random.RandomState(seed)
    return [random.standard_normal((*lead, channels, height, width)) for channels in (d, d, e, e)]


@settings(max_examples=30)
@given(leads, st.tuples(sizes, sizes, sizes, sizes), seeds)
def test_values_and_gradients_are_those_of_attention_with_all_others_masked(lead, shape, seed):
    torch = pytest.importorskip("torch")
    *qkv, do = maps(lead, shape, seed)
    row, column = torch.arange(shape[2] * shape[3]) // shape[3], torch.arange(shape[2] * shape[3]) % shape[3]
    apart = (row != row[:, None]) & (column != column[:, None])

    def masked(*qkv):
        q, k, v = (a.flatten(-2) for a in qkv)
        weights = (q.transpose(-1, -2) @ k).masked_fill(apart, -torch.inf).softmax(dim=-1)
        return (v @ weights.transpose(-1, -2)).reshape(qkv[2].shape)

    o, backward = ops.criss_cross_attention(*qkv)
    expected, theirs = torch_gradients(masked, do, *qkv)
    assert o.shape == do.shape
    np.testing.assert_allclose(o, expected, rtol=1e-11, atol=1e-12)
    for ours, reference in zip(backward(do), theirs, strict=True):
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-12 * np.abs(reference).max(initial=1))


@given(st.tuples(sizes, sizes, sizes, sizes), seeds)
def test_gathering_and_scattering_are_adjoint(shape, seed):
    a, b, *_ = maps((2,), shape, seed)
    w = np.random.RandomState(seed).standard_normal((2, *shape[2:], shape[3] + shape[2]))
    one, other = (b * gather_on_lines(a, w)).sum(), (scatter_on_lines(b, w) * a).sum()
    assert one == pytest.approx(other, rel=1e-10, abs=1e-10)
    assert (products(b, a) * w).sum() == pytest.approx(one, rel=1e-10, abs=1e-10)
