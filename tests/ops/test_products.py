import numpy as np
from hypothesis import given, settings

from npattn import ops
from tests.ops.primitives import normal
from tests.strategies import seeds, sizes


@settings(max_examples=20)
@given(sizes, sizes, sizes, seeds)
def test_gram_matrix_is_the_product_with_the_transpose_used_twice(batch, rows, length, seed):
    a, dg = normal(batch, rows, length, seed=seed), normal(batch, rows, rows, seed=seed + 1)
    g, back_gram = ops.gram(a)
    product, back_product = ops.matmul(a, a.swapaxes(1, 2))
    np.testing.assert_allclose(g, product, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(g, g.swapaxes(1, 2))
    left, right = back_product(dg)
    np.testing.assert_allclose(back_gram(dg), left + right.swapaxes(1, 2), rtol=1e-11, atol=1e-12)


def test_antisymmetric_gradient_of_a_gram_matrix_moves_nothing():
    dg = normal(4, 4)
    np.testing.assert_array_equal(ops.gram(normal(4, 7, seed=1))[1](dg - dg.T), 0)
