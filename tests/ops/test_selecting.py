import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import arrange, layouts, seeds, sizes


@settings(max_examples=20)
@given(sizes, st.integers(1, 40), st.integers(1, 60), seeds, layouts)
def test_a_score_is_the_products_sum_and_the_same_wherever_a_feature_stands(batch, channels, positions, seed, layout):
    x = np.repeat(normal(batch, channels, 1, seed=seed), positions, axis=2)
    weight, bias = normal(1, channels, 1, 1, seed=seed + 1), normal(1, seed=seed + 2)
    s, _ = ops.score(arrange(x, layout), weight, bias)
    np.testing.assert_allclose(s, np.tensordot(weight.ravel(), x, (0, 1)) + bias, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(s, s[:, :1].repeat(positions, axis=1))


@settings(max_examples=20)
@given(sizes, sizes, st.integers(1, 6), layouts, st.data())
def test_positions_are_taken_of_each_image_and_given_back_to_where_they_stood(batch, channels, length, layout, data):
    x = arrange(normal(batch, channels, length), layout)
    several = data.draw(st.integers(1, length))
    index = np.array([data.draw(st.permutations(range(length)))[:several] for _ in range(batch)])
    y, backward = ops.take(x, index)
    np.testing.assert_array_equal(y, np.take_along_axis(x, index[:, None], 2))
    taken = (index[:, None] == np.arange(length)[:, None]).any(axis=2)[:, None]
    np.testing.assert_array_equal(backward(y), np.where(taken, x, 0))


def test_score_agrees_with_a_convolution_of_pytorch():
    torch = pytest.importorskip("torch")
    x, weight, bias, ds = normal(2, 3, 5), normal(1, 3, 1, 1, seed=1), normal(1, seed=2), normal(2, 5, seed=3)

    def convolved(x, weight, bias):
        return torch.nn.functional.conv2d(x[:, :, None], weight, bias).flatten(1)

    s, gradients = torch_gradients(convolved, ds, x, weight, bias)
    value, backward = ops.score(x, weight, bias)
    for ours, theirs in zip((value, *backward(ds)), (s, *gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@settings(max_examples=20)
@given(sizes, sizes, sizes, seeds)
def test_selecting_is_a_sum_with_a_one_hot_vector(batch, channels, positions, seed):
    x, dy = normal(batch, channels, positions, seed=seed), normal(batch, channels, seed=seed + 1)
    index = np.random.RandomState(seed).randint(positions, size=batch)
    one_hot = np.eye(positions)[index]
    y, backward = ops.select(x, index)
    expected, back_product = ops.matmul(x, one_hot[:, :, None])
    np.testing.assert_array_equal(y, expected[:, :, 0])
    for ours, theirs in zip(backward(dy), back_product(dy[:, :, None]), strict=True):
        np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=1e-12, atol=1e-13)


@settings(max_examples=20)
@given(sizes, st.integers(1, 30), st.data())
def test_top_takes_the_largest_in_falling_order_and_of_equals_the_first(batch, length, data):
    k = data.draw(st.integers(1, length))
    x = np.random.RandomState(data.draw(seeds)).randint(0, 5, (batch, length)).astype(float)
    (y, index), backward = ops.top(x, k)
    for row, numbers, places in zip(x, y, index, strict=True):
        expected = sorted(range(length), key=lambda n, row=row: (-row[n], n))[:k]
        assert places.tolist() == expected
        assert numbers.tolist() == row[expected].tolist()
    dx = backward(1 + np.arange(k) + np.zeros((batch, 1)))
    np.testing.assert_array_equal(np.take_along_axis(dx, index, 1), 1 + np.arange(k) + np.zeros((batch, 1)))
    assert np.count_nonzero(dx) == batch * k


def test_top_counts_nan_as_the_largest_and_equal_to_infinity():
    rows = [[1.0, np.nan, 5.0, np.nan], [0.0, -np.inf, np.inf, 7.0], [np.inf, np.nan, 0.0, np.inf]]
    (y, index), _ = ops.top(np.array(rows), 3)
    assert index.tolist() == [[1, 3, 2], [2, 3, 0], [0, 1, 3]]
    np.testing.assert_array_equal(y, np.take_along_axis(np.array(rows), index, 1))


def test_complex_numbers_are_ordered_by_their_real_parts():
    (y, index), _ = ops.top(np.array([[1 + 9j, 3 - 9j, 2 + 0j]]), 2)
    assert index.tolist() == [[1, 2]]
    assert y.tolist() == [[3 - 9j, 2 + 0j]]
