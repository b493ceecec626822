import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import global_pooling
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import arrange, layouts, seeds, sizes


@settings(max_examples=20)
@given(st.tuples(sizes, sizes, sizes, sizes), layouts, seeds)
def test_average_is_the_mean_of_each_channel_in_every_layout(shape, layout, seed):
    x = arrange(normal(*shape, seed=seed), layout)
    expected = [[np.mean(channel) for channel in image] for image in x]
    np.testing.assert_allclose(ops.global_average_pool(x)[0], expected, rtol=1e-13, atol=1e-15)


def test_average_of_a_large_single_precision_map_keeps_its_digits():
    x = np.random.RandomState(0).uniform(0, 1, (1, 2, 300, 300)).astype(np.float32)
    np.testing.assert_allclose(ops.global_average_pool(x)[0], x.astype(float).mean(axis=(2, 3)), rtol=1e-6)


def test_average_and_its_gradient_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x, dp = normal(2, 3, 5, 4), normal(2, 3, seed=1)
    p, (dx,) = torch_gradients(lambda t: torch.nn.functional.adaptive_avg_pool2d(t, 1)[:, :, 0, 0], dp, x)
    value, backward = ops.global_average_pool(x)
    np.testing.assert_allclose(value, p, rtol=1e-13)
    np.testing.assert_allclose(backward(dp), dx, rtol=1e-13)


GLOBAL_POOLS = [ops.global_average_pool, ops.global_max_pool, ops.global_lp_pool, ops.global_lse_pool]
global_pools = pytest.mark.parametrize("pool", GLOBAL_POOLS, ids=lambda pool: pool.__name__)
maps = st.tuples(sizes, sizes, sizes, sizes)


@settings(max_examples=20)
@given(maps, seeds)
def test_global_pools_agree_with_numpy_and_scipy(shape, seed):
    x = normal(*shape, seed=seed)
    np.testing.assert_array_equal(ops.global_max_pool(x)[0], x.max(axis=(2, 3)))
    np.testing.assert_allclose(ops.global_lp_pool(x)[0], np.linalg.norm(x, axis=(2, 3)), rtol=1e-14)
    expected = scipy.special.logsumexp(x, axis=(2, 3))
    np.testing.assert_allclose(ops.global_lse_pool(x)[0], expected, rtol=1e-13, atol=1e-14)


def test_global_max_pool_agrees_with_pytorch_at_ties():
    torch = pytest.importorskip("torch")
    x = np.random.RandomState(0).randint(0, 3, (2, 5, 4, 3)).astype(float)
    dp = normal(2, 5, seed=1)
    value, backward = ops.global_max_pool(x)
    p, (dx,) = torch_gradients(lambda t: torch.nn.functional.max_pool2d(t, (4, 3))[:, :, 0, 0], dp, x)
    np.testing.assert_array_equal(value, p)
    np.testing.assert_array_equal(backward(dp), dx)


def test_norm_of_a_zero_channel_is_zero_and_so_is_its_gradient():
    x = normal(1, 2, 3, 3)
    x[:, 0] = 0
    p, backward = ops.global_lp_pool(x)
    assert p[0, 0] == 0
    dx = backward(np.ones((1, 2)))
    np.testing.assert_array_equal(dx[:, 0], 0)
    np.testing.assert_allclose(dx[0, 1], x[0, 1] / np.linalg.norm(x[0, 1]), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "large", "small"), [(np.float32, 1.9e19, 2.6e-23), (float, 1.4e154, 1.5e-162)])
def test_norms_square_numbers_as_they_are_and_so_overflow_and_underflow(dtype, large, small):
    x = np.array([[[[large, 0]], [[small, 0]]]], dtype)
    with np.errstate(all="ignore"):
        p, backward = ops.global_lp_pool(x)
        np.testing.assert_array_equal(p, [[np.inf, 0]])
        np.testing.assert_array_equal(backward(np.ones_like(p)), [[[[0, 0]], [[np.inf, np.nan]]]])


