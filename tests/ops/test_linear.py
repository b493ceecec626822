import numpy as np
import pytest
from hypothesis import given, settings

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes


@settings(max_examples=20)
@given(sizes, sizes, sizes, seeds)
def test_every_output_is_the_dot_product_of_a_row_and_a_weight(rows, wide, narrow, seed):
    x, weight, bias = normal(rows, wide, seed=seed), normal(narrow, wide, seed=seed + 1), normal(narrow, seed=seed + 2)
    expected = [
        [sum(w * v for w, v in zip(ws, row, strict=True)) + b for ws, b in zip(weight, bias, strict=True)] for row in x
    ]
    np.testing.assert_allclose(ops.linear(x, weight, bias)[0], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kernel", [(), (1, 1)])
def test_the_gradient_of_the_weight_has_its_shape(kernel):
    weight = normal(4, 3, *kernel, seed=1)
    assert ops.linear(normal(2, 3), weight)[1](normal(2, 4))[1].shape == weight.shape


def test_without_a_bias_there_is_no_gradient_of_one():
    z, backward = ops.linear(normal(2, 3), normal(4, 3))
    np.testing.assert_array_equal(z, ops.linear(normal(2, 3), normal(4, 3), np.zeros(4))[0])
    assert backward(normal(2, 4))[2] is None


@pytest.mark.parametrize("rows", [(5,), (2, 4), (2, 1, 3), (0,), (2, 70, 30)], ids=str)
def test_value_and_gradients_agree_with_pytorch_on_rows_and_on_tokens(rows):
    torch = pytest.importorskip("torch")
    arrays = normal(*rows, 7), normal(3, 7, seed=1), normal(3, seed=2)
    dz = normal(*rows, 3, seed=3)
    expected, gradients = torch_gradients(torch.nn.functional.linear, dz, *arrays)
    z, backward = ops.linear(*arrays)
    np.testing.assert_allclose(z, expected, rtol=1e-12, atol=1e-13)
    for ours, theirs in zip(backward(dz), gradients, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
