import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from tests.ops.primitives import normal

IGNORED = -100


@st.composite
def problems(draw, scales=(1.0, 30.0, 1e4)):
    """Logits, and labels of which some are ignored."""
    batch, classes, height, width = (draw(st.integers(1, 5)) for _ in range(4))
    random = np.random.RandomState(draw(st.integers(0, 2**31 - 1)))
    logits = draw(st.sampled_from(scales)) * random.standard_normal((batch, classes, height, width))
    labels = random.randint(0, classes, (batch, height, width))
    labels[random.uniform(size=labels.shape) < draw(st.sampled_from([0, 0.3, 1]))] = draw(st.sampled_from([-100, 255]))
    return logits, labels


def ignore_of(labels):
    return 255 if (labels == 255).any() else IGNORED


def by_scipy(logits, labels):
    """The losses of the counted pixels, end to end."""
    weights = np.moveaxis(scipy.special.log_softmax(logits, axis=1), 1, -1)
    counted = labels != ignore_of(labels)
    return -weights[counted][np.arange(counted.sum()), labels[counted]]


@settings(max_examples=20)
@given(problems())
def test_value_is_the_mean_of_scipys_log_softmax_over_the_counted_pixels(problem):
    logits, labels = problem
    losses = by_scipy(logits, labels)
    value, _ = ops.cross_entropy(logits, labels, ignore_index=ignore_of(labels))
    np.testing.assert_allclose(value, losses.mean() if len(losses) else 0, rtol=1e-13, atol=1e-13)


