import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.naming import for_each
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes


def arrays(shape, seed=0):
    """A map, scale and shift, and running statistics."""
    random = np.random.RandomState(seed)
    channels = shape[1]
    x = random.standard_normal(shape) * 2 + random.standard_normal((channels, 1, 1))
    positive = random.uniform(0.5, 2, (2, channels))
    return x, positive[0], random.standard_normal(channels), random.standard_normal(channels), positive[1]


@settings(max_examples=20)
@given(st.tuples(st.integers(2, 4), sizes, sizes, sizes), seeds, st.booleans(), st.sampled_from([0.1, 0.01, 1.0]))
def test_values_gradients_and_running_statistics_agree_with_pytorch(shape, seed, training, momentum):
    torch = pytest.importorskip("torch")
    x, weight, bias, mean, variance = arrays(shape, seed)
    running = torch.tensor(mean), torch.tensor(variance)

    def published(*t):
        return torch.nn.functional.batch_norm(
            t[0], *running, weight=t[1], bias=t[2], training=training, momentum=momentum, eps=1e-5
        )

    dy = normal(*shape, seed=seed)
    expected, gradients = torch_gradients(published, dy, x, weight, bias)
    (y, updated), backward = ops.batch_norm(x, weight, bias, mean, variance, training=training, momentum=momentum)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(backward(dy), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * max(1, np.abs(theirs).max()))
    for ours, theirs in zip(updated, running, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)


def test_in_training_every_channel_leaves_with_mean_0_and_variance_1():
    x, _, _, mean, variance = arrays((4, 3, 5, 6))
    (y, _), _ = ops.batch_norm(x, np.ones(3), np.zeros(3), mean, variance, training=True, eps=0.0)
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-15)
    np.testing.assert_allclose(y.var(axis=(0, 2, 3)), 1, rtol=1e-14)


