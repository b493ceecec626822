import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, signal

from npattn import ops
from npattn.ops import convolution
from tests.fast.test_im2col import deep_planes
from tests.ops.primitives import definitions, in_blocks, normal, run_both, torch_gradients, ulps, warned, worst_error
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


# In parts


@given(planes() | deep_planes(), st.sampled_from([1, 2, 3, 8]))
def test_conv2d_in_parts_is_that_at_once(plane, count):
    x, weight, bias, options = plane
    with definitions():
        expected, back = ops.conv2d(x, weight, bias, **options)
        dy = normal(*expected.shape, seed=3)
        gradients = back(dy)
    with in_blocks(count):
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
    with in_blocks():
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
        ((4, 4, (3, 3), 2, 12), "conv_by_rows"),
        ((4, 4, (3, 3), (2, 1), 6), "conv_by_rows"),
        ((4, 4, (3, 3), (1, 2), 6), "by_columns"),
        ((4, 4, (3, 1), 2, 3), "conv_by_rows"),
        ((4, 4, (1, 3), 2, 11), "by_columns"),
        ((4, 4, (1, 1), 2, 3), "at_once"),
        ((3, 4, (3, 3), 2, 3), "at_once"),
        ((3, 2, (3, 3), 2, 3), "by_columns"),
        ((3, 3, (3, 3), 2, 3), "at_once"),
        ((2, 1, (3, 3), 2, 12), "conv_by_rows"),
    ],
)
def test_the_order_hangs_on_how_far_apart_taps_lie(plane, way, monkeypatch):
    channels, out, kernel, dilation, width = plane
    called = []
    for name in ("by_columns", "conv_by_rows", "at_once"):
        original = getattr(convolution, name)
        monkeypatch.setattr(
            convolution, name, lambda *a, name=name, original=original: called.append(name) or original(*a)
        )
    ops.conv2d(normal(1, channels, 5, width), normal(out, channels, *kernel), padding=4, dilation=dilation)
    assert called[0] == way


@pytest.mark.parametrize("dilation", [1, 4])
def test_an_empty_batch_stays_empty_in_parts(dilation):
    weight = normal(6, 4, 3, 3)
    with in_blocks():
        y, backward = ops.conv2d(np.ones((0, 4, 5, 3)), weight, padding=dilation, dilation=dilation)
        dx, dweight, _ = backward(y)
    assert y.shape == (0, 6, 5, 3)
    assert dx.shape == (0, 4, 5, 3)
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))


# In tiles


@pytest.fixture
def tiles(monkeypatch):
    """Take tiles from 4 channels and 30 positions on: the arguments of every call."""
    calls, original = [], convolution.conv3x3
    monkeypatch.setattr(convolution, "WIDE", 4)
    monkeypatch.setattr(convolution, "LARGE", 30)
    monkeypatch.setattr(convolution, "conv3x3", lambda *arguments: calls.append(arguments) or original(*arguments))
    with in_blocks():
        yield calls


def single(*shape, seed=0):
    return normal(*shape, seed=seed).astype(np.float32)


class Other(np.ndarray):
    """Another kind of array."""


