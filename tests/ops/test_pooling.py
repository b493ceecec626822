import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from npattn.fast.pooling import are_average_and_maximum
from npattn.ops import pooling
from tests.ops.primitives import definitions, in_blocks, normal, patched, run_both, torch_gradients, ulps, worst_error
from tests.strategies import arrange, layouts, seeds, sizes


@given(st.tuples(sizes, sizes, sizes, sizes), layouts, seeds)
def test_average_is_the_mean_of_each_channel_in_every_layout(shape, layout, seed):
    x = arrange(normal(*shape, seed=seed), layout)
    expected = [[np.mean(channel) for channel in image] for image in x]
    np.testing.assert_allclose(ops.global_average_pool(x)[0], expected, rtol=1e-13, atol=1e-15)


def test_average_of_a_large_single_precision_map_keeps_its_digits():
    x = np.random.RandomState(0).uniform(0, 1, (1, 2, 300, 300)).astype(np.float32)
    np.testing.assert_allclose(ops.global_average_pool(x)[0], x.astype(float).mean(axis=(2, 3)), rtol=1e-6)


def test_average_gradient_agrees_with_the_complex_step():
    assert worst_error(ops.global_average_pool, normal(2, 3, 2, 4)) < 1e-14


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


@given(maps, seeds)
def test_global_pools_agree_with_numpy_and_scipy(shape, seed):
    x = normal(*shape, seed=seed)
    np.testing.assert_array_equal(ops.global_max_pool(x)[0], x.max(axis=(2, 3)))
    np.testing.assert_allclose(ops.global_lp_pool(x)[0], np.linalg.norm(x, axis=(2, 3)), rtol=1e-14)
    expected = scipy.special.logsumexp(x, axis=(2, 3))
    np.testing.assert_allclose(ops.global_lse_pool(x)[0], expected, rtol=1e-13, atol=1e-14)


@global_pools
def test_global_pool_gradients_agree_with_the_complex_step(pool):
    assert worst_error(pool, normal(2, 3, 4, 5)) < 1e-13
    assert worst_error(pool, normal(2, 3, 1, 1)) < 1e-13


@pytest.mark.parametrize("axis", [1, 2, 3, (2, 3)])
def test_average_pool_along_any_axis_has_the_gradient_of_the_complex_step(axis):
    assert worst_error(lambda x: ops.average_pool(x, axis), normal(2, 3, 4, 5)) < 1e-13
    np.testing.assert_allclose(
        ops.average_pool(normal(2, 3, 4, 5), axis)[0], normal(2, 3, 4, 5).mean(axis, keepdims=True)
    )


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_max_pool_along_any_axis_has_the_gradient_of_the_complex_step(axis):
    assert worst_error(lambda x: ops.max_pool(x, axis), normal(2, 3, 4, 5)) < 1e-13


@given(maps, seeds, st.sampled_from([1, 2, 3]))
def test_a_tied_maximum_sends_its_whole_gradient_to_the_first_index(shape, seed, axis):
    x = np.random.RandomState(seed).randint(0, 2, shape).astype(float)
    p, backward = ops.max_pool(x, axis)
    np.testing.assert_array_equal(p, x.max(axis=axis, keepdims=True))
    dx = backward(np.ones_like(p))
    first = np.cumsum(x == p, axis=axis) == 1
    np.testing.assert_array_equal(dx, first & (x == p))


def test_max_pools_agree_with_pytorch_at_ties():
    torch = pytest.importorskip("torch")
    x = np.random.RandomState(0).randint(0, 3, (2, 5, 4, 3)).astype(float)
    dp = normal(2, 5, seed=1)
    value, backward = ops.global_max_pool(x)
    p, (dx,) = torch_gradients(lambda t: torch.nn.functional.max_pool2d(t, (4, 3))[:, :, 0, 0], dp, x)
    np.testing.assert_array_equal(value, p)
    np.testing.assert_array_equal(backward(dp), dx)
    dp = normal(2, 1, 4, 3, seed=1)
    value, backward = ops.max_pool(x, axis=1)
    p, (dx,) = torch_gradients(lambda t: torch.max(t, 1, keepdim=True)[0], dp, x)
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
    assert worst_error(ops.global_lp_pool, x) < 1e-13


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
@given(maps, layouts, seeds)
def test_a_gradient_that_came_another_way_is_added_to(pool, shape, layout, seed):
    x, dp, other = normal(*shape, seed=seed), normal(*shape[:2], seed=seed + 1), normal(*shape, seed=seed + 2)
    _, backward = pool(x)
    accumulate_into = arrange(other, layout if layout != "read-only" else "contiguous").copy(order="K")
    np.testing.assert_array_equal(backward(dp, accumulate_into=accumulate_into), other + backward(dp))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_maximum_adds_its_gradient_at_its_own_place_alone(axis):
    x = np.random.RandomState(0).randint(0, 3, (2, 3, 4, 5)).astype(float)
    other = normal(2, 3, 4, 5, seed=1)
    p, backward = ops.max_pool(x, axis)
    accumulate_into = other.copy()
    with in_blocks():
        assert backward(np.ones_like(p), accumulate_into=accumulate_into) is accumulate_into
    np.testing.assert_array_equal(accumulate_into, other + backward(np.ones_like(p)))


