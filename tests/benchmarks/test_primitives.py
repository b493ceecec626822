import numpy as np
import pytest

from npattn import ops
from npattn.module import as_tuple
from npattn.oracle import FORMATS
from npattn.oracle.formats import representable
from tests.benchmarks import kernels, primitives

random = np.random.RandomState(0)


def draw(*shape):
    return random.standard_normal(shape)


def assert_same(primitive, reference, *args, **options):
    """Hold value and gradients of a primitive against its namesake's in `npattn.ops`."""
    value, backward = primitive(*args, **options)
    expected, back = reference(*args, **options)
    outputs = as_tuple(expected)
    dy = [draw(*y.shape) for y in outputs]
    found = (*as_tuple(value)[: len(outputs)], *as_tuple(backward(*dy)))
    for ours, theirs in zip(found, (*outputs, *as_tuple(back(*dy))), strict=True):
        if theirs is None:
            assert ours is None
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("base_2", [False, True])
@pytest.mark.parametrize("block", [1, 7, 16, 64])
def test_attention_in_blocks_is_attention(block, base_2):
    q, k, v = 3 * draw(2, 3, 4, 19), 3 * draw(2, 3, 4, 23), draw(2, 3, 5, 23)

    def blocks(*args):
        return primitives.online_attention(*args, block=block, base_2=base_2)

    assert_same(blocks, ops.dot_product_attention, q, k, v, 0.6)


def test_attention_in_blocks_rounds_what_it_is_told_to():
    q, k, v = (draw(1, 4, 9).astype(np.float32) for _ in range(3))
    narrow = primitives.narrowing(FORMATS["bfloat16"])
    o, backward = primitives.online_attention(q, k, v, block=4, narrow=narrow)
    expected, back = ops.dot_product_attention(q, k, v)
    for ours, theirs in zip((o, *backward(v)), (expected, *back(v)), strict=True):
        assert 1e-4 < np.abs(ours - theirs).max() < 0.1


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    "geometry", [{}, {"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": (2, 3), "padding": 2}]
)
def test_a_convolution_by_taps_is_a_convolution(geometry, biased, groups):
    x, weight = draw(2, 4, 7, 8), draw(6, 4 // groups, 3, 2)
    bias = draw(6) if biased else None
    assert_same(primitives.convolution_by_taps, ops.conv2d, x, weight, bias, **geometry, groups=groups)


@pytest.mark.parametrize("bias", [None, draw(5)])
def test_a_layer_by_images_is_a_layer(bias):
    assert_same(primitives.fully_connected_by_images, ops.linear, draw(3, 4), draw(5, 4), bias)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("primitive", [primitives.norm_in_one_pass, primitives.textbook["batch_norm"]])
def test_batch_norms_are_batch_norm(primitive, training):
    values = draw(3, 4, 5, 6), draw(4), draw(4), draw(4), np.exp(draw(4))
    (y, running), backward = primitive(*values, training=training)
    (expected, remembered), back = ops.batch_norm(*values, training=training)
    dy = draw(*y.shape)
    for ours, theirs in zip((y, *running, *backward(dy)), (expected, *remembered, *back(dy)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "l2_normalize", "global_lp_pool"])
def test_textbook_primitives_are_those_of_ops(name):
    assert_same(primitives.textbook[name], getattr(ops, name), draw(2, 3, 4, 5))


def test_textbook_products_are_those_of_ops():
    q, k, v = draw(2, 4, 9), draw(2, 4, 8), draw(2, 3, 8)
    assert_same(primitives.textbook["dot_product_attention"], ops.dot_product_attention, q, k, v, 0.5)
    assert_same(primitives.textbook["affinity_sums"], ops.affinity_sums, k, v)


def test_a_sigmoid_by_tanh_is_one():
    assert_same(primitives.sigmoid_by_tanh, ops.sigmoid, draw(20))


def test_windows_from_an_integral_image_are_averages_of_windows():
    assert_same(primitives.integral_windows, ops.window_average, draw(2, 3, 9, 8), 4, 3)
    assert_same(primitives.integral_windows, ops.window_average, draw(1, 2, 3, 8), 5, 2)


def test_functions_err_by_less_than_2_ulp_and_by_more_than_half_a_one():
    x = np.linspace(0.1, 4, 10_001, dtype=np.float32)
    for name, function in primitives.imprecise().items():
        exact = getattr(np, name)(x.astype(float))
        errors = np.abs(function(x) - exact) / np.spacing(np.abs(exact).astype(np.float32))
        assert 0.6 < errors.max() <= 2.01, name
        room = np.empty_like(x)
        assert function(x, out=room) is room


def test_exponentials_by_powers_of_2_are_exponentials():
    functions, x = primitives.powers_of_2(), draw(20)
    np.testing.assert_allclose(functions["exp"](x), np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(functions["log"](np.exp(x)), x, rtol=1e-13, atol=1e-14)


def test_primitives_are_rounded_once_forward_and_once_backward():
    bfloat16 = FORMATS["bfloat16"]
    found = primitives.rounding_between(bfloat16)
    assert {"conv2d", "gate", "softmax", "max_pool", "top"} < set(found)
    x, a = (draw(*shape).astype(np.float32) for shape in ((2, 3, 4, 5), (2, 3)))
    y, backward = found["gate"](x, a)
    for array in (y, *backward(x)):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, representable(array.astype(float), bfloat16))
    right, back = ops.gate(x, a)
    np.testing.assert_allclose(y, right, rtol=2**-8)
    np.testing.assert_allclose(backward(x)[1], back(x)[1], rtol=2**-8)


@pytest.mark.parametrize("name", ["global_average_pool", "global_max_pool"])
def test_rounded_pools_add_to_another_gradient(name):
    x, accumulate_into = (draw(2, 3, 4, 5).astype(np.float32) for _ in range(2))
    _, backward = primitives.rounding_between(FORMATS["float32"])[name](x)
    dp = draw(2, 3).astype(np.float32)
    np.testing.assert_allclose(backward(dp, accumulate_into=accumulate_into), accumulate_into + backward(dp), rtol=1e-6)


def test_sums_are_split_into_parts():
    a = draw(3, 35)
    split = kernels.SplitSums(4)
    assert [len(part) for part in split.parts(7)] == [2, 2, 2, 1]
    assert [len(part) for part in split.parts(2)] == [1, 1]
    np.testing.assert_allclose(split.array(a).sum(axis=1), a.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(split.array(a) @ a.T, a @ a.T, rtol=1e-12)


@pytest.mark.parametrize("base_2", [False, True])
@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("hiding", [{}, {"band": (-3, 1)}, {"lengths": np.array([[0.0], [5.0]])}])
def test_masked_attention_in_blocks_of_keys_is_the_definition(hiding, block, base_2):
    random = np.random.RandomState(0)
    q, k, v, do = (random.standard_normal((2, 3, *shape)) for shape in ((4, 7), (4, 9), (5, 9), (5, 7)))
    options = hiding | {"softcap": 1.5, "bias": random.standard_normal((3, 7, 9)), "sink": random.standard_normal(3)}
    options["mask"] = (random.uniform(size=(1, 7, 9)) < 0.5).astype(float)
    dl = random.standard_normal((2, 3, 7))
    (o, log_sum), backward = ops.masked_attention(q, k, v, 0.5, **options)
    values, back = primitives.online_masked_attention(q, k, v, 0.5, **options, block=block, base_2=base_2)
    for ours, theirs in zip((*values, *back(do, dl)), (o, log_sum, *backward(do, dl)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
