import numpy as np
import pytest
from hypothesis import given, settings

import npattn
from npattn import Module, Pass
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.strategies import SYSTEMS, cases


@given(cases())
@settings(max_examples=50)
def test_no_generic_number_is_special(case):
    module, params, inputs = case
    assert {name: value.shape for name, value in params.items()} == module.parameter_shapes() | module.buffer_shapes()
    masks = {name: value for name, value in inputs.items() if name.startswith("drop") or name in ("mask", "lengths")}
    for name, value in masks.items():
        assert name == "lengths" or set(np.unique(value)) <= {0, 1}
    for value in [*params.values(), *(value for name, value in inputs.items() if name not in masks)]:
        assert not np.isin(value, [-1, 0, 1]).any()
        assert np.unique(value).size == value.size
        assert np.isfinite(value).all()


def test_inputs_and_parameters_come_from_different_streams():
    params, inputs = generic_values(SYSTEMS[0].example(), batch=3)
    everything = np.concatenate([value.ravel() for value in [*params.values(), *inputs.values()]])
    ratios = inputs["x"].ravel()[:100] / params["fc1.weight"].ravel()[:100]
    assert np.std(ratios) > 0.1
    assert np.unique(everything).size == everything.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_seed_decides(dtype):
    module = SYSTEMS[0].example()
    first, again, other = (generic_values(module, seed=seed, dtype=dtype) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        for name, value in one.items():
            assert value.dtype == dtype
            np.testing.assert_array_equal(value, two[name])
            assert (value != three[name]).any()


def test_the_stream_is_frozen():
    """The first numbers of seed 0, as every NumPy version draws them (NEP 19)."""
    params, inputs = generic_values(npattn.EfficientChannelAttention.example())
    uniform = [0.09762701, 0.43037873, 0.20552675]
    np.testing.assert_allclose(params["conv.weight"].ravel() * np.sqrt(3), uniform, rtol=1e-6)
    np.testing.assert_allclose(inputs["x"].ravel()[:3], [-1.24971784, -0.02548454, -0.32206773], rtol=1e-6)


@pytest.mark.parametrize(("name", "least"), [("batch", 0), ("height", 1), ("width", 1)])
def test_sizes_below_their_least_are_refused_by_name(name, least):
    with pytest.raises(ValueError, match=f"{name}={least - 1}; expected an integer of at least {least}"):
        generic_values(SYSTEMS[0].example(), **{name: least - 1})


def test_what_is_no_system_and_no_seed_are_refused():
    for system, words in (("se", "module is the key 'se'; expected an instance"), (None, "module is a NoneType")):
        with pytest.raises(TypeError, match=words):
            generic_values(system)
    for seed in (None, "x", 2.5, -1, 2**32):
        with pytest.raises((TypeError, ValueError), match=r"generic_values: seed=.*expected an int"):
            generic_values(SYSTEMS[0].example(), seed=seed)


@for_each(
    ("drawn", "error", "message"),
    [
        (np.ones(3), ValueError, "x is drawn of shape (3,); expected (2, 4, 5, 4): draw_input(name, shape, random)"),
        (1j * np.ones((2, 4, 5, 4)), TypeError, "x is drawn of dtype complex128; expected real numbers"),
        (np.full((2, 4, 5, 4), "a"), TypeError, "x is drawn of dtype <U1; expected real numbers"),
    ],
)
def test_inputs_that_a_system_draws_otherwise_than_it_says_are_refused(drawn, error, message):
    class Odd(Module):
        channels = 4

        def draw_input(self, name, shape, random):
            return drawn

        def forward(self, params, x):
            return Pass(x, lambda dy: (dy, {}))

    class Renamed(Odd):
        def draw_inputs(self, shapes, random):
            return {"y": drawn}

    with pytest.raises(error) as caught:
        generic_values(Odd())
    assert f"Odd(): {message}" in str(caught.value)
    with pytest.raises(ValueError, match="draw_inputs returns y; expected x"):
        generic_values(Renamed())
