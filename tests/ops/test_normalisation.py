import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal, torch_gradients, worst_error
from tests.strategies import seeds, sizes


def arrays(shape, seed=0):
    """A map, scale and shift, and running statistics."""
    random = np.random.RandomState(seed)
    channels = shape[1]
    x = random.standard_normal(shape) * 2 + random.standard_normal((channels, 1, 1))
    positive = random.uniform(0.5, 2, (2, channels))
    return x, positive[0], random.standard_normal(channels), random.standard_normal(channels), positive[1]


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


@pytest.mark.parametrize("training", [False, True])
def test_gradients_agree_with_the_complex_step(training):
    x, weight, bias, mean, variance = arrays((3, 2, 2, 3))

    def primitive(x, weight, bias):
        (y, _), backward = ops.batch_norm(x, weight, bias, mean, variance, training=training)
        return y, backward

    assert worst_error(primitive, x, weight, bias) < 1e-12


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
