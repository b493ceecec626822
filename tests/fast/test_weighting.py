import numpy as np

from npattn import ops
from npattn.fast.weighting import softmax_of_short_columns
from tests.ops.primitives import in_blocks, normal


def test_gradients_of_short_columns_keep_their_digits_where_a_weight_is_nearly_one():
    x, dy = (normal(2, 3, 8, 5, seed=seed).astype(np.float32) for seed in (1, 2))
    x[:, :, 3] += 12
    with in_blocks():
        found = softmax_of_short_columns(x, 2)[1](dy)
    expected = ops.softmax.definition(x.astype(np.float64), 2)[1](dy.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-10)
