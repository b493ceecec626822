from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import transforms as module
from npattn.transforms import Compose, Flip, QuarterTurns, Rescale, Translate
from tests.naming import for_each
from tests.ops.primitives import normal, worst_error
from tests.strategies import seeds, sizes

orthogonal = st.sampled_from(["horizontal", "vertical"]).map(Flip) | st.integers(-5, 5).map(QuarterTurns)
simple = (
    orthogonal
    | st.builds(Translate, st.integers(-7, 7), st.integers(-7, 7))
    | st.builds(Rescale, st.tuples(sizes, sizes), st.booleans())
)
transforms = simple | st.lists(simple, max_size=4).map(tuple).map(Compose)
shapes = st.tuples(st.integers(0, 3), sizes, sizes, sizes)


class Size(NamedTuple):
    """A size with names."""

    height: int
    width: int


@given(transforms, shapes, seeds)
def test_forward_and_backward_are_adjoint(transform, shape, seed):
    x = normal(*shape, seed=seed)
    y, backward = transform(x)
    dy = normal(*y.shape, seed=seed + 1)
    dx = backward(dy)
    assert dx.shape == x.shape
    scale = np.linalg.norm(y) * np.linalg.norm(dy)
    np.testing.assert_allclose(np.sum(y * dy), np.sum(x * dx), rtol=0, atol=1e-13 * scale + 1e-300)


@given(transforms, seeds)
def test_transforms_are_linear(transform, seed):
    x, other = normal(2, 1, 5, 4, seed=seed), normal(2, 1, 5, 4, seed=seed + 1)
    np.testing.assert_allclose(
        transform(2 * x - other)[0], 2 * transform(x)[0] - transform(other)[0], rtol=1e-11, atol=1e-12
    )


@given(orthogonal, shapes, seeds)
def test_flips_and_turns_are_undone_by_their_adjoints(transform, shape, seed):
    x = normal(*shape, seed=seed)
    y, backward = transform(x)
    np.testing.assert_array_equal(backward(y), x)


@pytest.mark.parametrize(
    "transform", [Translate(1, -2), Rescale((3, 9)), Compose((QuarterTurns(), Rescale((7, 2), True)))]
)
def test_gradients_agree_with_the_complex_step(transform):
    assert worst_error(transform, normal(2, 1, 5, 4)) < 1e-13


def test_each_transform_does_what_its_name_says():
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    moved = {
        Flip("horizontal"): [[2, 1, 0], [5, 4, 3]],
        Flip("vertical"): [[3, 4, 5], [0, 1, 2]],
        QuarterTurns(): [[2, 5], [1, 4], [0, 3]],
        QuarterTurns(-1): [[3, 0], [4, 1], [5, 2]],
        QuarterTurns(2): [[5, 4, 3], [2, 1, 0]],
        Translate(1, 0): [[0, 0, 0], [0, 1, 2]],
        Translate(-1, 1): [[0, 3, 4], [0, 0, 0]],
        Translate(): [[0, 1, 2], [3, 4, 5]],
        Translate(0, 3): [[0, 0, 0], [0, 0, 0]],
        Translate(-2, 0): [[0, 0, 0], [0, 0, 0]],
        Rescale((1, 2), True): [[0, 2]],
        Compose((Translate(1, 0), Flip("vertical"))): [[0, 1, 2], [0, 0, 0]],
        Compose((Flip("vertical"), Translate(1, 0))): [[0, 0, 0], [3, 4, 5]],
        Compose(()): [[0, 1, 2], [3, 4, 5]],
    }
    for transform, expected in moved.items():
        np.testing.assert_array_equal(transform(x)[0][0, 0], expected, err_msg=str(transform))


@given(st.integers(0, 9), shapes)
def test_four_quarter_turns_and_two_flips_leave_a_map_as_it_was(turns, shape):
    x = normal(*shape)
    for back in ((QuarterTurns(turns), QuarterTurns(4 - turns % 4)), (Flip("vertical"),) * 2):
        np.testing.assert_array_equal(Compose(back)(x)[0], x)


def test_what_a_translation_loses_has_no_gradient():
    x = normal(1, 2, 4, 5)
    _, backward = Translate(-1, 2)(x)
    dx = backward(np.ones_like(x))
    expected = np.zeros_like(x)
    expected[:, :, 1:, :3] = 1
    np.testing.assert_array_equal(dx, expected)


@given(transforms)
def test_results_are_the_callers_own_and_writeable(transform):
    x = normal(2, 1, 5, 4)
    x.flags.writeable = False
    y, backward = transform(x)
    dy = normal(*y.shape)
    for result, given_ in ((y, x), (backward(dy), dy)):
        assert result.flags.writeable
        assert not np.shares_memory(result, given_)


@given(transforms)
def test_a_transform_is_a_value(transform):
    assert eval(repr(transform), vars(module)) == transform
    assert hash(transform) == hash(eval(repr(transform), vars(module)))


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_dtype_is_kept(dtype):
    x = normal(1, 1, 4, 5).astype(dtype)
    transform = Compose((Flip("vertical"), QuarterTurns(), Translate(1, 1), Rescale((3, 7))))
    y, backward = transform(x)
    assert y.dtype == dtype
    assert dtype is np.complex128 or backward(y).dtype == dtype