# In parts

SPECIAL = [-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf, np.nan]


@st.composite
def tied_maps(draw):
    """A map with few values, so with ties, perhaps with NaN and infinities, and an axis that may be long."""
    shape = [draw(sizes) for _ in range(draw(st.integers(2, 4)))]
    axis = draw(st.integers(1, len(shape) - 1))
    shape[axis] = draw(st.integers(1, 8) | st.sampled_from([127, 128, 129, 255, 256, 257, 300]))
    values = draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4))
    random = np.random.RandomState(draw(seeds))
    x = random.choice(values, shape)
    if draw(st.booleans()):  # one position of the axis that stands out, the last ones too
        x[:] = values[0]
        place = [slice(None)] * axis + [draw(st.integers(0, shape[axis] - 1))]
        x[tuple(place)] = random.choice([1.0, 2.0, np.nan])
    return x, axis


@given(tied_maps(), st.sampled_from([np.float32, np.float64]), layouts)
def test_the_first_maximum_in_parts_is_that_of_numpy(case, dtype, layout):
    x, axis = case
    x = arrange(x.astype(dtype), layout)
    with in_blocks():
        first, highest = pooling.first_maximum(x, axis)
    np.testing.assert_array_equal(first, np.argmax(x, axis=axis, keepdims=True))
    np.testing.assert_array_equal(highest, np.max(x, axis=axis, keepdims=True))
    assert first.dtype == np.intp
    assert highest.dtype == dtype


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 300])
def test_a_maximum_is_found_at_every_place_of_an_axis(axis, length):
    shape = [3, 2, 2, 2]
    shape[axis] = length
    for place in {0, 1, length // 2, length - 2, length - 1} & set(range(length)):
        x = np.full(shape, -np.inf)
        at = (slice(None),) * axis + (slice(place, None),)
        x[at] = 1
        x[0][at[1:]] = np.nan  # in one image only
        with in_blocks():
            first, highest = pooling.first_maximum(x, axis)
        np.testing.assert_array_equal(first, place)
        np.testing.assert_array_equal(np.isnan(highest).any(axis=(1, 2, 3)), [True, False, False])


@given(tied_maps(), seeds)
def test_max_pool_in_parts_is_that_at_once(case, seed):
    x, axis = case
    dp = normal(*np.max(x, axis=axis, keepdims=True).shape, seed=seed)
    for found, expected in zip(*run_both(lambda x: ops.max_pool(x, axis), x, dy=dp), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(maps, seeds, st.sampled_from([1, 2, 3, (2, 3)]))
def test_average_pool_in_parts_is_that_at_once(shape, seed, axis):
    x, accumulate_into = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    found = []
    for way in (in_blocks, definitions):
        with way():
            p, backward = ops.average_pool(x, axis)
            found.append((p, backward(p), backward(p, accumulate_into=accumulate_into.copy())))
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-12, atol=1e-14)


@given(st.tuples(sizes, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)), seeds)
def test_single_precision_pools_in_parts_are_within_8_ulps_of_the_largest_at_once(shape, seed):
    x = np.abs(normal(*shape, seed=seed)).astype(np.float32)  # sums that do not cancel
    pools = [lambda x, axis=axis: ops.average_pool(x, axis) for axis in (1, 2, 3, (2, 3))]
    pools += [lambda x, axis=axis: ops.max_pool(x, axis) for axis in (1, 2, 3)]
    for pool in [*pools, *GLOBAL_POOLS]:
        for found, expected in zip(*run_both(pool, x), strict=True):
            assert ulps(found, expected) <= 8


# Several at once

some_names = st.lists(st.sampled_from(sorted(pooling.GLOBAL_POOLS)), min_size=1, unique=True)
both_orders = pytest.mark.parametrize("names", [("avg", "max"), ("max", "avg"), ("lp", "max", "lse", "avg")], ids=str)


def stacked(names):
    """Several pools as a primitive of one value."""

    def pool(x):
        pooled, backward = ops.global_pools(x, names)
        return np.stack(pooled), lambda dpooled: backward(tuple(dpooled))

    return pool


