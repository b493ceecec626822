import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.memory import peak_memory
from tests.ops.primitives import torch_gradients
from tests.ops.test_attention import arrays, leads
from tests.strategies import seeds, sizes


@settings(max_examples=30)
@given(leads, st.tuples(sizes, sizes, sizes, sizes), st.sampled_from([1.0, 0.25, -2.0]), seeds)
def test_values_and_gradients_are_those_of_products_without_a_softmax(lead, shape, scale, seed):
    pytest.importorskip("torch")
    *qkv, do = arrays(lead, shape, seed)

    def published(q, k, v):
        return v @ (scale * (q.transpose(-1, -2) @ k)).transpose(-1, -2)

    o, backward = ops.linear_attention(*qkv, scale)
    expected, theirs = torch_gradients(published, do, *qkv)
    assert o.shape == do.shape
    np.testing.assert_allclose(o, expected, rtol=1e-11, atol=1e-11)
    for ours, reference in zip(backward(do), theirs, strict=True):
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, rtol=1e-11, atol=1e-12 * np.abs(reference).max(initial=1))


def test_two_sets_of_keys_add_up():
    q, k, v, do = arrays()
    both, backward = ops.linear_attention(q, k, v)
    first, second = (ops.linear_attention(q, k[:, half], v[:, half]) for half in (slice(2), slice(2, None)))
    np.testing.assert_allclose(both, first[0] + second[0], rtol=1e-12)
    np.testing.assert_allclose(backward(do)[0], first[1](do)[0] + second[1](do)[0], rtol=1e-12)


def test_no_keys_give_zeros():
    q, k, v, do = arrays()
    o, backward = ops.linear_attention(q, k[:, :0], v[:, :0])
    assert o.shape == do.shape
    assert not o.any()
    dq, dk, dv = backward(do)
    assert (dq.shape, dk.shape, dv.shape) == (q.shape, (3, 0), (4, 0))


def test_memory_grows_as_the_positions_and_not_as_their_square():
    qkv = arrays((1,), (2, 3, 4096, 4096))[:3]
    assert peak_memory(lambda: ops.linear_attention(*qkv)[1](qkv[2])) < 4096**2 * 8 / 100