@for_each(
    ("given", "plain"),
    [
        (Translate(np.uint8(1), np.uint8(2)), Translate(1, 2)),
        (Translate(np.int8(-1), np.int64(2)), Translate(-1, 2)),
        (Rescale((np.int64(4), np.uint8(9))), Rescale((4, 9))),
        (Rescale(Size(np.int64(4), np.int64(9)), True), Rescale((4, 9), True)),
        (QuarterTurns(np.uint8(3)), QuarterTurns(3)),
        (Flip(np.str_("vertical")), Flip("vertical")),
    ],
)
def test_integers_of_numpy_are_pythons(given, plain):
    assert repr(given) == repr(plain)
    x = normal(1, 2, 5, 4).astype(np.float32)
    for result, expected in zip(there_and_back(given, x), there_and_back(plain, x), strict=True):
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, expected)


def there_and_back(transform, x):
    y, backward = transform(x)
    return y, backward(y)


@for_each(
    ("dy", "error", "told"),
    [
        (np.ones((1, 2, 4, 5)), ValueError, "dy has shape (1, 2, 4, 5); expected y's, (1, 2, 5, 4)"),
        (np.ones((5, 4)), ValueError, "dy has shape (5, 4); expected y's"),
        (np.ones((1, 2, 5, 4), np.float32), TypeError, "dy has dtype float32 but y has float64"),
        (np.ones((1, 2, 5, 4), int), TypeError, "dy has dtype int64; expected floating point"),
        (np.ma.ones((1, 2, 5, 4)), TypeError, "dy is a masked array"),
        (np.ones((1, 2, 5, 4)).tolist(), TypeError, "dy is a list; expected an array"),
        (3.0, TypeError, "dy is a float; expected an array"),
        (None, TypeError, "dy is a NoneType; expected an array"),
    ],
)
def test_what_is_no_gradient_of_a_transformed_map_is_refused_with_a_reason(dy, error, told):
    for transform in (Flip("vertical"), QuarterTurns(2), Translate(1, 1), Rescale((5, 4)), Compose(())):
        _, backward = transform(normal(1, 2, 5, 4))
        with pytest.raises(error) as caught:
            backward(dy)
        assert str(caught.value).startswith(f"{transform}: {told}")


def test_tensors_are_no_gradients_of_a_transformed_map():
    torch = pytest.importorskip("torch")
    _, backward = Flip("vertical")(normal(1, 2, 5, 4))
    with pytest.raises(TypeError, match=r"dy is a torch\.Tensor; expected an array"):
        backward(torch.ones(1, 2, 5, 4, dtype=torch.float64))


def test_transforms_run_on_a_device_array():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    x = normal(2, 3, 4, 5).astype(np.float32)
    transform = Compose((Flip("vertical"), QuarterTurns(), Translate(-1, 1), Rescale((3, 7)), Flip("horizontal")))
    expected, back_host = transform(x)
    y, backward = transform(DeviceArray(x))
    assert y.get().tobytes() == expected.tobytes()
    assert backward(y).get().tobytes() == back_host(expected).tobytes()


@for_each(
    ("make", "error", "message"),
    [
        (lambda: Flip("sideways"), ValueError, "Flip: direction='sideways' (expected 'horizontal' or 'vertical')"),
        (lambda: Flip("horizontl"), ValueError, "Flip: direction='horizontl'; did you mean 'horizontal'?"),
        (lambda: Flip(3), TypeError, "Flip: direction=3 is an int; expected 'horizontal' or 'vertical'"),
        (lambda: QuarterTurns(0.5), TypeError, "QuarterTurns: turns=0.5 is a float; expected an int"),
        (lambda: Translate(1, True), TypeError, "Translate: columns=True is a bool; expected an int"),
        (lambda: Rescale(5), TypeError, "Rescale: size=5; expected a tuple of two integers, (height, width)"),
        (lambda: Rescale((5,)), ValueError, "Rescale: size=(5,); expected a tuple of two integers, (height, width)"),
        (lambda: Rescale((5, 0)), ValueError, "Rescale: width=0; expected an integer of at least 1"),
        (lambda: Rescale((5, 0.3)), TypeError, "Rescale: width=0.3 is a float; expected an int"),
        (lambda: Rescale((5, 5), 1), TypeError, "Rescale: align_corners=1 is an int; expected True or False"),
        (
            lambda: Compose(Translate()),
            TypeError,
            "Compose: parts=Translate(rows=0, columns=0) is a npattn.transforms.Translate; expected a tuple",
        ),
        (lambda: Compose((3,)), TypeError, "Compose: parts holds 3, an int; expected transforms, such as Flip("),
    ],
)
def test_impossible_transforms_are_refused_with_a_reason(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert caught.type is error
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((3, 4)), ValueError, "x has shape (3, 4); expected 4 axes, (batch, channels, height, width)"),
        (np.ones((2, 3, 4)), ValueError, "x has shape (2, 3, 4); expected 4 axes"),
        (np.ones((1, 2, 0, 4)), ValueError, "x has shape (1, 2, 0, 4); expected at least one position"),
        (np.ones((1, 2, 3, 4), int), TypeError, "x has dtype int64; expected floating point"),
        ([[1.0]], TypeError, "x is a list; expected an array"),
    ],
)
@pytest.mark.parametrize("transform", [Flip("vertical"), Rescale((2, 2)), Compose(())], ids=repr)
def test_what_is_no_map_is_refused_with_a_reason(transform, x, error, message):
    with pytest.raises(error) as caught:
        transform(x)
    assert str(caught.value).startswith(f"{transform}: {message}")
    assert "\n" not in str(caught.value)


def test_the_base_class_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        module.Transform()
