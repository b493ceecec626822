import numpy as np
import pytest

from npattn import oracle
from npattn.oracle.formats import representable


def results(case, shrink=1.0):
    """Of a norm, forward alone, its squares summed in float32 or in a part of that sum."""
    x = case.inputs["x"].astype(float)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    variance = shrink * np.square(x - mean).mean(axis=(1, 2, 3), keepdims=True)
    scale, shift = (case.params[name][:, None, None] for name in ("weight", "bias"))
    return {"output": representable((x - mean) / np.sqrt(variance + 1e-5) * scale + shift, case.format)}


@pytest.fixture(scope="module")
def case():
    """Of a norm of so many numbers that the sum of their squares is beyond float8_e4m3."""
    recipes = oracle.cases("ops.group_norm", ["float8_e4m3"], shapes=[(1, 64, 8, 8)], groups=1)
    return recipes[0].make()


def test_a_norm_whose_squares_sum_beyond_the_format_is_judged_by_kernels_that_keep_the_sum(case):
    assert case.compare(results(case)).passed
    assert not case.compare({"output": np.zeros(case.expected["output"].shape)}).passed


def test_a_norm_whose_sum_of_squares_is_saturated_is_refused(case):
    squares = case.inputs["x"].astype(float).var() * case.inputs["x"].size
    assert squares > 2 * case.format.largest
    assert not case.compare(results(case, case.format.largest / squares)).passed