SMALL_ENOUGH = {"size": (6, 5), "channels": 4, "out": 4, "kernel": (3, 3), "padding": 1, "dtype": np.float32}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"channels": 5, "out": 9}, True),
        ({"channels": 3}, False),
        ({"out": 3}, False),
        ({"size": (5, 6)}, True),
        ({"size": (29, 1)}, False),
        ({"size": (30, 1)}, True),
        ({"size": (8, 7), "padding": 0}, True),
        ({"size": (8, 6), "padding": 0}, False),
        ({"size": (4, 3), "padding": 2}, True),
        ({"size": (4, 3), "padding": (2, 1)}, False),
        ({"padding": (0, 2)}, False),
        ({"padding": (1, 2)}, True),
        ({"padding": (2, 0), "size": (6, 7)}, True),
        ({"padding": 3}, False),
        ({"padding": (1, 3)}, False),
        ({"padding": (3, 1)}, False),
        ({"stride": 2, "size": (20, 20)}, False),
        ({"stride": (1, 2), "size": (20, 20)}, False),
        ({"dilation": 2, "size": (20, 20)}, False),
        ({"dilation": (1, 2), "size": (20, 20)}, False),
        ({"groups": 2, "channels": 8, "out": 8}, False),
        ({"kernel": (3, 1), "size": (20, 20)}, False),
        ({"kernel": (1, 3), "size": (20, 20)}, False),
        ({"kernel": (5, 5), "size": (20, 20)}, False),
        ({"kernel": (2, 2), "size": (20, 20)}, False),
        ({"dtype": np.float64}, False),
        ({"dtype": np.longdouble}, False),
        ({"dtype": np.complex128}, False),
        ({"dtype": np.complex64}, False),
        ({"dtype": np.float16}, False),
        ({"weight": np.float64}, False),
        ({"weight": np.float16}, False),
        ({"kind": Other}, False),
    ],
    ids=str,
)
def test_large_wide_convolutions_of_3_by_3_in_single_precision_take_tiles(change, expected, tiles):
    case = SMALL_ENOUGH | change
    options = {name: case[name] for name in ("padding", "stride", "dilation", "groups") if name in case}
    x = normal(2, case["channels"], *case["size"]).astype(case["dtype"]).view(case.get("kind", np.ndarray))
    weight = normal(case["out"], case["channels"] // case.get("groups", 1), *case["kernel"], seed=1)
    y, backward = ops.conv2d(x, weight.astype(case.get("weight", case["dtype"])), **options)
    backward(y)
    assert bool(tiles) is expected


def test_what_is_not_worth_cutting_into_parts_takes_no_tiles(tiles):
    with definitions():
        ops.conv2d(single(2, 4, 6, 5), single(4, 4, 3, 3), padding=1)
    assert not tiles


@pytest.mark.parametrize(("wide", "size"), [(128, (64, 32)), (127, (64, 32)), (128, (89, 23))])
def test_tiles_are_taken_from_128_channels_and_2048_positions_on(wide, size, monkeypatch):
    taken = []
    monkeypatch.setattr(convolution, "in_tiles", lambda *arguments: taken.append(arguments) or (np.zeros(1), None))
    monkeypatch.setattr(convolution, "conv_by_rows", lambda *arguments: (np.zeros(1), None))
    ops.conv2d(np.ones((1, wide, *size), np.float32), np.ones((128, wide, 3, 3), np.float32), padding=1)
    assert bool(taken) is (wide == 128 and size == (64, 32))


@pytest.mark.parametrize("padding", [0, 1, 2, (0, 2)])
def test_tiles_give_value_and_gradients_and_the_bias(padding, tiles):
    arrays = single(2, 5, 9, 8), single(6, 5, 3, 3, seed=1), single(6, seed=2)
    y, backward = ops.conv2d(*arrays, padding=padding)
    dy = single(*y.shape, seed=3)
    found = [y, *backward(dy)]
    assert len(tiles) == 1
    expected, back = ops.conv2d(*(a.astype(float) for a in arrays), padding=padding)
    for ours, theirs in zip(found, [expected, *back(dy.astype(float))], strict=True):
        assert ulps(ours, theirs.astype(np.float32)) <= 12


def run_rows(x, weight, dy, padding):
    y, backward = convolution.conv_by_rows(x, weight, (padding, padding), (1, 1))
    return [y, *backward(dy)]


def run_tiles(x, weight, dy, padding):
    y, backward = ops.conv2d(x, weight, padding=padding)
    return [y, *backward(dy)[:2]]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["x", "weight", "dy"])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_what_is_not_finite_spoils_what_it_does_by_rows(value, name, padding, tiles):
    shapes = {"x": (2, 4, 9, 8), "weight": (5, 4, 3, 3), "dy": (2, 5, 7 + 2 * padding, 6 + 2 * padding)}
    random = np.random.RandomState(0)
    for _ in range(3):
        arrays = {key: single(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
        arrays[name].flat[random.randint(0, arrays[name].size)] = value
        found, warnings = warned(run_tiles, *arrays.values(), padding)
        expected, expected_warnings = warned(run_rows, *arrays.values(), padding)
        spoilt = [np.count_nonzero(~np.isfinite(a)) for a in expected]
        assert 0 < sum(spoilt) < sum(a.size for a in expected)
        for ours, theirs, number in zip(found, expected, spoilt, strict=True):
            np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
            if number:
                np.testing.assert_array_equal(ours, theirs)
            assert ulps(np.nan_to_num(ours, posinf=0, neginf=0), np.nan_to_num(theirs, posinf=0, neginf=0)) <= 12
        assert warnings <= expected_warnings
    assert tiles


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("name", ["x", "weight", "dy"])
def test_numbers_too_large_for_tiles_are_multiplied_by_rows(everywhere, name, tiles):
    arrays = {"x": single(2, 4, 9, 8), "weight": single(5, 4, 3, 3, seed=1), "dy": single(2, 5, 9, 8, seed=2)}
    large = arrays[name] if everywhere else arrays[name].reshape(-1)[7:8]
    large[:] = np.copysign(np.float32(1e38), large)
    found, warnings = warned(run_tiles, *arrays.values(), 1)
    expected, expected_warnings = warned(run_rows, *arrays.values(), 1)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        infinite = np.isinf(theirs)
        np.testing.assert_array_equal(ours[infinite], theirs[infinite])
        # Halved, and the infinite left out: differences of the largest numbers overflow.
        halves = [np.where(np.isfinite(a), a, 0) / 2 for a in (ours, theirs)]
        assert ulps(*halves) <= 12
    assert warnings <= expected_warnings


def test_rows_in_place_of_tiles_heed_the_callers_settings(tiles):
    x, weight = single(2, 4, 9, 8), single(4, 4, 3, 3, seed=1)
    x[0, 0, 4, 4] = np.inf
    x[0, 1, 4, 4] = -np.inf
    weight[:, :2] = 1
    for convolve in (
        lambda: ops.conv2d(x, weight, padding=1),
        lambda: convolution.conv_by_rows(x, weight, (1, 1), (1, 1)),
    ):
        with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
            convolve()


@pytest.mark.parametrize("name", ["x", "weight"])
def test_one_gradient_alone_may_be_too_large(name, tiles):
    arrays = {"x": single(2, 4, 9, 8), "weight": single(5, 4, 3, 3, seed=1), "dy": single(2, 5, 9, 8, seed=2)}
    arrays[name][0, 0, 2, 2] = 1e30
    arrays["dy"][0, 0, 2, 2] = 1e10
    with np.errstate(over="ignore"):
        found, expected = (run(*arrays.values(), 1) for run in (run_tiles, run_rows))
    large = {"x": 2, "weight": 1}[name]
    assert [np.isinf(a).any() for a in expected] == [i == large for i in range(3)]
    np.testing.assert_array_equal(found[large], expected[large])


def test_an_empty_batch_takes_no_tiles(tiles):
    weight = single(6, 4, 3, 3)
    y, backward = ops.conv2d(np.ones((0, 4, 9, 8), np.float32), weight, padding=1)
    dx, dweight, _ = backward(y)
    assert not tiles
    assert (y.shape, dx.shape) == ((0, 6, 9, 8), (0, 4, 9, 8))
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))
