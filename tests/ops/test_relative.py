import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds

lengths = st.integers(1, 4)
leads = st.sampled_from([(), (2,), (2, 3)])


@settings(max_examples=30)
@given(leads, st.tuples(lengths, lengths), st.tuples(st.integers(0, 3), st.integers(0, 3)), seeds)
def test_values_and_gradients_are_those_of_one_vector_for_each_pair(lead, size, more, seed):
    torch = pytest.importorskip("torch")
    (h, w), (rows, columns) = size, (n + m for n, m in zip(size, more, strict=True))
    q, height_rel, width_rel = (
        normal(*shape, seed=seed + i)
        for i, shape in enumerate(((*lead, 3, h, w), (2 * rows - 1, 3), (2 * columns - 1, 3)))
    )
    dz = normal(*lead, h * w, rows * columns, seed=seed + 3)

    def pair_by_pair(q, height_rel, width_rel):
        down = torch.arange(rows)[None] - torch.arange(h)[:, None] + rows - 1
        across = torch.arange(columns)[None] - torch.arange(w)[:, None] + columns - 1
        vectors = height_rel[down][:, None, :, None] + width_rel[across][None, :, None]  # (h, w, K, L, d)
        return 0.3 * torch.einsum("...cij,ijklc->...ijkl", q, vectors).reshape(dz.shape)

    z, gradients = torch_gradients(pair_by_pair, dz, q, height_rel, width_rel)
    value, backward = ops.relative_logits(q, height_rel, width_rel, 0.3)
    np.testing.assert_allclose(value, z, rtol=0, atol=1e-13)
    for ours, theirs in zip(backward(dz), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_moving_queries_and_keys_together_changes_nothing():
    q, vector = np.zeros((2, 1, 4)), normal(2, seed=1)
    q[:] = vector[:, None, None]
    z, _ = ops.relative_logits(q, normal(1, 2, seed=2), normal(7, 2, seed=3))
    for offset in range(-3, 4):
        diagonal = np.diagonal(z, offset)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-14)


def test_vectors_of_offsets_that_no_pair_has_get_no_gradient():
    q = normal(3, 2, 2)
    z, backward = ops.relative_logits(q, normal(9, 3, seed=1), normal(3, 3, seed=2))
    assert z.shape == (4, 10)
    _, dheight_rel, dwidth_rel = backward(np.ones_like(z))
    np.testing.assert_array_equal(dheight_rel.any(axis=1), [False] * 3 + [True] * 6)
    assert dwidth_rel.any(axis=1).all()
