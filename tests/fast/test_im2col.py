import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.fast import convolution, im2col
from npattn.ops import conv2d
from npattn.ops.context import definitions
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched
from tests.strategies import seeds, sizes


@st.composite
def deep_planes(draw):
    """A map of many channels, or more than come out, with stride 1 and any dilation: rows and columns may go unread."""
    kernel, size = (draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (4, 6))
    dilation = draw(st.tuples(*[st.integers(1, 2) | st.integers(1, 9)] * 2))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple(draw(st.integers(max(0, -((n - 1 - r) // 2)), r + 1)) for n, r in zip(size, reach, strict=True))
    seed = draw(seeds)
    x = normal(draw(st.integers(1, 3)), draw(st.integers(1, 7)), *size, seed=seed)
    weight = normal(draw(st.integers(1, 7)), x.shape[1], *kernel, seed=seed + 1)
    return x, weight, None, {"stride": 1, "padding": padding, "dilation": dilation}


# Orders of the products


def ways(x, weight, padding, dilation):
    """Convolve by every order of the products there is."""
    y, backward = conv2d.definition(x, weight, padding=padding, dilation=dilation)
    (finite, by_images), back_by_images = im2col.conv_by_images(x, weight, None, padding, dilation)
    assert finite
    return {
        "columns": im2col.conv_by_columns(x, weight, padding, dilation),
        "rows": im2col.conv_by_rows(x, weight, padding, dilation),
        "images": (by_images, lambda dy: back_by_images(dy)[1][:2]),
        "definition": (y, lambda dy: backward(dy)[:2]),
    }


def assert_agree(found, dy, rtol=1e-11, atol=1e-12):
    (expected, back), *others = found.values()
    for y, backward in others:
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=rtol, atol=atol)
        for ours, theirs in zip(backward(dy), back(dy), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@settings(max_examples=20)
@given(deep_planes(), st.sampled_from([None, 1, 3]))
def test_products_by_columns_by_rows_by_images_and_as_defined_agree(plane, count):
    x, weight, _, options = plane
    with definitions() if count is None else in_blocks(count):
        found = ways(x, weight, options["padding"], options["dilation"])
        assert_agree(found, normal(*found["rows"][0].shape, seed=5))


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize(("channels", "out"), [(8, 3), (3, 8)])
@pytest.mark.parametrize(
    "plane",
    [
        ((5, 4), (2, 2), (25, 25), (50, 50)),  # no tap reaches the map
        ((5, 4), (2, 3), (0, 9), (1, 9)),  # of a row the one in the middle
        ((5, 4), (3, 2), (9, 1), (9, 1)),
        ((2, 3), (3, 3), (8, 7), (2, 1)),  # the padding is larger than the map
        ((3, 3), (3, 4), (0, 0), (1, 1)),  # no column of the result
        ((2, 3), (3, 1), (0, 0), (1, 1)),  # no row
        ((1, 1), (1, 3), (0, 1), (1, 1)),
    ],
)
def test_all_orders_agree_where_taps_reach_little_or_nothing(plane, channels, out, count):
    size, kernel, padding, dilation = plane
    x, weight = normal(2, channels, *size), normal(out, channels, *kernel, seed=1)
    with definitions() if count is None else in_blocks(count):
        found = ways(x, weight, padding, dilation)
        assert_agree(found, normal(*found["rows"][0].shape, seed=5))
        for y, backward in found.values():
            dx, dweight = backward(np.ones_like(y))
            assert (dx.shape, dweight.shape) == (x.shape, weight.shape)


@for_each(
    ("images", "channels", "out", "side", "expected"),
    [
        (4, 32, 32, 56, "conv_by_images"),
        (3, 32, 32, 56, "conv_by_rows"),  # fewer images than cores
        (4, 7, 7, 8, "conv_by_images"),
        (4, 7, 8, 8, "conv_by_rows"),  # kernels of more numbers than images
        (4, 4, 64, 74, "conv_by_rows"),  # images that are too large when they are laid out
        (4, 4, 63, 74, "conv_by_images"),
    ],
)
def test_images_are_laid_out_one_by_one_where_they_stay_in_a_cache(images, channels, out, side, expected):
    taken = []

    def noting(way):
        def conv(*arguments):
            taken.append(way.__name__)
            return way(*arguments)

        return conv

    x = normal(images, channels, side, side).astype(np.float32)
    weight = normal(out, channels, 3, 3).astype(np.float32)
    ways = [im2col.conv_by_images, im2col.conv_by_rows]
    with contextlib.ExitStack() as stack:
        stack.enter_context(patched("MIN_IMAGES", 4))
        for way in ways:
            stack.enter_context(patched(way.__name__, noting(way)))
        convolution.conv_row_by_row(x, weight, padding=1)
    assert taken == [expected]


# Blocks of the products


@pytest.mark.parametrize("large", [True, False])
@settings(max_examples=20)
@given(count=st.integers(0, 9), length=st.integers(0, 30))
def test_blocks_of_products_cover_every_result_once(large, count, length):
    visits = np.zeros((count, length))

    def watch(work, blocks, products=False):
        assert products
        if large and count and length:
            assert len(blocks) >= min(8, length) / 2
        else:
            assert len(blocks) <= 1
        for block in blocks:
            work(block)

    def visit(some, part):
        assert 0 <= part.start < part.stop <= length
        visits[some, part] += 1

    with in_blocks(), patched("MIN_MULTIPLICATIONS", 1 if large else 2**60), patched("parallel_for", watch):
        im2col.for_blocks(visit, count, length, [np.ones((2, 3)), np.ones((max(1, count), 3, 5))])
    np.testing.assert_array_equal(visits, 1)


@pytest.mark.parametrize(("beyond", "blocks"), [(-1, 1), (0, 10), (1, 10)])
def test_factors_are_large_by_the_multiplications_that_they_take(beyond, blocks):
    matrices, maps = [np.ones((2, 3))] * 4, np.ones((5, 3, 7))
    number, found = 4 * 2 * 3 * 5 * 7, []
    with patched("MIN_MULTIPLICATIONS", number - beyond), patched("MAX_PRODUCT_BLOCKS", 2):
        im2col.for_blocks(lambda some, _: found.append(some), 5, 7, [*matrices, maps])
    assert len(found) == blocks


# Taps of a row


@settings(max_examples=20)
@given(sizes, st.integers(1, 5), st.integers(0, 6), st.integers(1, 4))
def test_taps_reach_what_the_padded_map_holds(size, k, padding, dilation):
    result = max(0, size + 2 * padding - dilation * (k - 1))
    reached = {}
    for tap, outputs, inputs in im2col.taps_that_reach(size, result, k, padding, dilation):
        assert 0 <= inputs.start < inputs.stop <= size
        for output, position in zip(range(outputs.start, outputs.stop), range(inputs.start, inputs.stop), strict=True):
            reached[tap, output] = position
    expected = {(tap, output): output + tap * dilation - padding for tap in range(k) for output in range(result)}
    assert reached == {at: position for at, position in expected.items() if 0 <= position < size}


@settings(max_examples=20)
@given(st.tuples(sizes, sizes, sizes, sizes), st.integers(1, 5), st.integers(0, 6), st.integers(1, 4), seeds)
def test_laying_taps_beside_each_other_and_adding_them_back_are_adjoint(shape, k, padding, dilation, seed):
    width = max(0, shape[3] + 2 * padding - dilation * (k - 1))
    beside = [(to, read) for _, to, read in im2col.taps_that_reach(shape[3], width, k, padding, dilation)]
    for way in (in_blocks, definitions):
        x = normal(*shape, seed=seed)
        with way():
            laid = im2col.im2col_by_rows(x, beside, width)
            other = normal(*laid.shape, seed=seed + 1)
            added = im2col.col2im_by_rows(other, beside, shape[1], shape[3])
        assert laid.shape == (shape[0], len(beside) * shape[1], shape[2], width)
        assert added.shape == shape
        np.testing.assert_allclose(np.sum(laid * other), np.sum(x * added), rtol=1e-11, atol=1e-11)
        by_taps = laid.reshape(shape[0], len(beside), *shape[1:3], width)
        for j, (to, read) in enumerate(beside):
            np.testing.assert_array_equal(by_taps[:, j, ..., to], x[..., read])
            assert np.count_nonzero(by_taps[:, j]) == x[..., read].size
