import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.fast import winograd
from npattn.fast.im2col import conv_by_rows
from npattn.fast.winograd import conv3x3
from tests.ops.primitives import in_blocks, normal, patched, ulps, worst_error
from tests.strategies import arrange, seeds

paddings = pytest.mark.parametrize("padding", list(itertools.product(range(3), repeat=2)))
channel_counts = st.integers(1, 3) | st.integers(1, 40)


@st.composite
def maps(draw):
    """A map down to the smallest that has an output, kernels of few or many channels, and a padding."""
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    size = [draw(st.integers(max(1, 3 - 2 * p), 9)) for p in padding]
    channels, out, seed = draw(channel_counts), draw(channel_counts), draw(seeds)
    x = normal(draw(st.integers(1, 3)), channels, *size, seed=seed)
    return x, normal(out, channels, 3, 3, seed=seed + 1), padding


def results(convolve, x, weight, padding, dy=None):
    """List the value and the gradients."""
    y, backward = convolve(x, weight, padding)
    return [y, *backward(normal(*y.shape, seed=7).astype(y.dtype) if dy is None else dy)]


def plainly(x, weight, padding):
    return conv_by_rows(x, weight, padding, (1, 1))


def assert_agree(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(maps())
def test_tiles_give_the_plain_sums_and_their_gradients(case):
    assert_agree(results(conv3x3, *case), results(plainly, *case))


@pytest.mark.parametrize("padding", [(0, 1), (2, 0)])
def test_gradients_agree_with_the_complex_step(padding):
    arrays = normal(1, 2, 4, 3), normal(2, 2, 3, 3, seed=1)
    assert worst_error(lambda x, weight: conv3x3(x, weight, padding), *arrays) < 1e-12


@paddings
def test_every_size_from_the_smallest_on_gives_the_plain_sums(padding):
    smallest = [max(1, 3 - 2 * p) for p in padding]
    for height, width in itertools.product(*(range(n, n + 3) for n in smallest)):
        case = normal(1, 2, height, width), normal(2, 2, 3, 3, seed=1), padding
        assert_agree(results(conv3x3, *case), results(plainly, *case))


@settings(max_examples=20)
@given(maps())
def test_single_precision_is_within_12_ulps_of_the_largest(case):
    *arrays, padding = case
    # Errors are those of the largest products: here none is much larger than the others, nor do they cancel.
    arrays = [(1 + np.abs(a)).astype(np.float32) for a in arrays]
    dy = (1 + np.abs(normal(*plainly(*arrays, padding)[0].shape, seed=7))).astype(np.float32)
    exact = results(plainly, *(a.astype(float) for a in arrays), padding, dy=dy.astype(float))
    for found, expected in zip(results(conv3x3, *arrays, padding, dy=dy), exact, strict=True):
        assert ulps(found, expected.astype(np.float32)) <= 12


@pytest.mark.parametrize(("channels", "out"), [(128, 16), (16, 128), (128, 128)])
def test_errors_of_many_channels_are_within_4_times_the_plain_sums_and_within_12_ulps_of_the_largest(channels, out):
    x, weight = normal(2, channels, 17, 16), normal(out, channels, 3, 3, seed=1)
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    dy = normal(2, out, 17, 16, seed=7).astype(np.float32)
    exact = results(plainly, *(a.astype(float) for a in (x, weight)), (1, 1), dy=dy.astype(float))
    for found, plain, expected in zip(
        *(results(convolve, x, weight, (1, 1), dy=dy) for convolve in (conv3x3, plainly)), exact, strict=True
    ):
        largest = np.abs(expected).max() * np.finfo(np.float32).eps
        error, plain_error = (np.abs(a - expected).max() / largest for a in (found, plain))
        assert error <= 4 * plain_error
        assert error <= 12


# Blocks and cores

large = [((3, 5, 13, 8), 7, (1, 1)), ((1, 40, 9, 6), 3, (0, 2)), ((2, 3, 12, 12), 40, (2, 1))]
large_maps = pytest.mark.parametrize("case", large, ids=str)


def make(case, dtype=np.float64):
    shape, out, padding = case
    return normal(*shape).astype(dtype), normal(out, shape[1], 3, 3, seed=1).astype(dtype), padding


@large_maps
@pytest.mark.parametrize("cached", [1, 30, 100])
def test_blocks_give_what_fewer_blocks_do(case, cached, monkeypatch):
    lengths = []

    def watch(length, numbers):
        found = cut(length, numbers)
        lengths.append(len(found))
        return found

    arrays, cut = make(case), winograd.cut_strips
    monkeypatch.setattr(winograd, "cut_strips", watch)
    with patched("num_threads", lambda: 1):
        with patched("MAX_CACHED_SIZE", 2**60):
            whole = results(conv3x3, *arrays)
        assert max(lengths) <= 2  # one for each of two cores
        with patched("MAX_CACHED_SIZE", cached):
            assert_agree(results(conv3x3, *arrays), whole)
        assert max(lengths) > 2


@pytest.mark.parametrize(("batch", "together"), [(1, 1), (4, 2), (6, 3), (7, 1)])
@pytest.mark.parametrize("case", [((3, 7, 5), 4, (1, 1)), ((2, 4, 6), 5, (0, 2)), ((5, 3, 3), 2, (0, 0))], ids=str)
def test_small_maps_are_taken_together_and_do_not_see_each_other(case, batch, together):
    shape, out, padding = case
    arrays = make(((batch, *shape), out, padding))
    with patched("MAX_PRODUCT_BLOCKS", 2):
        assert winograd.images_together(batch, 5, (7, 6)) == together
        assert_agree(results(conv3x3, *arrays), results(plainly, *arrays))


def test_no_more_maps_are_taken_together_than_fit_the_cache():
    numbers = 5 * (3 + 1) * (3 + 1)  # of 5 channels, 3×3 tiles and what follows them
    with patched("MAX_PRODUCT_BLOCKS", 2), patched("MAX_CACHED_SIZE", 3 * numbers):
        assert winograd.images_together(12, 5, (6, 5)) == 3
        assert winograd.images_together(12, 6, (6, 5)) == 2


@settings(max_examples=20)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 500))
def test_blocks_cover_an_axis_once_and_fit_the_cache_as_far_as_they_can(length, apart, cached):
    with patched("MAX_CACHED_SIZE", cached):
        found = winograd.cut_strips(length, length * apart)
    assert [i for some in found for i in range(some.start, some.stop)] == list(range(length))
    # The last number of a block may be cut in two by the limit.
    assert max((some.stop - some.start - 1) * apart for some in found) <= cached
    assert len(found) >= min(2, length)


