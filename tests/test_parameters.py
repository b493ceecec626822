import functools
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import Module, Pass, oracle, parameters
from tests.naming import for_each

random = np.random.RandomState


def test_he_normal_has_variance_two_over_fan_in():
    values = parameters.he_normal(50, 40, 3, 3).draw(random(0))
    assert values.shape == (50, 40, 3, 3)
    assert np.var(values) == pytest.approx(2 / 360, rel=0.03)
    assert np.mean(values) == pytest.approx(0, abs=0.002)


def test_uniform_fan_in_fills_its_interval():
    values = parameters.uniform_fan_in(100, 25).draw(random(0))
    assert values.min() == pytest.approx(-0.2, rel=0.01)
    assert values.max() == pytest.approx(0.2, rel=0.01)
    assert np.var(values) == pytest.approx(0.04 / 3, rel=0.1)


def test_xavier_uniform_fills_an_interval_by_fan_in_and_fan_out():
    values = parameters.xavier_uniform(50, 40, 2, 3, gain=4).draw(random(0))
    bound = 4 * np.sqrt(6 / (240 + 300))
    assert values.min() == pytest.approx(-bound, rel=0.01)
    assert values.max() == pytest.approx(bound, rel=0.01)
    assert np.var(values) == pytest.approx(bound**2 / 3, rel=0.05)


@for_each(
    "declare",
    [
        parameters.he_normal,
        functools.partial(parameters.he_normal, fan="out"),
        functools.partial(parameters.normal, deviation=0.5),
        parameters.lecun_normal,
        parameters.uniform_fan_in,
        parameters.xavier_uniform,
        parameters.zeros,
        parameters.ones,
    ],
)
def test_sizes_that_are_integers_of_numpy_draw_what_pythons_do(declare):
    given, plain = declare(*map(np.uint8, (16, 64, 3, 3))), declare(16, 64, 3, 3)
    assert repr(given.shape) == repr(plain.shape)
    for generic in (False, True):
        np.testing.assert_array_equal(given.draw(random(0), generic), plain.draw(random(0), generic))


def test_layers_of_sizes_that_are_integers_of_numpy_draw_what_pythons_do():
    pairs = [
        [parameters.conv_parameters("a", *sizes) for sizes in (map(np.uint8, (16, 64, 3)), (16, 64, 3))],
        [parameters.conv_parameters("a", 16, 64, kernel) for kernel in ((np.uint8(3), np.uint8(5)), (3, 5))],
        [parameters.linear_parameters("a", *sizes) for sizes in (map(np.int8, (16, 64)), (16, 64))],
    ]
    for given, plain in pairs:
        for name in plain:
            assert repr(given[name].shape) == repr(plain[name].shape)
            np.testing.assert_array_equal(given[name].draw(random(0)), plain[name].draw(random(0)))


@for_each("prefix", [None, b"a.", Path("a"), ["a."], ("a.", "b."), 3])
def test_a_prefix_that_is_no_text_is_told_as_what_it_is(prefix):
    module = npattn.CATALOGUE["eca"].example()
    calls = [
        lambda: parameters.strip_prefix(prefix, {}),
        lambda: parameters.add_prefix(prefix, {"weight": 1}),
        lambda: module.from_state_dict(module.init(), prefix),
    ]
    for call in calls:
        with pytest.raises(TypeError) as caught:
            call()
        assert f"prefix={prefix!r} is a" in str(caught.value)
        assert str(caught.value).endswith("expected a str, what names begin with: 'layer1.0.se.', say, or '' for none")


@pytest.mark.parametrize(("declare", "value"), [(parameters.zeros, 0), (parameters.ones, 1)])
def test_constants_start_as_such_and_have_generic_values_beside(declare, value):
    parameter = declare(4, 5)
    np.testing.assert_array_equal(parameter.draw(random(0)), np.full((4, 5), value))
    generic = parameter.draw(random(0), generic=True)
    assert generic.shape == (4, 5)
    assert not (generic == value).any()


def test_generic_ones_stay_positive_since_variances_are_among_them():
    assert (parameters.ones(1000).draw(random(0), generic=True) > 0).all()


def test_a_bias_starts_within_the_bounds_of_its_weight_and_fills_them():
    for declared in (parameters.conv_parameters("a", 4000, 4, 5), parameters.linear_parameters("a", 4000, 100)):
        weight, bias = (declared[f"a.{name}"].draw(np.random.RandomState(0)) for name in ("weight", "bias"))
        for values in (weight, bias):
            assert 0.0999 < values.max() < 0.1
            assert -0.1 < values.min() < -0.0999


def test_a_bias_beside_a_weight_that_starts_otherwise_starts_at_zero():
    declared = parameters.linear_parameters("a", 3, 8, initial=parameters.he_normal)
    expected = parameters.he_normal(3, 8).draw(np.random.RandomState(0))
    np.testing.assert_array_equal(declared["a.weight"].draw(np.random.RandomState(0)), expected)
    assert not declared["a.bias"].draw(np.random.RandomState(0)).any()


@pytest.mark.parametrize("declare", [parameters.zeros, parameters.ones])
def test_a_parameter_without_axes_is_an_array(declare):
    random = np.random.RandomState(0)
    assert all(isinstance(declare().draw(random, generic), np.ndarray) for generic in (False, True))


@for_each(
    ("declared", "message"),
    [
        ([parameters.ones(4)], "returns a list; expected a dict of what npattn.parameters makes, by name"),
        (None, "returns a NoneType; expected a dict"),
        ({"w": np.ones(4)}, "declares 'w' as a numpy.ndarray; expected a dict"),
        ({"w": (4,)}, "declares 'w' as a tuple; expected a dict"),
        ({"w": parameters.ones}, "declares 'w' as a function; expected a dict"),
        ({0: parameters.ones(4)}, "declares 0 as a npattn.parameters.Parameter; expected a dict"),
    ],
)
@for_each("of", ["parameters", "buffers"])
@for_each(
    "use",
    [
        lambda module: module.init(),
        lambda module: module({}, np.ones((1, 4, 1, 1))),
        oracle.golden,
        oracle.generic_values,
    ],
)
def test_what_declares_no_parameters_is_told_as_what_it_is(declared, message, of, use):
    class Odd(Module):
        channels = 4

        def forward(self, params, x):
            return Pass(x, lambda dy: (dy, {}))

    setattr(Odd, of, lambda self: declared)
    with pytest.raises(TypeError) as caught:
        use(Odd())
    assert f"Odd(): {of}() {message}" in str(caught.value)
    assert str(caught.value).endswith("such as {'weight': ones(16)}")