def test_in_training_the_gradient_neither_shifts_nor_stretches_a_channel():
    """The output does not change when a channel is shifted or scaled, so the gradient has no such component."""
    x, weight, bias, mean, variance = arrays((4, 3, 5, 6))
    _, backward = ops.batch_norm(x, weight, bias, mean, variance, training=True, eps=0.0)
    dx, _, _ = backward(normal(4, 3, 5, 6))
    np.testing.assert_allclose(dx.sum(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose((dx * x).sum(axis=(0, 2, 3)), 0, atol=1e-12)


def test_inference_remembers_nothing_and_writes_to_nothing():
    x, *rest = arrays((2, 3, 4, 4))
    before = [a.copy() for a in (x, *rest)]
    (_, running), backward = ops.batch_norm(x, *rest, training=False)
    backward(x)
    for given_array, copy in zip((x, *rest), before, strict=True):
        np.testing.assert_array_equal(given_array, copy)
    np.testing.assert_array_equal(running, rest[2:])


@settings(max_examples=20)
@given(st.lists(sizes, min_size=1, max_size=3), st.sampled_from([1e-5, 1.0]), seeds)
def test_layer_norm_and_its_gradients_agree_with_pytorch(shape, eps, seed):
    torch = pytest.importorskip("torch")
    x, dy = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    weight, bias = normal(2, shape[-1], seed=seed + 2)

    def published(x, weight, bias):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    expected, gradients = torch_gradients(published, dy, x, weight, bias)
    y, backward = ops.layer_norm(x, weight, bias, eps=eps)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(backward(dy), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * max(1, np.abs(theirs).max()))


@settings(max_examples=20)
@given(st.sampled_from([(1, 3), (4, 1), (2, 2), (3, 2)]), st.tuples(sizes, sizes), st.sampled_from([1e-5, 1.0]), seeds)
def test_group_norm_and_its_gradients_agree_with_pytorch(grouping, size, eps, seed):
    torch = pytest.importorskip("torch")
    groups, channels = grouping[0], grouping[0] * grouping[1]
    x, dy = normal(2, 2, channels, *size, seed=seed)
    weight, bias = normal(2, channels, seed=seed + 2)

    def published(x, weight, bias):
        return torch.nn.functional.group_norm(x, groups, weight, bias, eps)

    expected, gradients = torch_gradients(published, dy, x, weight, bias)
    y, backward = ops.group_norm(x, weight, bias, groups, eps=eps)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(backward(dy), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * max(1, np.abs(theirs).max()))


def test_one_group_normalises_an_image_and_as_many_as_channels_each_channel():
    x = 3 * normal(2, 4, 3, 5) + 1
    one, zero = np.ones(4), np.zeros(4)
    whole, _ = ops.group_norm(x, one, zero, 1, eps=0.0)
    np.testing.assert_allclose(whole.mean(axis=(1, 2, 3)), 0, atol=1e-15)
    np.testing.assert_allclose(whole.var(axis=(1, 2, 3)), 1, rtol=1e-14)
    apart, _ = ops.group_norm(x, one, zero, 4, eps=0.0)
    np.testing.assert_allclose(apart.mean(axis=(2, 3)), 0, atol=1e-15)
    np.testing.assert_allclose(apart.var(axis=(2, 3)), 1, rtol=1e-14)


def test_a_group_of_one_number_leaves_nothing_but_the_bias():
    y, backward = ops.layer_norm(np.array([[3.0], [7.0]]), np.array([2.0]), np.array([5.0]))
    np.testing.assert_array_equal(y, 5)
    dx, dweight, dbias = backward(np.ones((2, 1)))
    np.testing.assert_array_equal(dx, 0)
    assert (dweight, dbias) == (0, 2)


@settings(max_examples=20)
@given(st.tuples(sizes, st.integers(1, 6), sizes, sizes), st.sampled_from([1e-12, 1e-5, 0.1]), seeds)
def test_unit_length_and_its_gradient_agree_with_pytorch(shape, eps, seed):
    torch = pytest.importorskip("torch")
    x, du = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    expected, (dx,) = torch_gradients(lambda t: t / (torch.norm(t, dim=1, keepdim=True) + eps), du, x)
    u, backward = ops.l2_normalize(x, eps)
    np.testing.assert_allclose(u, expected, rtol=1e-13)
    # Along x nearly all of the gradient cancels, and autograd's digits with it.
    scale = np.abs(du).max() / np.sqrt((x * x).sum(axis=1, keepdims=True))
    assert np.abs((backward(du) - dx) / scale).max() < 1e-14


def test_gradient_along_a_feature_keeps_its_digits():
    x, eps = np.full((1, 1, 1, 1), 700.0), 1e-5
    _, backward = ops.l2_normalize(x, eps)
    np.testing.assert_allclose(backward(np.ones_like(x)), eps / (700 + eps) ** 2, rtol=1e-14)


def test_at_zero_the_length_has_slope_zero_as_in_pytorch():
    torch = pytest.importorskip("torch")
    x, du = np.zeros((1, 3, 1, 2)), normal(1, 3, 1, 2)
    x[0, :, 0, 1] = 1.0
    _, (dx,) = torch_gradients(lambda t: t / (torch.norm(t, dim=1, keepdim=True) + 1e-5), du, x)
    u, backward = ops.l2_normalize(x)
    np.testing.assert_array_equal(u[..., 0], 0)
    np.testing.assert_allclose(backward(du), dx, rtol=1e-13)
    np.testing.assert_allclose(backward(du)[..., 0], du[..., 0] / 1e-5, rtol=1e-13)


@for_each("numbers", [(0.6, -0.8), (1.0, 0.0), (0.0, -1.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_lengths_whose_squares_overflow_or_underflow_are_right(dtype, numbers):
    direction = np.array(numbers, dtype).reshape(1, 2, 1, 1)
    info = np.finfo(dtype)
    for scale in (info.max, np.sqrt(info.max) * 4, dtype(1)):
        u, backward = ops.l2_normalize(direction * scale, 1e-5)
        assert u.dtype == dtype
        np.testing.assert_allclose(u, direction, rtol=2e-5)
        assert np.isfinite(backward(np.ones_like(u))).all()
    for scale in (info.tiny, np.sqrt(info.tiny), dtype(1e-12)):  # of no account beside ε
        u, backward = ops.l2_normalize(direction * scale, 1e-5)
        np.testing.assert_allclose(u, direction * scale / dtype(1e-5), rtol=1e-6)
        np.testing.assert_allclose(backward(np.ones_like(u)), 1e5, rtol=1e-6)


def test_nan_and_infinity_leave_their_mark_on_their_position_alone():
    for value in (np.nan, np.inf, -np.inf):
        x = normal(2, 3, 2, 2)
        x[1, 1, 0, 1] = value
        with np.errstate(invalid="ignore"):
            marked = ~np.isfinite(ops.l2_normalize(x)[0])
        assert marked[1, 1, 0, 1]
        marked[1, :, 0, 1] = False
        assert not marked.any()


def test_unit_length_runs_on_a_device_array():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    x = normal(2, 3, 4, 5).astype(np.float32)
    x[0, :, 0, 0] = 0
    expected, back_host = ops.l2_normalize(x)
    u, backward = ops.l2_normalize(DeviceArray(x))
    assert u.get().tobytes() == expected.tobytes()
    assert backward(u).get().tobytes() == back_host(expected).tobytes()


@given(st.tuples(sizes, sizes, sizes), st.integers(-3, 2), st.sampled_from([1e-9, 0.5]), seeds)
@settings(max_examples=30)
def test_quotients_by_a_sum_and_their_gradient_agree_with_pytorch(shape, axis, eps, seed):
    pytest.importorskip("torch")
    x, dy = np.exp(normal(*shape, seed=seed)), normal(*shape, seed=seed + 1)
    y, backward = ops.sum_normalize(x, axis, eps)
    expected, (theirs,) = torch_gradients(lambda x: x / (x.sum(dim=axis, keepdim=True) + eps), dy, x)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    np.testing.assert_allclose(backward(dy), theirs, rtol=0, atol=1e-12 * np.abs(dy).max() / x.min())


def test_weights_that_are_all_0_stay_0():
    y, backward = ops.sum_normalize(np.zeros((2, 3)))
    assert not y.any()
    np.testing.assert_allclose(backward(np.ones((2, 3))), 1e9)


@settings(max_examples=20)
@given(st.lists(sizes, max_size=2), st.integers(2, 9), st.sampled_from([1e-5, 1.0]), st.sampled_from([0, 1]), seeds)
def test_z_scores_and_their_gradients_agree_with_pytorch(batch, length, eps, correction, seed):
    pytest.importorskip("torch")
    x, dz = normal(*batch, length, seed=seed), normal(*batch, length, seed=seed + 1)

    def published(x):
        deviation = x.std(-1, correction=correction, keepdim=True)
        return (x - x.mean(-1, keepdim=True)) / (deviation + eps)

    expected, [gradient] = torch_gradients(published, dz, x)
    z, backward = ops.z_score(x, eps, correction=correction)
    np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(backward(dz), gradient, rtol=1e-8, atol=1e-10 * max(1, np.abs(gradient).max()))


@pytest.mark.parametrize("shape", [(3, 1), (2, 4)])
def test_numbers_that_are_all_the_same_have_the_score_0_and_a_deviation_without_slope(shape):
    z, backward = ops.z_score(np.full(shape, 0.5))
    assert not z.any()
    dz = normal(*shape)
    np.testing.assert_allclose(backward(dz), (dz - dz.mean(axis=-1, keepdims=True)) / 1e-5, rtol=1e-12)


def test_a_row_of_one_number_has_the_score_0_in_half_precision_too():
    z, _ = ops.z_score(np.full((3, 1), 2, np.float16), eps=np.float16(1e-5))
    np.testing.assert_array_equal(z, 0)