@large_maps
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_are_the_same_from_run_to_run_and_in_whatever_order_blocks_are_done(case, dtype):
    def turned(work, blocks, products=False):
        for block in reversed(blocks):
            work(block)

    arrays = make(case, dtype)
    with in_blocks(3), patched("MAX_CACHED_SIZE", 500):
        first, again = results(conv3x3, *arrays), results(conv3x3, *arrays)
        with patched("parallel_for", turned):
            backwards = results(conv3x3, *arrays)
    for one, *others in zip(first, again, backwards, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


# What it is given


@settings(max_examples=20)
@given(maps(), st.sampled_from(["transposed", "strided", "read-only"]))
def test_maps_and_gradients_of_any_layout_are_read_and_none_is_written_to(case, layout):
    x, weight, padding = case
    expected = results(conv3x3, x, weight, padding)
    dy = normal(*expected[0].shape, seed=7)
    given = [arrange(a, layout) for a in (x, weight, dy)]
    before = [a.copy() for a in given]
    found = results(conv3x3, *given[:2], padding, dy=given[2])
    assert_agree(found, expected)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)
    for result, a in itertools.product(found, given):
        assert not np.shares_memory(result, a)
        assert result.flags.writeable


@settings(max_examples=20)
@given(maps(), st.sampled_from([(0, 1, 2, 3), (2, 3), (0, 1), (1, 3)]))
def test_a_broadcast_gradient_is_read_as_if_it_were_written_out(case, axes):
    x, weight, padding = case
    y, backward = conv3x3(x, weight, padding)
    dy = np.broadcast_to(normal(*y.shape, seed=7).mean(axes, keepdims=True), y.shape)
    assert_agree(backward(dy), backward(dy.copy()))


def test_backward_gives_the_same_however_often_it_is_called():
    x, weight, padding = make(large[0])
    y, backward = conv3x3(x, weight, padding)
    kept = y.copy()
    first, second = backward(y), backward(y)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(y, kept)
