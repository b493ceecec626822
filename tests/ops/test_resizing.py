from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds

lengths = st.integers(1, 9)
corners = st.booleans()
resizes = st.tuples(lengths, lengths, st.tuples(lengths, lengths), corners, seeds)
every_convention = pytest.mark.parametrize("align_corners", [False, True])


@settings(max_examples=20)
@given(resizes)
def test_value_and_gradient_agree_with_pytorch(case):
    torch = pytest.importorskip("torch")
    height, width, size, align_corners, seed = case
    x, dy = normal(2, 3, height, width, seed=seed), normal(2, 3, *size, seed=seed + 1)

    def published(t):
        return torch.nn.functional.interpolate(t, size, mode="bilinear", align_corners=align_corners)

    y, (dx,) = torch_gradients(published, dy, x)
    value, backward = ops.resize_bilinear(x, size, align_corners)
    np.testing.assert_allclose(value, y, rtol=0, atol=1e-12 * np.abs(y).max())
    np.testing.assert_allclose(backward(dy), dx, rtol=0, atol=1e-12 * np.abs(dx).max())


@settings(max_examples=20)
@given(resizes)
def test_forward_and_backward_are_adjoint(case):
    height, width, size, align_corners, seed = case
    x, dy = normal(1, 2, height, width, seed=seed), normal(1, 2, *size, seed=seed + 1)
    y, backward = ops.resize_bilinear(x, size, align_corners)
    scale = np.linalg.norm(y) * np.linalg.norm(dy)
    np.testing.assert_allclose(np.sum(y * dy), np.sum(x * backward(dy)), rtol=0, atol=1e-14 * scale)


@settings(max_examples=20)
@given(resizes)
def test_every_position_is_a_weighted_mean_of_the_map(case):
    height, width, size, align_corners, seed = case
    constant, _ = ops.resize_bilinear(np.full((1, 1, height, width), 3.0), size, align_corners)
    np.testing.assert_allclose(constant, 3.0, rtol=1e-15)
    x = normal(1, 1, height, width, seed=seed)
    y, backward = ops.resize_bilinear(x, size, align_corners)
    assert x.min() - 1e-12 <= y.min() <= y.max() <= x.max() + 1e-12
    np.testing.assert_allclose(backward(np.ones_like(y)).sum(), size[0] * size[1], rtol=1e-13)


@settings(max_examples=20)
@given(lengths, st.integers(2, 30))
def test_aligned_corners_stay_where_they_are_and_a_ramp_stays_a_ramp(n, m):
    ramp = np.linspace(0.0, 1.0, n + 1).reshape(1, 1, 1, n + 1)
    y, _ = ops.resize_bilinear(ramp, (1, m), align_corners=True)
    np.testing.assert_allclose(y[0, 0, 0], np.linspace(0.0, 1.0, m), rtol=1e-14, atol=1e-15)


@settings(max_examples=20)
@given(lengths, st.integers(1, 30))
def test_unaligned_ramp_is_read_at_the_centres_of_the_new_pixels(n, m):
    y, _ = ops.resize_bilinear(np.arange(float(n)).reshape(1, 1, n, 1), (m, 1))
    centres = [(k + Fraction(1, 2)) * n / m - Fraction(1, 2) for k in range(m)]
    expected = [float(min(max(centre, 0), n - 1)) for centre in centres]
    np.testing.assert_allclose(y[0, 0, :, 0], expected, rtol=1e-14, atol=1e-15)


@every_convention
def test_same_size_changes_nothing_and_hands_out_no_view(align_corners):
    x = normal(2, 3, 4, 5)
    y, backward = ops.resize_bilinear(x, (4, 5), align_corners)
    dx = backward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dx, x)
    assert not np.shares_memory(y, x)
    assert not np.shares_memory(dx, x)


@every_convention
def test_one_pixel_fills_any_map_and_collects_its_whole_gradient(align_corners):
    x = normal(2, 3, 1, 1)
    y, backward = ops.resize_bilinear(x, (4, 3), align_corners)
    np.testing.assert_allclose(y, np.broadcast_to(x, y.shape), rtol=1e-15)
    np.testing.assert_allclose(backward(np.ones_like(y)), 12, rtol=1e-15)


def test_a_map_made_one_pixel_is_its_corner_or_its_middle():
    x = normal(1, 1, 3, 4)
    np.testing.assert_array_equal(ops.resize_bilinear(x, (1, 1), align_corners=True)[0][0, 0, 0, 0], x[0, 0, 0, 0])
    middle = ops.resize_bilinear(x, (1, 1))[0][0, 0, 0, 0]
    np.testing.assert_allclose(middle, x[0, 0, 1, 1:3].mean(), rtol=1e-15)


@every_convention
def test_nan_reaches_its_neighbourhood_and_no_further(align_corners):
    x = np.zeros((1, 1, 8, 8))
    x[0, 0, 0, 0] = np.nan
    y, _ = ops.resize_bilinear(x, (16, 16), align_corners)
    assert np.isnan(y[0, 0, :2, :2]).all()
    assert not np.isnan(y[0, 0, 4:]).any()
    assert not np.isnan(y[0, 0, :, 4:]).any()


@every_convention
@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_weights_have_all_the_digits_of_the_dtype(dtype, align_corners):
    x = np.arange(3, dtype=dtype).reshape(1, 1, 1, 3)
    y, backward = ops.resize_bilinear(x, (1, 7), align_corners)
    assert y.dtype == backward(y).dtype == dtype
    centre = dtype(1) / 3 if align_corners else dtype(9) / 14 - dtype(1) / 2
    np.testing.assert_allclose(y[0, 0, 0, 1], centre, rtol=4 * np.finfo(dtype).eps)


@every_convention
def test_resizing_runs_on_a_device_array(align_corners):
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    x = normal(2, 3, 4, 5).astype(np.float32)
    expected, back_host = ops.resize_bilinear(x, (3, 8), align_corners)
    y, backward = ops.resize_bilinear(DeviceArray(x), (3, 8), align_corners)
    assert y.get().tobytes() == expected.tobytes()
    assert backward(y).get().tobytes() == back_host(expected).tobytes()


@settings(max_examples=20)
@given(lengths, lengths, st.tuples(lengths, lengths), seeds)
def test_nearest_value_and_gradient_agree_with_pytorch(height, width, size, seed):
    torch = pytest.importorskip("torch")
    x, dy = normal(2, 3, height, width, seed=seed), normal(2, 3, *size, seed=seed + 1)
    y, (dx,) = torch_gradients(lambda t: torch.nn.functional.interpolate(t, size), dy, x)
    value, backward = ops.resize_nearest(x, size)
    np.testing.assert_array_equal(value, y)
    np.testing.assert_allclose(backward(dy), dx, rtol=0, atol=1e-13)


@given(st.integers(1, 9), st.integers(1, 300))
def test_nearest_reads_every_position_where_it_falls_exactly(n, m):
    y, _ = ops.resize_nearest(np.arange(float(n)).reshape(1, 1, 1, n), (1, m))
    assert y.ravel().tolist() == [int(Fraction(k * n, m)) for k in range(m)]
