import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import pooling
from npattn.ops.context import CONTEXT, ORDINARY
from tests.interrupts import interrupted_calls
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched, run_both, ulps, way_taken
from tests.strategies import arrange, layouts, seeds, sizes

axes = st.sampled_from([1, 2, 3, (2, 3), (1, 3), (1, 2, 3)])
large_maps = st.tuples(sizes, st.integers(1, 40), sizes, st.integers(1, 40))
SPECIAL = [-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf, np.nan]

# Averages


@settings(max_examples=20)
@given(st.tuples(sizes, sizes, sizes, sizes), axes, layouts, seeds)
def test_average_is_the_mean_in_every_layout(shape, axis, layout, seed):
    x = arrange(normal(*shape, seed=seed), layout)
    with in_blocks():
        found = pooling.mean(x, axis)
    np.testing.assert_allclose(found, x.mean(axis=axis, keepdims=True), rtol=1e-13, atol=1e-15)


@settings(max_examples=20)
@given(large_maps, st.sampled_from([1, 2, 3, (2, 3)]), seeds)
def test_single_precision_averages_are_within_8_ulps_of_the_largest(shape, axis, seed):
    x = normal(*shape, seed=seed).astype(np.float32)
    expected = x.astype(float).mean(axis=axis, keepdims=True)
    size_of_terms = np.abs(x).mean(axis=axis, keepdims=True).max()
    with in_blocks():
        found = pooling.mean(x, axis)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 8 * np.finfo(np.float32).eps * size_of_terms


@for_each(
    ("shape", "axis", "rtol"),
    [
        ((1, 64, 56, 56), (2, 3), 5e-7),
        ((1, 64, 1, 4096), (2, 3), 5e-7),
        ((1, 1, 10**6, 1), (2, 3), 5e-7),
        ((1, 1, 1, 4 * 10**6), (2, 3), 1e-5),  # what NumPy's own mean keeps, on the oldest version too
        ((1, 1, 1, 4 * 10**6), 3, 1e-5),
    ],
)
def test_an_average_of_many_keeps_its_digits(shape, axis, rtol):
    x = np.random.RandomState(0).uniform(0, 1, shape).astype(np.float32)
    if x.size > 10**6:
        x[:] = 0.1  # errors of equal numbers have one direction
    np.testing.assert_allclose(pooling.mean(x, axis), x.astype(float).mean(axis=axis, keepdims=True), rtol=rtol)


@for_each(
    ("shape", "axis", "expected"),
    [
        ((2, 16, 1, 4096), 3, "mean_by_einsum"),
        ((2, 16, 1, 4097), 3, "definition"),
        ((2, 16, 1, 4097), (2, 3), "definition"),
        ((2, 16, 4097, 1), 1, "mean_by_einsum"),
        ((2, 4097, 4, 4), 1, "definition"),
        ((2, 4097, 4, 4), (1, 2), "mean_by_einsum"),
        ((2, 4, 4, 4095), 3, "definition"),  # of a small map
    ],
)
def test_long_rows_and_small_maps_are_left_to_numpy(shape, axis, expected):
    assert way_taken(pooling.mean, np.ones(shape, np.float32), axis) == expected


# Maxima


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


@settings(max_examples=20)
@given(tied_maps(), st.sampled_from([np.float32, np.float64]), layouts)
def test_the_first_maximum_is_that_of_numpy(case, dtype, layout):
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


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_maximum_adds_its_gradient_where_the_others_stand_at_its_own_place_alone(axis):
    x = np.random.RandomState(0).randint(0, 3, (2, 3, 4, 5)).astype(float)
    other = normal(2, 3, 4, 5, seed=1)
    p, backward = ops.max_pool(x, axis)
    total = other.copy()
    with in_blocks():
        assert backward(np.ones_like(p), accumulate_into=total) is total
        frozen = arrange(other, "read-only")
        found = backward(np.ones_like(p), accumulate_into=frozen)
    np.testing.assert_array_equal(total, other + backward(np.ones_like(p)))
    np.testing.assert_array_equal(found, total)
    np.testing.assert_array_equal(frozen, other)


# Several at once

both_orders = pytest.mark.parametrize("names", [("avg", "max"), ("max", "avg"), ("lp", "max", "lse", "avg")], ids=str)


@both_orders
@settings(max_examples=12)
@given(large_maps, seeds)
def test_several_pools_are_within_8_ulps_of_the_largest_by_definition(names, shape, seed):
    def pool(x):
        pooled, backward = ops.global_pools(x, names)
        return np.stack(pooled), lambda dpooled: backward(tuple(dpooled))

    x = np.abs(normal(*shape, seed=seed)).astype(np.float32)  # sums that do not cancel
    dy = np.ones((len(names), *shape[:2]), np.float32)
    for found, expected in zip(*run_both(pool, x, dy=dy), strict=True):
        assert ulps(found, expected) <= 8


@st.composite
def tied_images(draw):
    """Maps with few values, so with ties, perhaps with NaN and infinities."""
    values = draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4))
    return np.random.RandomState(draw(seeds)).choice(values, draw(st.tuples(sizes, sizes, sizes, sizes)))


@settings(max_examples=20)
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


@for_each(
    ("names", "passes"),
    [(("avg", "max"), 1), (("max", "avg"), 1), (("max", "lp", "avg"), 1), (("max",), 1), (("lp",), 0)],
)
def test_average_and_maximum_of_a_large_map_take_one_pass(names, passes):
    done = []

    def watch(work, blocks):
        done.append(len(blocks))
        for block in blocks:
            work(block)

    with in_blocks(), patched("parallel_for", watch):
        ops.global_pools(normal(4, 3, 5, 7), names)
    assert len(done) == passes


@pytest.mark.parametrize("longest", [19, 20, 21])
def test_a_long_row_is_averaged_and_its_maximum_sought_apart(longest):
    x = normal(4, 3, 4, 5).astype(np.float32)
    with in_blocks(), patched("MAX_ROW_LENGTH", longest):
        assert (way_taken(ops.global_pools, x, ("avg", "max")) == "global_pools_in_one_pass") is (longest >= 20)
        (mean, highest), backward = ops.global_pools(x, ("avg", "max"))
        np.testing.assert_allclose(mean, x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(highest, x.max(axis=(2, 3)))
        dx = backward((mean, highest))
    np.testing.assert_allclose(dx.sum(axis=(2, 3)), mean + highest, rtol=1e-5, atol=1e-6)


def test_an_interrupt_at_any_moment_leaves_no_pools_for_the_next_call():
    x = np.ones((2, 64, 64, 64), np.float32)
    moments = 0
    for _ in interrupted_calls(lambda: ops.global_pools(x, ("avg", "max")), ["call", "line"]):
        moments += 1
        assert CONTEXT.get() is ORDINARY
    assert moments > 5
