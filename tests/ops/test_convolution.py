import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, signal

from npattn import ops
from npattn.ops import convolution
from tests.ops.primitives import normal, parted, patched, run_both, torch_gradients, ulps, unparted, worst_error
from tests.strategies import arrange, seeds, sizes

widths = st.sampled_from([1, 3, 5, 9])


@given(sizes, sizes, widths, seeds)
def test_value_is_scipy_correlation_with_zeros_beyond_the_ends(batch, length, k, seed):
    x, weight = normal(batch, length, seed=seed), normal(1, 1, k, seed=seed + 1)
    expected = ndimage.correlate1d(x, weight[0, 0], axis=1, mode="constant")
    np.testing.assert_allclose(ops.conv1d(x, weight)[0], expected, rtol=1e-12, atol=1e-13)


@given(sizes, sizes, widths, seeds)
def test_backward_is_the_adjoint_in_both_arguments(batch, length, k, seed):
    x, weight, dz = (
        normal(batch, length, seed=seed),
        normal(1, 1, k, seed=seed + 1),
        normal(batch, length, seed=seed + 2),
    )
    z, backward = ops.conv1d(x, weight)
    dx, dweight = backward(dz)
    assert dweight.shape == weight.shape
    for gradient, argument in ((dx, x), (dweight, weight)):  # bilinear: each derivative gives the value back
        np.testing.assert_allclose(np.sum(gradient * argument), np.sum(dz * z), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_gradients_agree_with_the_complex_step(length, k):
    assert worst_error(ops.conv1d, normal(2, length), normal(1, 1, k, seed=1)) < 1e-12


def test_value_and_gradients_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x, weight, dz = normal(3, 10), normal(1, 1, 5, seed=1), normal(3, 10, seed=2)
    expected, gradients = torch_gradients(
        lambda t, w: torch.nn.functional.conv1d(t[:, None], w, padding=2)[:, 0], dz, x, weight
    )
    z, backward = ops.conv1d(x, weight)
    np.testing.assert_allclose(z, expected, rtol=1e-12)
    for ours, theirs in zip(backward(dz), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@st.composite
def planes(draw):
    """A map, a kernel, a bias or none, and how the one slides over the other."""
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding, dilation = (
        draw(st.tuples(st.integers(low, high), st.integers(low, high))) for low, high in ((0, 3), (1, 3))
    )
    stride = draw(st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    size = [n + draw(st.integers(0, 4)) for n in smallest]
    seed = draw(seeds)
    x = normal(draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), *size, seed=seed)
    weight = normal(groups * draw(st.integers(1, 2)), x.shape[1] // groups, *kernel, seed=seed + 1)
    bias = normal(weight.shape[0], seed=seed + 2) if draw(st.booleans()) else None
    return x, weight, bias, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


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


@given(planes() | deep_planes())
def test_conv2d_and_its_gradients_agree_with_pytorch(plane):
    torch = pytest.importorskip("torch")
    x, weight, bias, options = plane
    y, backward = ops.conv2d(x, weight, bias, **options)
    dy = normal(*y.shape, seed=3)
    arrays = [x, weight] if bias is None else [x, weight, bias]
    expected, gradients = torch_gradients(lambda *t: torch.nn.functional.conv2d(*t, **options), dy, *arrays)
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
    found = backward(dy)
    assert (found[2] is None) == (bias is None)
    for ours, theirs in zip(found, gradients, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@given(planes() | deep_planes(), seeds)
def test_conv2d_backward_is_the_adjoint_in_both_arguments(plane, seed):
    x, weight, _, options = plane
    y, backward = ops.conv2d(x, weight, **options)
    dy = normal(*y.shape, seed=seed)
    dx, dweight, _ = backward(dy)
    terms = np.sum(np.abs(dy * y)) + 1e-3
    for gradient, argument in ((dx, x), (dweight, weight)):  # bilinear: each derivative gives the value back
        np.testing.assert_allclose(np.sum(gradient * argument), np.sum(dy * y), rtol=0, atol=1e-12 * terms)


@pytest.mark.parametrize(("channels", "out"), [(8, 3), (6, 6)])
def test_taps_that_reach_no_position_give_zeros_and_receive_none(channels, out):
    x, weight = normal(2, channels, 5, 4), normal(out, channels, 2, 2, seed=1)
    y, backward = ops.conv2d(x, weight, padding=25, dilation=50)
    dx, dweight, _ = backward(np.ones_like(y))
    for value, shape in ((y, (2, out, 5, 4)), (dx, x.shape), (dweight, weight.shape)):
        np.testing.assert_array_equal(value, np.zeros(shape))
    _, backward = ops.conv2d(x, normal(out, channels, 3, 3), padding=(1, 9), dilation=(1, 9))
    _, dweight, _ = backward(np.ones_like(y))
    assert (dweight[..., 1] != 0).all()
    assert (dweight[..., [0, 2]] == 0).all()


@pytest.mark.parametrize(("channels", "out"), [(64, 8), (8, 64), (32, 32)])
def test_memory_of_a_wide_kernel_is_that_of_its_rows_on_the_side_with_fewer_channels(channels, out):
    x, weight = normal(1, channels, 40, 40).astype(np.float32), normal(out, channels, 7, 7).astype(np.float32)
    dy = np.ones((1, out, 40, 40), np.float32)
    tracemalloc.start()
    try:
        _, backward = ops.conv2d(x, weight, padding=3)
        del _
        backward(dy)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    laid_out = 7 * min(x.nbytes, dy.nbytes)
    # All taps laid out, forward and backward, would be 98 maps of x.
    assert peak < 3 * laid_out + 3 * (x.nbytes + dy.nbytes + weight.nbytes)


@given(st.integers(1, 3), seeds)
def test_conv2d_of_one_channel_is_scipy_correlation(k, seed):
    x, kernel = normal(5, 6, seed=seed), normal(k, k, seed=seed + 1)
    y, _ = ops.conv2d(x[None, None], kernel[None, None])
    np.testing.assert_allclose(y[0, 0], signal.correlate2d(x, kernel, mode="valid"), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": (2, 3)},
        {"groups": 2},
        {"stride": (1, 2), "groups": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("out", [2, 4])
def test_conv2d_gradients_agree_with_the_complex_step(options, out):
    weight = normal(out, 4 // options.get("groups", 1), 3, 2, seed=1)
    arrays = normal(2, 4, 5, 6), weight, normal(out, seed=2)
    assert worst_error(lambda *a: ops.conv2d(*a, **options), *arrays) < 1e-12


def test_a_one_by_one_convolution_is_a_matrix_product_and_copies_nothing_back_wrong():
    x, weight = normal(2, 3, 4, 5), normal(6, 3, 1, 1, seed=1)
    y, backward = ops.conv2d(x, weight)
    np.testing.assert_allclose(y, np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x), rtol=1e-12)
    dx, _, _ = backward(np.ones_like(y))
    assert not np.shares_memory(dx, x)
    assert dx.flags.writeable


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch_gives_an_empty_map_and_zero_parameter_gradients(kernel, groups):
    weight = normal(6, 4 // groups, kernel, kernel)
    y, backward = ops.conv2d(np.ones((0, 4, 5, 3)), weight, normal(6), padding=kernel // 2, groups=groups)
    assert y.shape == (0, 6, 5, 3)
    dx, dweight, dbias = backward(y)
    assert dx.shape == (0, 4, 5, 3)
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))
    np.testing.assert_array_equal(dbias, np.zeros(6))


# In parts, and in other orders


def ways(x, weight, padding, dilation):
    """Convolve by every order of the products there is."""
    geometry = (1, 1), padding, dilation
    return {
        "columns": convolution.by_columns(x, weight, padding, dilation),
        "rows": convolution.by_rows(x, weight, padding, dilation),
        "at once": convolution.at_once(x, weight, geometry, 1),
    }


def assert_agree(found, dy, rtol=1e-11, atol=1e-12):
    (expected, back), *others = found.values()
    for y, backward in others:
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=rtol, atol=atol)
        for ours, theirs in zip(backward(dy), back(dy), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@given(deep_planes(), st.sampled_from([None, 1, 3, 8]))
def test_products_by_columns_by_rows_and_at_once_agree(plane, count):
    x, weight, _, options = plane
    with unparted() if count is None else parted(count):
        found = ways(x, weight, options["padding"], options["dilation"])
        assert_agree(found, normal(*found["rows"][0].shape, seed=5))


@pytest.mark.parametrize("count", [None, 4])
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
    with unparted() if count is None else parted(count):
        found = ways(x, weight, padding, dilation)
        assert_agree(found, normal(*found["rows"][0].shape, seed=5))
        for y, backward in found.values():
            dx, dweight = backward(np.ones_like(y))
            assert (dx.shape, dweight.shape) == (x.shape, weight.shape)


@given(planes() | deep_planes(), st.sampled_from([1, 2, 3, 8]))
def test_conv2d_in_parts_is_that_at_once(plane, count):
    x, weight, bias, options = plane
    with unparted():
        expected, back = ops.conv2d(x, weight, bias, **options)
        dy = normal(*expected.shape, seed=3)
        gradients = back(dy)
    with parted(count):
        y, backward = ops.conv2d(x, weight, bias, **options)
        found = backward(dy)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(found, gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@given(planes() | deep_planes(), st.sampled_from(["transposed", "strided", "read-only"]))
def test_conv2d_reads_maps_and_gradients_of_any_layout_and_writes_to_none(plane, layout):
    x, weight, bias, options = plane
    expected, back = ops.conv2d(x, weight, bias, **options)
    dy = normal(*expected.shape, seed=3)
    given = [arrange(a, layout) for a in (x, weight, dy)]
    before = [a.copy() for a in given]
    with parted():
        y, backward = ops.conv2d(*given[:2], bias, **options)
        found = backward(given[2])
    for ours, theirs in zip((y, *found), (expected, *back(dy)), strict=True):
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


@given(planes() | deep_planes())
def test_single_precision_in_parts_is_within_16_ulps_of_the_largest_at_once(plane):
    x, weight, _, options = plane
    # Numbers of one sign, so that sums do not cancel.
    arrays = [np.abs(a).astype(np.float32) for a in (x, weight)]
    for found, expected in zip(*run_both(lambda x, w: ops.conv2d(x, w, **options), *arrays), strict=True):
        assert ulps(found, expected) <= 16


@pytest.mark.parametrize(
    ("plane", "way"),
    [
        ((4, 4, (3, 3), 2, 11), "by_columns"),
        ((4, 4, (3, 3), 2, 12), "by_rows"),
        ((4, 4, (3, 3), (2, 1), 6), "by_rows"),
        ((4, 4, (3, 3), (1, 2), 6), "by_columns"),
        ((4, 4, (3, 1), 2, 3), "by_rows"),
        ((4, 4, (1, 3), 2, 11), "by_columns"),
        ((4, 4, (1, 1), 2, 3), "at_once"),
        ((3, 4, (3, 3), 2, 3), "at_once"),
        ((3, 2, (3, 3), 2, 3), "by_columns"),
        ((3, 3, (3, 3), 2, 3), "at_once"),
        ((2, 1, (3, 3), 2, 12), "by_rows"),
    ],
)
def test_the_order_hangs_on_how_far_apart_taps_lie(plane, way, monkeypatch):
    channels, out, kernel, dilation, width = plane
    called = []
    for name in ("by_columns", "by_rows", "at_once"):
        original = getattr(convolution, name)
        monkeypatch.setattr(
            convolution, name, lambda *a, name=name, original=original: called.append(name) or original(*a)
        )
    ops.conv2d(normal(1, channels, 5, width), normal(out, channels, *kernel), padding=4, dilation=dilation)
    assert called[0] == way


@given(st.integers(0, 9), st.integers(0, 30), st.integers(1, 9), st.booleans())
def test_parts_of_products_cover_every_result_once(count, length, cores, large):
    visits = np.zeros((count, length))

    def watch(work, pieces, products=False):
        assert products
        if large and count and length:
            assert len(pieces) >= min(cores, length)  # for every core
        else:
            assert len(pieces) <= 1
        for piece in pieces:
            work(piece)

    def visit(some, stretch):
        assert 0 <= stretch.start < stretch.stop <= length
        visits[some, stretch] += 1

    with parted(cores), patched("MANY", 1 if large else 2**60), patched("on_cores", watch):
        convolution.in_parts(visit, count, length, [np.ones((2, 3)), np.ones((max(1, count), 3, 5))])
    np.testing.assert_array_equal(visits, 1)


def test_factors_are_large_by_the_multiplications_that_they_take(monkeypatch):
    matrices, maps = [np.ones((2, 3))] * 4, np.ones((5, 3, 7))
    number = 4 * 2 * 3 * 5 * 7
    for many, parts in ((number, 5), (number + 1, 1)):
        found = []
        monkeypatch.setattr(convolution, "MANY", many)
        monkeypatch.setattr(convolution, "threads", lambda: 2)
        convolution.in_parts(lambda some, _, found=found: found.append(some), 5, 7, [*matrices, maps])
        assert len(found) == parts


@pytest.mark.parametrize("dilation", [1, 4])
def test_an_empty_batch_stays_empty_in_parts(dilation):
    weight = normal(6, 4, 3, 3)
    with parted():
        y, backward = ops.conv2d(np.ones((0, 4, 5, 3)), weight, padding=dilation, dilation=dilation)
        dx, dweight, _ = backward(y)
    assert y.shape == (0, 6, 5, 3)
    assert dx.shape == (0, 4, 5, 3)
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))
