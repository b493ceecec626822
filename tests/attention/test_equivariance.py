import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import CBAMSpatialGate, Compose, Flip, PixelCorrelation, QuarterTurns, Rescale, Translate, equivariance_loss
from npattn.ops import conv2d, sigmoid
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.ops.primitives import normal, torch_gradients, worst_error
from tests.strategies import seeds, sizes
from tests.test_transforms import orthogonal, transforms


def arrays(transform, shape=(2, 3, 5, 4), seed=0):
    """Attention of a transformed image and of the image: any numbers of the right shapes."""
    of_original = normal(*shape, seed=seed)
    return normal(*transform(of_original)[0].shape, seed=seed + 1), of_original


@given(orthogonal, st.tuples(st.integers(1, 3), sizes, sizes, sizes), seeds, st.floats(-9, 9))
def test_value_and_gradients_agree_with_pytorch_under_flips_and_turns(transform, shape, seed, dvalue):
    torch = pytest.importorskip("torch")
    given_ = arrays(transform, shape, seed)

    def published(of_transformed, of_original):
        if isinstance(transform, QuarterTurns):
            moved = torch.rot90(of_original, transform.turns, (2, 3))
        else:
            moved = torch.flip(of_original, [3 if transform.direction == "horizontal" else 2])
        return torch.mean(torch.abs(of_transformed - moved))

    expected, theirs = torch_gradients(published, np.array(dvalue), *given_)
    value, backward = equivariance_loss(*given_, transform)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    for ours, reference in zip(backward(dvalue), theirs, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-13, atol=1e-300)


@given(sizes, sizes, st.booleans(), seeds)
def test_value_and_gradients_agree_with_pytorch_under_rescaling(height, width, align_corners, seed):
    torch = pytest.importorskip("torch")
    transform = Rescale((height, width), align_corners)
    given_ = arrays(transform, seed=seed)

    def published(of_transformed, of_original):
        moved = torch.nn.functional.interpolate(of_original, (height, width), None, "bilinear", align_corners)
        return torch.mean(torch.abs(of_transformed - moved))

    expected, theirs = torch_gradients(published, np.array(1.0), *given_)
    value, backward = equivariance_loss(*given_, transform)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for ours, reference in zip(backward(), theirs, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-12 * np.abs(reference).max())


@pytest.mark.parametrize(
    "transform", [Flip("vertical"), Translate(1, -2), Compose((QuarterTurns(), Rescale((3, 7))))], ids=repr
)
def test_gradients_agree_with_the_complex_step(transform):
    def loss(*given_):
        value, backward = equivariance_loss(*given_, transform)
        return np.reshape(value, (1,)), lambda dvalue: backward(dvalue[0])

    assert worst_error(loss, *arrays(transform)) < 1e-13


@given(transforms, seeds)
def test_attention_that_goes_along_has_no_loss_and_no_gradient(transform, seed):
    _, of_original = arrays(transform, seed=seed)
    value, backward = equivariance_loss(transform(of_original)[0], of_original, transform)
    assert value == 0
    assert not any(gradient.any() for gradient in backward())


@given(transforms, st.floats(0.1, 9), seeds)
def test_the_loss_is_a_mean_that_grows_with_the_difference_and_not_with_the_batch(transform, factor, seed):
    of_transformed, of_original = arrays(transform, seed=seed)
    value, _ = equivariance_loss(of_transformed, of_original, transform)
    np.testing.assert_allclose(value, np.abs(of_transformed - transform(of_original)[0]).mean(), rtol=1e-13)
    larger, _ = equivariance_loss(factor * of_transformed, factor * of_original, transform)
    np.testing.assert_allclose(larger, factor * value, rtol=1e-11)
    twice, _ = equivariance_loss(*(np.concatenate([a, a]) for a in (of_transformed, of_original)), transform)
    np.testing.assert_allclose(twice, value, rtol=1e-12)


@given(orthogonal, seeds)
def test_pixel_correlation_is_equivariant_under_flips_and_turns(transform, seed):
    module = PixelCorrelation.example()
    params, inputs = generic_values(module, seed=seed)
    moved = [transform(x)[0] for x in inputs.values()]
    of_transformed, of_original = module(params, *moved).output, module(params, *inputs.values()).output
    value, _ = equivariance_loss(of_transformed, of_original, transform)
    assert value < 1e-12 * np.abs(of_original).max()


def test_a_spatial_gate_is_equivariant_if_its_kernel_is_symmetric_and_only_then():
    module = CBAMSpatialGate(channels=4, batch_norm=False)
    params, inputs = generic_values(module, height=9, width=8)
    flip, turn = Flip("horizontal"), QuarterTurns()
    ((name, kernel),) = params.items()
    symmetric = (kernel + kernel[..., ::-1]) / 2

    def loss(transform, kernel):
        maps = (module({name: kernel}, x).attention["spatial"] for x in (transform(inputs["x"])[0], inputs["x"]))
        return equivariance_loss(*maps, transform)[0]

    assert loss(flip, kernel) > 0.01
    assert loss(flip, symmetric) < 1e-14
    assert loss(turn, symmetric) > 0.01


