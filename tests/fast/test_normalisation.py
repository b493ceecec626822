import numpy as np
import pytest

from npattn.fast.normalisation import batch_norm_channel_by_channel, group_norm_group_by_group
from npattn.ops import batch_norm, group_norm
from tests.ops.primitives import in_blocks, normal, patched


@pytest.mark.parametrize("longest", [15, 34, 35, 4096])
@pytest.mark.parametrize("training", [True, False])
def test_norms_of_long_and_of_short_rows_are_those_of_the_definition(longest, training):
    x, dy = normal(3, 6, 5, 7), normal(3, 6, 5, 7, seed=1)
    weight, bias, mean, variance = (normal(6, seed=seed) for seed in range(2, 6))
    norms = [
        (group_norm, group_norm_group_by_group, (x, weight, bias, 2), {}),
        (batch_norm, batch_norm_channel_by_channel, (x, weight, bias, mean, variance**2), {"training": training}),
    ]
    for norm, way, arguments, options in norms:
        expected, back = norm.definition(*arguments, **options)
        with in_blocks(2), patched("MAX_ROW_LENGTH", longest):
            found, back_found = way(*arguments, **options)
            gradients = back_found(dy)
        if norm is batch_norm:
            (found, running), (expected, expected_running) = found, expected
            np.testing.assert_allclose(running, expected_running, rtol=1e-13)
        for ours, theirs in zip((found, *gradients), (expected, *back(dy)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
