import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn import ops
from npattn.calls import as_tuple
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes

rates = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


@st.composite
def masked(draw):
    """A map, a keep mask of its leading axes, some of them of length 1, and a rate."""
    shape = draw(st.tuples(sizes, sizes, sizes, sizes))
    kept = [draw(st.sampled_from([1, length])) for length in shape[: draw(st.integers(1, 4))]]
    seed = draw(seeds)
    mask = np.random.RandomState(seed).randint(0, 2, kept).astype(float)
    return normal(*shape, seed=seed), mask, draw(rates)


@settings(max_examples=20)
@given(masked())
def test_what_is_kept_is_scaled_up_and_the_rest_is_zero_forward_and_backward(case):
    x, mask, rate = case
    full = np.broadcast_to(mask.reshape(mask.shape + (1,) * (4 - mask.ndim)), x.shape)
    y, backward = ops.dropout(x, mask, rate)
    for result, given_array in ((y, x), (backward(x), x)):
        assert not result[full == 0].any()
        np.testing.assert_allclose(result[full == 1], given_array[full == 1] / (1 - rate), rtol=1e-15)


def test_mean_over_all_masks_weighted_by_their_probability_is_the_input():
    x, rate, mean = normal(1, 3, 2, 2), 0.3, 0
    for bits in itertools.product([0.0, 1.0], repeat=3):
        probability = np.prod([rate if bit == 0 else 1 - rate for bit in bits])
        mean = mean + probability * ops.dropout(x, np.array([bits]), rate)[0]
    np.testing.assert_allclose(mean, x, rtol=1e-14)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("name", ["dropout", "dropout2d"])
def test_dropout_agrees_with_pytorch_under_the_mask_that_it_drew(rate, name):
    torch = pytest.importorskip("torch")
    x, dy = normal(4, 16, 3, 2), normal(4, 16, 3, 2, seed=1)
    torch.manual_seed(0)
    y, (dx,) = torch_gradients(lambda t: getattr(torch.nn.functional, name)(t, rate, training=True), dy, x)
    mask = (y != 0).astype(float)
    mask = mask[:, :, 0, 0] if name == "dropout2d" else mask
    assert 0 < mask.mean() < 1
    value, backward = ops.dropout(x, mask, rate)
    np.testing.assert_allclose(value, y, rtol=1e-15)
    np.testing.assert_allclose(backward(dy), dx, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_dropout_keeps_the_dtype_and_its_digits(dtype):
    x = np.ones((1, 2, 1, 1), dtype)
    y, backward = ops.dropout(x, np.ones((1, 2), dtype), 0.75)
    assert y.dtype == backward(x).dtype == dtype
    np.testing.assert_array_equal(y, 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.complex128])
def test_a_mask_of_any_dtype_leaves_that_of_the_map(dtype):
    x = normal(2, 3, 4, 5).astype(dtype)
    kept = np.random.RandomState(0).randint(0, 2, (2, 3))
    expected, backward = ops.dropout(x, kept.astype(x.real.dtype), 0.3)
    for mask in (kept, kept.astype(bool), kept.astype(np.uint8), kept.astype(np.float64)):
        y, back = ops.dropout(x, mask, 0.3)
        assert y.dtype == back(x).dtype == dtype
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(back(x), backward(x))


@for_each("key", ["danet", "multi-scale"])
def test_systems_in_training_take_masks_of_integers_and_booleans(key):
    module = dataclasses.replace(npattn.CATALOGUE[key].example(), training=True)
    params, inputs = generic_values(module)
    params, inputs = ({name: a.astype(np.float32) for name, a in given.items()} for given in (params, inputs))
    expected = as_tuple(module(params, *inputs.values()).output)
    for kind in (np.int64, bool):
        masks = {name: a.astype(kind) for name, a in inputs.items() if name in module.without_gradient}
        assert masks
        run = module(params, *(inputs | masks).values())
        for ours, theirs in zip(as_tuple(run.output), expected, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)
        dx, _ = run.backward(run.output)
        assert dx[0].dtype == np.float32
