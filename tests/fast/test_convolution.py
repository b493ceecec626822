import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.fast import convolution
from npattn.ops.context import definitions
from npattn.ops.convolution import pair
from tests.fast.test_im2col import deep_planes
from tests.memory import peak_memory
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched, run_both, ulps, warned, way_taken
from tests.ops.test_convolution import planes
from tests.strategies import arrange


class Other(np.ndarray):
    """Another kind of array."""


def run(x, weight, dy, padding):
    y, backward = ops.conv2d(x, weight, padding=padding)
    return [y, *backward(dy)[:2]]


def run_definition(x, weight, dy, padding):
    """Follow the definition of the convolution alone: products within it are made as ever."""
    y, backward = ops.conv2d.definition(x, weight, padding=padding)
    return [y, *backward(dy)[:2]]


@settings(max_examples=20)
@given(planes() | deep_planes(), st.sampled_from(["contiguous", "transposed", "strided", "read-only"]))
def test_any_convolution_is_that_of_the_definition(plane, layout):
    x, weight, bias, options = plane
    with definitions():
        expected, back = ops.conv2d(x, weight, bias, **options)
        dy = normal(*expected.shape, seed=3)
        gradients = back(dy)
    with in_blocks(2):
        y, backward = ops.conv2d(arrange(x, layout), arrange(weight, layout), bias, **options)
        found = backward(arrange(dy, layout))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(found, gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@settings(max_examples=20)
@given(planes() | deep_planes())
def test_single_precision_is_within_16_ulps_of_the_largest_by_definition(plane):
    x, weight, _, options = plane
    # Numbers of one sign, so that sums do not cancel.
    arrays = [np.abs(a).astype(np.float32) for a in (x, weight)]
    for found, expected in zip(*run_both(lambda x, w: ops.conv2d(x, w, **options), *arrays), strict=True):
        assert ulps(found, expected) <= 16


# Which way


@for_each(
    ("kernel", "options", "expected"),
    [
        ((1, 1), {}, True),
        ((1, 1), {"stride": (1, 1), "padding": (0, 0), "dilation": 3}, True),
        ((1, 1), {"stride": 2}, False),
        ((1, 1), {"stride": (1, 2)}, False),
        ((1, 1), {"padding": 1}, False),
        ((1, 1), {"padding": (0, 1)}, False),
        ((1, 1), {"groups": 2}, False),
        ((2, 1), {}, False),
        ((1, 2), {}, False),
    ],
)
def test_a_kernel_that_reads_the_map_as_it_is_lays_nothing_out(kernel, options, expected):
    x, weight = np.ones((1, 4, 3, 3)), np.ones((2, 4 // options.get("groups", 1), *kernel))
    assert (way_taken(ops.conv2d, x, weight, **options) == "conv_pointwise") is expected
    assert way_taken(ops.conv2d, x.astype(complex), weight.astype(complex), **options) == "definition"
    assert way_taken(ops.conv2d, x, weight.astype(np.float32), **options) == "definition"


@pytest.mark.parametrize(
    ("plane", "way"),
    [
        ((4, 4, (3, 3), 2, 11), "conv_by_columns"),
        ((4, 4, (3, 3), 2, 12), "conv_by_rows"),
        ((4, 4, (3, 3), (2, 1), 6), "conv_by_rows"),
        ((4, 4, (3, 3), (1, 2), 6), "conv_by_columns"),
        ((4, 4, (3, 1), 2, 3), "conv_by_rows"),
        ((4, 4, (1, 3), 2, 11), "conv_by_columns"),
        ((4, 4, (1, 1), 2, 3), None),
        ((3, 4, (3, 3), 2, 3), None),
        ((3, 2, (3, 3), 2, 3), "conv_by_columns"),
        ((3, 3, (3, 3), 2, 3), None),
        ((2, 1, (3, 3), 2, 12), "conv_by_rows"),
    ],
)
def test_the_order_hangs_on_how_many_channels_there_are_and_how_far_apart_taps_lie(plane, way, monkeypatch):
    channels, out, kernel, dilation, width = plane
    called = []
    for name in ("conv_by_columns", "conv_by_rows"):
        original = getattr(convolution, name)
        monkeypatch.setattr(
            convolution, name, lambda *a, name=name, original=original: called.append(name) or original(*a)
        )
    padding = tuple(d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True))
    with in_blocks():
        ops.conv2d(normal(1, channels, 5, width), normal(out, channels, *kernel), padding=padding, dilation=dilation)
    assert called == ([way] if way else [])


@pytest.mark.parametrize("change", [{"stride": 2}, {"stride": (2, 1)}, {"groups": 8}, {"stride": 2, "groups": 2}])
def test_kernels_that_skip_or_see_a_channel_alone_follow_the_definition(change):
    x, weight = np.ones((1, 8, 20, 20)), np.ones((8, 8 // change.get("groups", 1), 3, 3))
    with in_blocks():
        assert way_taken(ops.conv2d, x, np.ones((8, 8, 3, 3))) == "conv_row_by_row"
        assert way_taken(ops.conv2d, x, weight, **change) == "definition"


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize(
    ("kernel", "options"), [((3, 3), {"padding": 1}), ((1, 5), {"padding": (0, 4), "dilation": 2})]
)
@pytest.mark.parametrize("bias", [False, True])
def test_groups_see_their_own_channels(groups, kernel, options, bias, tiles):
    arrays = [single(2, 6 * groups, 9, 8), single(7 * groups, 6, *kernel, seed=1), *[single(7 * groups, seed=2)] * bias]
    assert way_taken(ops.conv2d, *arrays, groups=groups, **options) == "conv_group_by_group"
    y, backward = ops.conv2d(*arrays, groups=groups, **options)
    dy = single(*y.shape, seed=3)
    found = [y, *backward(dy)]
    expected, back = ops.conv2d.definition(*(a.astype(float) for a in arrays), groups=groups, **options)
    for ours, theirs in zip(found, [expected, *back(dy.astype(float))], strict=True):
        assert (ours is None) is (theirs is None)
        assert ours is None or ulps(ours, theirs.astype(np.float32)) <= 24
    assert len(tiles) == (groups if kernel == (3, 3) else 0)


@pytest.mark.parametrize(("channels", "out"), [(64, 8), (8, 64), (32, 32)])
def test_memory_of_a_wide_kernel_is_that_of_its_rows_on_the_side_with_fewer_channels(channels, out):
    x, weight = normal(1, channels, 40, 40).astype(np.float32), normal(out, channels, 7, 7).astype(np.float32)
    dy = np.ones((1, out, 40, 40), np.float32)
    with in_blocks(2):
        peak = peak_memory(lambda: ops.conv2d(x, weight, padding=3)[1](dy))
    laid_out = 7 * min(x.nbytes, dy.nbytes)
    # All taps laid out, forward and backward, would be 98 maps of x.
    assert peak < 3 * laid_out + 3 * (x.nbytes + dy.nbytes + weight.nbytes)


@pytest.mark.parametrize("dilation", [1, 4])
def test_an_empty_batch_stays_empty(dilation):
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
    monkeypatch.setattr(convolution, "MIN_TILED_CHANNELS", 4)
    monkeypatch.setattr(convolution, "MIN_TILED_POSITIONS", 30)
    monkeypatch.setattr(convolution, "conv3x3", lambda *arguments: calls.append(arguments) or original(*arguments))
    with in_blocks():
        yield calls


def single(*shape, seed=0):
    return normal(*shape, seed=seed).astype(np.float32)


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
        ({"size": (31, 1)}, True),
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
        ({"dilation": 2, "padding": 2, "size": (20, 20)}, True),
        ({"dilation": 2, "padding": 2, "size": (15, 16)}, True),
        ({"dilation": 2, "padding": 2, "size": (6, 6)}, False),  # too much that lies between
        ({"dilation": (1, 2), "padding": (1, 2), "size": (10, 20)}, True),
        ({"dilation": (1, 2), "padding": 2, "size": (20, 20)}, False),
        ({"groups": 2, "channels": 8, "out": 8}, True),
        ({"groups": 2, "channels": 8, "out": 6}, False),
        ({"kernel": (3, 1), "size": (20, 20)}, False),
        ({"kernel": (1, 3), "size": (20, 20)}, False),
        ({"kernel": (5, 5), "size": (20, 20)}, False),
        ({"kernel": (2, 2), "size": (20, 20)}, False),
        ({"dtype": np.float64}, False),
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


@for_each(
    ("channels", "out", "size", "expected"),
    [
        (128, 128, (16, 32), True),
        (129, 130, (16, 33), True),
        (127, 128, (16, 32), False),
        (128, 127, (16, 32), False),
        (128, 128, (73, 7), False),  # 511 positions
    ],
)
def test_tiles_are_taken_from_128_channels_and_512_positions_on(channels, out, size, expected):
    x, weight = np.ones((1, channels, *size), np.float32), np.ones((out, channels, 3, 3), np.float32)
    assert (way_taken(ops.conv2d, x, weight, padding=1) == "conv_in_tiles") is expected


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


@pytest.mark.parametrize(("dilation", "size"), [((2, 2), (20, 17)), ((3, 1), (31, 9)), ((2, 3), (21, 40))])
def test_tiles_take_dilated_kernels_over_maps_that_are_laid_apart(dilation, size, tiles):
    arrays = single(2, 5, *size), single(6, 5, 3, 3, seed=1)
    y, backward = ops.conv2d(*arrays, padding=dilation, dilation=dilation)
    dy = single(*y.shape, seed=3)
    found = [y, *backward(dy)[:2]]
    assert len(tiles) == 1
    expected, back = ops.conv2d(*(a.astype(float) for a in arrays), padding=dilation, dilation=dilation)
    for ours, theirs in zip(found, [expected, *back(dy.astype(float))[:2]], strict=True):
        assert ulps(ours, theirs.astype(np.float32)) <= 12


def test_an_empty_batch_takes_no_tiles(tiles):
    weight = single(6, 4, 3, 3)
    y, backward = ops.conv2d(np.ones((0, 4, 9, 8), np.float32), weight, padding=1)
    dx, dweight, _ = backward(y)
    assert not tiles
    assert (y.shape, dx.shape) == ((0, 6, 9, 8), (0, 4, 9, 8))
    np.testing.assert_array_equal(dweight, np.zeros_like(weight))


# What is not finite


in_either_way = pytest.mark.parametrize("wide", [4, 99], ids=["tiles", "rows"])


def made(padding=1):
    shapes = {"x": (2, 4, 9, 8), "weight": (5, 4, 3, 3), "dy": (2, 5, 7 + 2 * padding, 6 + 2 * padding)}
    return {key: single(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}


@in_either_way
@for_each("value", [-np.inf, np.nan])
@for_each("name", ["x", "weight", "dy"])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_what_is_not_finite_is_left_to_the_definition(wide, value, name, padding, tiles):
    arrays = made(padding)
    random = np.random.RandomState(padding)
    arrays[name].flat[random.randint(0, arrays[name].size)] = value
    with patched("MIN_TILED_CHANNELS", wide):
        found, warnings = warned(run, *arrays.values(), padding)
    expected, expected_warnings = warned(run_definition, *arrays.values(), padding)
    assert not all(np.isfinite(a).all() for a in expected)
    for ours, theirs in zip(found, expected, strict=True):
        if np.isfinite(theirs).all():
            assert ulps(ours, theirs) <= 12
        else:
            np.testing.assert_array_equal(ours, theirs)
    assert warnings <= expected_warnings


@in_either_way
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("name", ["x", "weight", "dy"])
def test_numbers_whose_sums_overflow_are_left_to_the_definition(wide, everywhere, name, tiles):
    arrays = made()
    large = arrays[name] if everywhere else arrays[name].reshape(-1)[7:8]
    large[:] = np.copysign(np.float32(1e38), large)
    with patched("MIN_TILED_CHANNELS", wide):
        found, warnings = warned(run, *arrays.values(), 1)
    expected, expected_warnings = warned(run_definition, *arrays.values(), 1)
    for ours, theirs in zip(found, expected, strict=True):
        for is_kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(is_kind(ours), is_kind(theirs))
        # Halved, and the infinite left out: differences of the largest numbers overflow.
        halves = [np.where(np.isfinite(a), a, 0) / 2 for a in (ours, theirs)]
        assert ulps(*halves) <= 12
    assert warnings <= expected_warnings


@in_either_way
def test_the_callers_settings_are_heeded(wide, tiles):
    x, weight = single(2, 4, 9, 8), single(4, 4, 3, 3, seed=1)
    x[0, 0, 4, 4] = np.inf
    x[0, 1, 4, 4] = -np.inf
    weight[:, :2] = 1
    with patched("MIN_TILED_CHANNELS", wide), np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        ops.conv2d(x, weight, padding=1)


@pytest.mark.parametrize("name", ["x", "weight"])
def test_one_gradient_alone_may_be_too_large(name, tiles):
    arrays = made()
    arrays[name][0, 0, 2, 2] = 1e30
    arrays["dy"][0, 0, 2, 2] = 1e10
    with np.errstate(over="ignore"):
        found, expected = (way(*arrays.values(), 1) for way in (run, run_definition))
    large = {"x": 2, "weight": 1}[name]
    assert [np.isinf(a).any() for a in expected] == [i == large for i in range(3)]
    np.testing.assert_array_equal(found[large], expected[large])


@pytest.mark.parametrize("value", [-np.inf, np.nan])
@pytest.mark.parametrize(
    ("size", "kernel", "padding", "dilation"),
    [((5, 6), (3, 3), 3, 1), ((5, 6), (3, 2), 1, 1), ((3, 3), (2, 2), 4, 8), ((4, 4), (3, 3), 5, 5), ((5, 5), 2, 0, 4)],
)
def test_what_is_not_finite_shows_wherever_it_stands(size, kernel, padding, dilation, value):
    # Some see zeros beyond the edges alone; some of the map is seen by none.
    shapes = (1, 4, *size), (2, 4, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    x, weight = (normal(*shape, seed=i) for i, shape in enumerate(shapes))
    options = {"padding": padding, "dilation": dilation}
    dy = normal(*ops.conv2d.definition(x, weight, **options)[0].shape, seed=2)
    with np.errstate(all="ignore"):
        for spoilt in (x, weight, dy):
            for place in range(0, spoilt.size, 3):
                kept, spoilt.flat[place] = spoilt.flat[place], value
                y, backward = ops.conv2d.definition(x, weight, **options)
                expected = [y, *backward(dy)[:2]]
                with in_blocks(1):
                    y, backward = ops.conv2d(x, weight, **options)
                    found = [y, *backward(dy)[:2]]
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
                    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
                spoilt.flat[place] = kept


def test_layers_of_one_map_add_their_gradient_to_what_has_come_and_leave_that_as_it_is():
    x, before = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    parameters = [normal(*shape, seed=2) for shape in ((2, 3, 1, 1), (2,), (4, 3, 1, 1), (4,))]
    given = before.copy()
    results = []
    for way in (ops.project, ops.project.definition):
        with in_blocks():
            ys, backward = way(x, *parameters)
            results.append([*ys, *backward(ys, accumulate_into=before)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(before, given)


@for_each("padding", [np.uint32(2), np.array(2), (np.int8(2), np.int64(2))])
def test_numbers_of_numpy_do_not_wrap_in_a_faster_way(padding):
    random = np.random.RandomState(0)
    x, w = random.standard_normal((2, 16, 64, 64)), random.standard_normal((8, 16, 3, 3))
    plain = 2 if np.ndim(padding) == 0 else (2, 2)
    (y, back), (expected, back_expected) = (ops.conv2d(x, w, padding=p, dilation=2) for p in (padding, plain))
    np.testing.assert_array_equal(y, expected)
    for found, wanted in zip(back(y), back_expected(y), strict=True):
        np.testing.assert_array_equal(found, wanted)