def test_log_sum_exp_neither_overflows_nor_loses_the_maximum():
    x = np.array([[[[1e4, 1e4 - 1]], [[-1e4, -1e4]], [[np.inf, 0]], [[-np.inf, -np.inf]], [[np.nan, 0]]]])
    with np.errstate(over="ignore", divide="ignore"):
        p = ops.global_lse_pool(x)[0][0]
    expected = [1e4 + np.log1p(np.exp(-1)), -1e4 + np.log(2), np.inf, -np.inf, np.nan]
    np.testing.assert_allclose(p, expected, rtol=1e-15)


@global_pools
def test_pools_pass_nan(pool):
    x = normal(1, 2, 3, 3)
    x[0, 1, 2, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(pool(x)[0]), [[False, True]])


@global_pools
def test_an_empty_batch_is_pooled_to_an_empty_one(pool):
    p, backward = pool(np.ones((0, 3, 4, 5)))
    assert p.shape == (0, 3)
    assert backward(p).shape == (0, 3, 4, 5)


@global_pools
@settings(max_examples=20)
@given(maps, layouts, seeds)
def test_a_gradient_that_came_another_way_is_added_to(pool, shape, layout, seed):
    x, dp, other = normal(*shape, seed=seed), normal(*shape[:2], seed=seed + 1), normal(*shape, seed=seed + 2)
    _, backward = pool(x)
    accumulate_into = arrange(other, layout if layout != "read-only" else "contiguous").copy(order="K")
    np.testing.assert_array_equal(backward(dp, accumulate_into=accumulate_into), other + backward(dp))


some_names = st.lists(st.sampled_from(sorted(global_pooling.GLOBAL_POOLS)), min_size=1, unique=True)


@settings(max_examples=20)
@given(maps, some_names, layouts, seeds)
def test_several_pools_are_each_of_them_and_their_gradients_the_sum(shape, names, layout, seed):
    x, other = arrange(normal(*shape, seed=seed), layout), normal(*shape, seed=seed + 1)
    dpooled = [normal(*shape[:2], seed=seed + 2 + i) for i in range(len(names))]
    alone = [global_pooling.GLOBAL_POOLS[name](x) for name in names]
    expected = sum(back(dp) for (_, back), dp in zip(alone, dpooled, strict=True))
    pooled, backward = ops.global_pools(x, names)
    assert isinstance(pooled, tuple)
    for found, (p, _) in zip(pooled, alone, strict=True):
        assert found.shape == shape[:2]
        np.testing.assert_array_equal(found, p)
    np.testing.assert_allclose(backward(dpooled), expected, rtol=1e-12, atol=1e-13)
    total = backward(dpooled, accumulate_into=other.copy())
    np.testing.assert_allclose(total, other + expected, rtol=1e-12, atol=1e-13)


def test_nan_shows_in_the_average_and_in_the_maximum():
    x = normal(2, 3, 4, 5)
    x[1, 2, 3, 1] = np.nan
    for p in ops.global_pools(x, ("max", "avg"))[0]:
        np.testing.assert_array_equal(np.isnan(p), [[False] * 3, [False, False, True]])


def test_several_pools_leave_their_arguments_as_they_are():
    x = arrange(normal(2, 3, 4, 5), "read-only")
    pooled, backward = ops.global_pools(x, ("avg", "max"))
    dpooled = tuple(arrange(p, "read-only") for p in pooled)
    first, second = backward(dpooled), backward(dpooled)
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)
    assert first.flags.writeable


def test_several_pools_of_an_empty_batch_are_empty():
    pooled, backward = ops.global_pools(np.ones((0, 3, 4, 5)), ("avg", "max"))
    assert [p.shape for p in pooled] == [(0, 3)] * 2
    assert backward(pooled).shape == (0, 3, 4, 5)