@settings(max_examples=20)
@given(problems())
def test_value_and_gradient_agree_with_pytorch(problem):
    torch = pytest.importorskip("torch")
    logits, labels = problem
    leaf = torch.tensor(logits, requires_grad=True)
    ignored = ignore_of(labels)
    expected = torch.nn.functional.cross_entropy(leaf, torch.tensor(labels), ignore_index=ignored)
    (0.7 * expected).backward()
    value, backward = ops.cross_entropy(logits, labels, ignore_index=ignored)
    if (labels == ignored).all():  # where the mean of nothing is NaN in PyTorch, and its gradient 0
        assert torch.isnan(expected)
        assert value == 0
    else:
        np.testing.assert_allclose(value, expected.item(), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(backward(0.7), leaf.grad.numpy(), rtol=0, atol=1e-11 / labels.size)


@pytest.mark.parametrize("shift", [1e4, -1e4, 1e300])
def test_large_logits_neither_overflow_nor_lose_the_gradient(shift):
    logits, labels = shift + np.array([0.0, 4096.0, -4096.0]).reshape(1, 3, 1, 1), np.array([[[0]]])
    value, backward = ops.cross_entropy(logits, labels)
    np.testing.assert_allclose(value, 4096 if shift < 1e300 else np.log(3), rtol=1e-12)
    expected = [-1, 1, 0] if shift < 1e300 else [-2 / 3, 1 / 3, 1 / 3]
    np.testing.assert_allclose(backward(1.0).ravel(), expected, rtol=1e-12, atol=1e-300)


@settings(max_examples=20)
@given(problems(), st.floats(-100, 100))
def test_a_number_added_to_all_logits_of_a_pixel_changes_nothing_and_its_gradients_add_up_to_0(problem, shift):
    logits, labels = problem
    (value, backward), (moved, _) = (
        ops.cross_entropy(x, labels, ignore_index=ignore_of(labels)) for x in (logits, logits + shift)
    )
    np.testing.assert_allclose(moved, value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(backward(1.0).sum(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize("gap", [1, 40, 300])
def test_a_loss_far_below_the_rounding_unit_keeps_its_digits_and_so_does_its_gradient(gap):
    logits, labels = np.array([0.0, gap, -1.0]).reshape(1, 3, 1, 1), np.array([[[1]]])
    value, backward = ops.cross_entropy(logits, labels)
    e = np.exp(np.array([-gap, 0.0, -1.0 - gap], np.longdouble))
    np.testing.assert_allclose(value, float(np.log1p(e[0] + e[2])), rtol=1e-14)
    expected = np.array([e[0], -(e[0] + e[2]), e[2]]) / e.sum()
    np.testing.assert_allclose(backward(1.0).ravel(), expected.astype(float), rtol=1e-14)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 1e308])
def test_an_ignored_pixel_has_no_effect_and_no_gradient_whatever_its_logits(spoilt):
    logits, labels = normal(2, 3, 2, 2), np.array([[[0, 255], [2, 1]], [[1, 1], [255, 0]]])
    expected, back = ops.cross_entropy(logits, labels, ignore_index=255)
    ignored = np.broadcast_to((labels == 255)[:, None], logits.shape)
    with np.errstate(invalid="ignore"):
        value, backward = ops.cross_entropy(np.where(ignored, spoilt, logits), labels, ignore_index=255)
        dlogits = backward(1.0)
    assert value == expected
    np.testing.assert_array_equal(dlogits, back(1.0))
    assert (dlogits[ignored] == 0).all()


def test_without_a_counted_pixel_value_and_gradient_are_0_and_nothing_warns():
    value, backward = ops.cross_entropy(normal(2, 3, 2, 2), np.full((2, 2, 2), IGNORED))
    assert value == 0
    np.testing.assert_array_equal(backward(1.0), np.zeros((2, 3, 2, 2)))
    value, backward = ops.cross_entropy(np.ones((0, 3, 2, 2)), np.ones((0, 2, 2), int))
    assert value == 0
    assert backward(1.0).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("label", [3, -1, 255, 2**40])
def test_a_label_that_is_no_class_spoils_the_value_and_the_gradient_of_its_pixel_alone(label):
    labels = np.array([[[0, label], [2, 1]]])
    value, backward = ops.cross_entropy(normal(1, 3, 2, 2), labels)
    assert np.isnan(value)
    dlogits = backward(1.0)
    assert np.isnan(dlogits[:, :, 0, 1]).all()
    assert np.isfinite(dlogits[:, :, [0, 1, 1], [0, 0, 1]]).all()


def test_a_class_may_be_the_one_that_is_ignored():
    logits, labels = normal(1, 3, 2, 2), np.array([[[0, 1], [2, 0]]])
    value, backward = ops.cross_entropy(logits, labels, ignore_index=0)
    moved = np.where(labels == 0, 255, labels)
    expected, back = ops.cross_entropy(logits, moved, ignore_index=255)
    assert value == expected
    np.testing.assert_array_equal(backward(1.0), back(1.0))


def test_impossible_classes_cost_nothing_until_one_is_the_label():
    logits = np.array([0.0, 0.0, -np.inf]).reshape(1, 3, 1, 1)
    value, backward = ops.cross_entropy(logits, np.array([[[1]]]))
    np.testing.assert_allclose(value, np.log(2), rtol=1e-15)
    np.testing.assert_array_equal(backward(1.0).ravel(), [0.5, -0.5, 0])
    assert ops.cross_entropy(logits, np.array([[[2]]]))[0] == np.inf


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_labels_of_any_integers_are_read_alike_and_the_logits_dtype_is_kept(kind, dtype):
    logits, labels = normal(2, 3, 2, 2), np.array([[[0, 1], [2, 0]], [[1, 1], [127, 2]]])
    value, backward = ops.cross_entropy(logits.astype(dtype), labels.astype(kind), ignore_index=127)
    dlogits = backward(dtype(1))
    assert value.dtype == dlogits.dtype == dtype
    expected, back = ops.cross_entropy(logits, labels, ignore_index=127)
    np.testing.assert_allclose(value.astype(float), expected, rtol=1e-6)
    np.testing.assert_allclose(dlogits.astype(float), back(1.0), rtol=1e-5)
    assert np.isfinite(ops.cross_entropy(logits, np.zeros((2, 2, 2), "uint8"))[0])  # -100 is no uint8


def test_a_device_array_gives_the_same_bits():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    logits, labels = normal(2, 3, 4, 5), np.random.RandomState(0).randint(-1, 3, (2, 4, 5))
    value, backward = ops.cross_entropy(logits, labels, ignore_index=-1)
    on_device, back = ops.cross_entropy(DeviceArray(logits), DeviceArray(labels), ignore_index=-1)
    assert on_device.get() == value
    np.testing.assert_array_equal(back(DeviceArray(np.array(2.0))).get(), backward(2.0))


def test_arguments_are_not_written_to():
    logits, labels = normal(2, 3, 2, 2), np.zeros((2, 2, 2), int)
    logits.flags.writeable = labels.flags.writeable = False
    _, backward = ops.cross_entropy(logits, labels)
    np.testing.assert_array_equal(backward(1.0), backward(1.0))


def test_the_gradient_has_the_logits_dtype_whatever_kind_of_number_its_upstream_is():
    logits, labels = normal(2, 3, 2, 2).astype(np.float32), np.zeros((2, 2, 2), int)
    _, backward = ops.cross_entropy(logits, labels)
    for dy in (2.0, 2, np.float64(2), np.int64(2)):
        np.testing.assert_array_equal(backward(dy), backward(np.float32(2)))
        assert backward(dy).dtype == np.float32