def test_the_chain_through_both_branches_is_the_gradient_of_a_shared_kernel():
    transform = Compose((QuarterTurns(), Rescale((6, 6))))
    x = normal(2, 2, 5, 4)
    moved, _ = transform(x)
    kernel, v = normal(1, 2, 3, 3, seed=1), normal(1, 2, 3, 3, seed=2)

    def loss(kernel):
        branches, backs = [], []
        for features in (moved, x):
            z, back_conv = conv2d(features + 0 * kernel[0, 0, 0, 0], kernel, padding=1)
            a, back_sigmoid = sigmoid(z)
            branches.append(a)
            backs.append((back_sigmoid, back_conv))
        value, backward = equivariance_loss(*branches, transform)
        return value, backward, backs

    value, backward, backs = loss(kernel)
    dkernel = sum(back_conv(back_sigmoid(d))[1] for d, (back_sigmoid, back_conv) in zip(backward(), backs, strict=True))
    step = 2.0**-100
    exact = loss(kernel + 1j * step * v)[0].imag / step
    np.testing.assert_allclose((dkernel * v).sum(), exact, rtol=1e-12)
    assert value > 0


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_loss_and_gradients_have_the_dtype_of_the_maps(dtype):
    given_ = [a.astype(dtype) for a in arrays(Rescale((3, 7)))]
    value, backward = equivariance_loss(*given_, Rescale((3, 7)))
    assert value.dtype == dtype
    for dvalue in (1.0, 2, value, np.float64(2), np.longdouble(2), np.int64(2)):
        assert [d.dtype for d in backward(dvalue)] == [dtype, dtype]


@for_each(
    ("dvalue", "error", "message"),
    [
        (np.ones(3), ValueError, "dvalue has shape (3,); expected value's, ()"),
        (np.ones((2, 3, 4, 5)), ValueError, "dvalue has shape (2, 3, 4, 5); expected value's, ()"),
        (np.array(2, np.float32), TypeError, "dvalue has dtype float32 but value has float64"),
        ("2", TypeError, "dvalue='2' is a str; expected a number"),
        ([2.0], TypeError, "dvalue=[2.0] is a list; expected a number"),
    ],
)
def test_what_is_no_number_is_no_gradient_of_the_loss(dvalue, error, message):
    _, backward = equivariance_loss(*arrays(QuarterTurns()), QuarterTurns())
    with pytest.raises(error) as caught:
        backward(dvalue)
    assert str(caught.value).startswith(f"equivariance_loss: {message}")


def test_maps_are_never_written_to_and_gradients_are_fresh():
    given_ = arrays(Flip("vertical"))
    before = [a.copy() for a in given_]
    _, backward = equivariance_loss(*given_, Flip("vertical"))
    first, second = backward(), backward(2.0)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(2 * one, two)
        assert not np.shares_memory(one, two)
        one[...] = 7
    np.testing.assert_array_equal(backward(2.0), second)
    for a, b in zip(given_, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_loss_runs_on_a_device_array():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    transform = Compose((Flip("vertical"), Translate(0, 1), Rescale((3, 7))))
    host = [a.astype(np.float32) for a in arrays(transform)]
    expected, back_host = equivariance_loss(*host, transform)
    value, backward = equivariance_loss(*map(DeviceArray, host), transform)
    assert value.get() == expected
    for ours, theirs in zip(backward(), back_host(), strict=True):
        assert ours.get().tobytes() == theirs.tobytes()


def test_nan_and_infinity_show_in_the_loss():
    for which in (0, 1):
        for value in (np.nan, np.inf, -np.inf):
            given_ = arrays(Flip("vertical"))
            given_[which][1, 2, 3, 1] = value
            assert not np.isfinite(equivariance_loss(*given_, Flip("vertical"))[0])


@for_each(
    ("change", "error", "message"),
    [
        (
            lambda r, o, t: (r[:, :2], o, t),
            ValueError,
            "of_transformed has shape (2, 2, 4, 5); expected (2, 3, 4, 5), which QuarterTurns(turns=1) makes of "
            "of_original's (2, 3, 5, 4)",
        ),
        (lambda r, o, t: (r.astype(np.float32), o, t), TypeError, "of_transformed has dtype float32 but of_original"),
        (lambda r, o, t: (r, o[0], t), ValueError, "of_original has shape (3, 5, 4); expected 4 axes"),
        (lambda r, o, t: (r.tolist(), o, t), TypeError, "of_transformed is a list; expected an array"),
        (lambda r, o, t: (r, o.astype(int), t), TypeError, "of_original has dtype int64; expected floating point"),
        (lambda r, o, t: (r, o, "flip"), TypeError, "transform is a str; expected one such as Flip('horizontal')"),
        (lambda r, o, t: (r[:0], o[:0], t), ValueError, "of_transformed has shape (0, 3, 4, 5); expected at least one"),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(change, error, message):
    transform = QuarterTurns()
    with pytest.raises(error) as caught:
        equivariance_loss(*change(*arrays(transform), transform))
    assert caught.type is error
    assert str(caught.value).startswith(f"equivariance_loss: {message}")
    assert "\n" not in str(caught.value)