@given(maps, some_names, layouts, seeds, st.booleans())
def test_several_pools_are_each_of_them_and_their_gradients_the_sum(shape, names, layout, seed, in_parts):
    x, other = arrange(normal(*shape, seed=seed), layout), normal(*shape, seed=seed + 1)
    dpooled = [normal(*shape[:2], seed=seed + 2 + i) for i in range(len(names))]
    alone = [pooling.GLOBAL_POOLS[name](x) for name in names]
    expected = sum(back(dp) for (_, back), dp in zip(alone, dpooled, strict=True))
    with in_blocks() if in_parts else definitions():
        pooled, backward = ops.global_pools(x, names)
        assert isinstance(pooled, tuple)
        for found, (p, _) in zip(pooled, alone, strict=True):
            assert found.shape == shape[:2]
            np.testing.assert_allclose(found, p, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(backward(dpooled), expected, rtol=1e-12, atol=1e-13)
        accumulate_into = other.copy()
        total = backward(dpooled, accumulate_into=accumulate_into)
        assert np.shares_memory(total, accumulate_into) is in_parts
        np.testing.assert_allclose(total, other + expected, rtol=1e-12, atol=1e-13)


@both_orders
@pytest.mark.parametrize("in_parts", [True, False])
def test_gradients_of_several_pools_agree_with_the_complex_step(names, in_parts):
    with in_blocks() if in_parts else definitions():
        assert worst_error(stacked(names), normal(2, 3, 4, 5)) < 1e-13


@both_orders
@given(st.tuples(sizes, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)), seeds)
def test_several_single_precision_pools_in_parts_are_within_8_ulps_of_the_largest_at_once(names, shape, seed):
    x = np.abs(normal(*shape, seed=seed)).astype(np.float32)  # sums that do not cancel
    dy = np.ones((len(names), *shape[:2]), np.float32)
    for found, expected in zip(*run_both(stacked(names), x, dy=dy), strict=True):
        assert ulps(found, expected) <= 8


@st.composite
def tied_images(draw):
    """Maps with few values, so with ties, perhaps with NaN and infinities."""
    values = draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4))
    return np.random.RandomState(draw(seeds)).choice(values, draw(maps))


@given(tied_images(), st.sampled_from([np.float32, np.float64]), layouts)
def test_the_average_beside_a_maximum_keeps_ties_and_what_is_not_finite(x, dtype, layout):
    x = arrange(x.astype(dtype), layout)
    with np.errstate(invalid="ignore"):
        with in_blocks():
            (mean, highest), backward = ops.global_pools(x, ("avg", "max"))
            dx = backward((np.zeros_like(mean), np.ones_like(mean)))
        expected = x.mean(axis=(2, 3))
    np.testing.assert_array_equal(highest, x.max(axis=(2, 3)))
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)
    first = np.argmax(x.reshape(*x.shape[:2], -1), axis=2)
    np.testing.assert_array_equal(np.argmax(dx.reshape(*x.shape[:2], -1), axis=2), first)
    np.testing.assert_array_equal(dx.sum(axis=(2, 3)), 1)


@pytest.mark.parametrize("in_parts", [True, False])
def test_nan_shows_in_the_average_and_in_the_maximum(in_parts):
    x = normal(2, 3, 4, 5)
    x[1, 2, 3, 1] = np.nan
    with in_blocks() if in_parts else definitions():
        for p in ops.global_pools(x, ("max", "avg"))[0]:
            np.testing.assert_array_equal(np.isnan(p), [[False] * 3, [False, False, True]])


@pytest.mark.parametrize(("names", "sweeps"), [(("avg", "max"), 1), (("max", "avg"), 1), (("max",), 1), (("lp",), 0)])
def test_average_and_maximum_of_a_large_map_take_one_sweep(names, sweeps):
    done = []

    def watch(work, pieces):
        done.append(len(pieces))
        for piece in pieces:
            work(piece)

    with in_blocks(), patched("parallel_for", watch):
        ops.global_pools(normal(4, 3, 5, 7), names)
    assert len(done) == sweeps


@pytest.mark.parametrize("long", [19, 20])
def test_a_long_row_is_averaged_and_its_maximum_sought_apart(long):
    x = normal(4, 3, 4, 5).astype(np.float32)
    with in_blocks(), patched("MAX_ROW", long):
        assert are_average_and_maximum(x, ("avg", "max")) is (long == 20)
        (mean, highest), backward = ops.global_pools(x, ("avg", "max"))
        np.testing.assert_allclose(mean, x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(highest, x.max(axis=(2, 3)))
        dx = backward((mean, highest))
    np.testing.assert_allclose(dx.sum(axis=(2, 3)), mean + highest, rtol=1e-5, atol=1e-6)


def test_average_of_a_map_of_many_positions_keeps_its_digits_beside_the_maximum():
    x = np.random.RandomState(0).uniform(0, 1, (1, 1, 2000, 2000)).astype(np.float32)
    (mean, highest), _ = ops.global_pools(x, ("avg", "max"))
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=(2, 3)), rtol=1e-7)
    np.testing.assert_array_equal(highest, x.max(axis=(2, 3)))


@both_orders
def test_several_pools_of_an_empty_batch_are_empty(names):
    with in_blocks():
        pooled, backward = ops.global_pools(np.ones((0, 3, 4, 5)), names)
    assert [p.shape for p in pooled] == [(0, 3)] * len(names)
    assert backward(pooled).shape == (0, 3, 4, 5)


def test_several_pools_leave_their_arguments_as_they_are():
    x = arrange(normal(2, 3, 4, 5), "read-only")
    with in_blocks():
        pooled, backward = ops.global_pools(x, ("avg", "max"))
        dpooled = tuple(arrange(p, "read-only") for p in pooled)
        first, second = backward(dpooled), backward(dpooled)
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)
    assert first.flags.writeable
