"""What is validated of a call, for systems with inputs of any rank and for systems that are not as they should be."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import Module, Pass
from npattn.calls import find_sizes
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.own_systems import OWN_SYSTEMS, CausalHead, LogitLoss, RMSNorm, TwoGate
from tests.strategies import SYSTEMS

own_systems = pytest.mark.parametrize("system", OWN_SYSTEMS, ids=lambda system: system.__name__)


class Shaped(Module):
    """A system of which nothing but the shapes of its inputs counts."""

    def __init__(self, shapes):
        object.__setattr__(self, "shapes", shapes)

    def input_shapes(self, batch, height, width):
        return {f"x{i}": shape(batch, height, width) for i, shape in enumerate(self.shapes)}

    def forward(self, params, *inputs):
        raise NotImplementedError


SHAPES = [
    [lambda b, h, w: (b, 8, h, w)],
    [lambda b, h, w: (b, h * w, 8)],
    [lambda b, h, w: (b * h * w, 8)],
    [lambda b, h, w: (b, 1 + h * w, 8)],
    [lambda b, h, w: (b, -(-h // 2), -(-w // 2), 8)],
    [lambda b, h, w: (b, 4, h, 8), lambda b, h, w: (b, 4, w, 8), lambda b, h, w: (h, w)],
    [lambda b, h, w: (h * w, h * w), lambda b, h, w: (b, h, w)],
    [lambda b, h, w: (3 * b,), lambda b, h, w: ()],
    [lambda b, h, w: (5, 7)],
]


@given(st.sampled_from(SHAPES), st.integers(0, 5), st.integers(1, 9), st.integers(1, 9))
def test_sizes_are_found_that_make_the_inputs_shapes(shapes, batch, height, width):
    module = Shaped(shapes)
    declared = module.input_shapes(batch, height, width)
    inputs = [np.empty(shape) for shape in declared.values()]
    assert module.input_shapes(*find_sizes(module, inputs)) == declared
    module.check_inputs(tuple(inputs))


@own_systems
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_inputs_of_any_rank_are_taken_and_gradients_have_their_shapes(system, batch, height, width):
    module = system.example()
    if getattr(module, "training", False) and batch * height * width < 2:
        return
    params, inputs = generic_values(module, batch=batch, height=height, width=width)
    run = module(params, *inputs.values())
    assert run.output.shape == module.output_shapes(batch, height, width)["output"]
    dx, grads = run.backward(np.ones_like(run.output))
    dx = dx if isinstance(dx, tuple) else (dx,)
    expected = [None if name in module.without_gradient else x.shape for name, x in inputs.items()]
    assert [None if d is None else d.shape for d in dx] == expected
    assert {name: g.shape for name, g in grads.items()} == module.parameter_shapes()


TOKENS = np.ones((2, 5, 4))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.ones((5, 4))], r"x has shape \(5, 4\); expected 3 axes, \(batch, height \* width, 4\)"),
        ([np.ones((2, 4, 5, 1))], r"x has shape \(2, 4, 5, 1\); expected 3 axes, \(batch, height \* width, 4\)"),
        ([np.ones((2, 5, 3))], r"x has shape \(2, 5, 3\); expected \(2, 5, 4\)$"),
        ([np.ones(4)], r"x has shape \(4,\); expected 3 axes"),
    ],
)
def test_inputs_that_are_no_maps_are_told_of_their_own_axes(inputs, message):
    with pytest.raises(ValueError, match=message) as caught:
        RMSNorm().check_inputs(tuple(inputs))
    assert "(batch, channels, height, width)" not in str(caught.value)


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_the_input_that_does_not_go_with_the_others_is_named(changed):
    module = CausalHead()
    _, inputs = generic_values(module, batch=2, height=3, width=5)
    name = list(inputs)[changed]
    inputs[name] = np.ones((*inputs[name].shape[:-1], 1 + inputs[name].shape[-1]))
    with pytest.raises(ValueError, match=f"CausalHead.*: {name} has shape .*; expected "):
        module.check_inputs(tuple(inputs.values()))


@dataclass(frozen=True)
class Doubled(Module):
    """A system that says nothing of its inputs."""

    channels: int = 4

    def forward(self, params, x):
        return Pass(2 * x, lambda dy: (2 * dy, {}))


def test_a_system_that_does_not_say_what_its_inputs_are_is_told_how():
    with pytest.raises(ValueError, match=r"unless Doubled says otherwise: override input_shapes\(batch"):
        Doubled()({}, TOKENS)

    class Nameless(Module):
        def forward(self, params, x):
            return Pass(x, lambda dy: (dy, {}))

    with pytest.raises(TypeError, match=r"Nameless\(\): nothing says what its inputs are; define input_shapes"):
        Nameless()({}, TOKENS)


@for_each("system", SYSTEMS)
def test_systems_of_the_catalogue_are_not_told_to_override_anything(system):
    module = system.example()
    params, inputs = generic_values(module)
    with pytest.raises(ValueError, match="expected 4 axes") as caught:
        module(params, *(x[0] for x in inputs.values()))
    assert "override" not in str(caught.value)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_inputs_without_a_gradient_may_be_of_booleans_or_integers_and_others_not(dtype):
    module = CausalHead()
    params, inputs = generic_values(module, dtype=np.float32)
    expected = module(params, *inputs.values()).output
    inputs["mask"] = inputs["mask"].astype(dtype)
    run = module(params, *inputs.values())
    np.testing.assert_array_equal(run.output, expected)
    assert run.backward(run.output)[0][3] is None
    with pytest.raises(TypeError, match="k has dtype int64; expected floating point"):
        module(params, inputs["q"], inputs["k"].astype(int), inputs["v"], inputs["mask"])


def test_the_gradient_of_an_input_that_has_none_is_dropped():
    class Zealous(CausalHead):
        def forward(self, params, *inputs):
            run = super().forward(params, *inputs)
            return replace(run, backward=lambda dy: ((*run.backward(dy)[0][:3], np.ones(3)), {}))

    params, inputs = generic_values(Zealous())
    run = Zealous()(params, *inputs.values())
    assert run.backward(run.output)[0][3] is None


class Lifted(RMSNorm):
    """A system that multiplies by a number of NumPy's, on the way forward, back, or both."""

    forward_factor: ClassVar = 1.0
    backward_factor: ClassVar = 1.0

    def forward(self, params, x):
        run = super().forward(params, x)

        def backward(dy):
            dx, grads = run.backward(dy)
            return dx * self.backward_factor, grads

        return Pass(run.output * self.forward_factor, backward)


def test_a_number_that_lifts_float32_to_float64_is_told_as_that():
    class Forward(Lifted):
        forward_factor = np.sqrt(2)

    class Backward(Lifted):
        backward_factor = np.sqrt(2)

    class Neither(Lifted):
        forward_factor = backward_factor = math.sqrt(2)

    params, inputs = generic_values(RMSNorm(), dtype=np.float32)
    said = r"has dtype float64 but x has float32; a number or an array in it is float64, as np.sqrt\(2\) is, or of int"
    with pytest.raises(TypeError, match="forward's output " + said):
        Forward()(params, inputs["x"])
    run = Backward()(params, inputs["x"])
    with pytest.raises(TypeError, match="backward's gradient of x " + said):
        run.backward(run.output)
    run = Neither()(params, inputs["x"])
    assert run.backward(run.output)[0].dtype == np.float32


@for_each("dy", [1.0, np.float32(1), np.float64(1), np.ones(()), np.ones((), np.float32), 1])
def test_a_loss_is_an_array_and_takes_a_number_as_its_gradient(dy):
    module = LogitLoss()
    params, inputs = generic_values(module, dtype=np.float32)
    run = module(params, *inputs.values())
    assert isinstance(run.output, np.ndarray)
    assert run.output.shape == ()
    if isinstance(dy, np.ndarray) and dy.dtype != np.float32:
        with pytest.raises(TypeError, match="dy has dtype float64"):
            run.backward(dy)
    else:
        (dx, _), _ = run.backward(dy)
        assert dx.dtype == np.float32
        np.testing.assert_array_equal(dx, run.backward(np.ones((), np.float32))[0][0])


@for_each(
    ("returned", "message"),
    [
        (lambda x, dy: dy, r"backward returns a numpy.ndarray; expected \(\(dx, dg\), grads\), grads a dict"),
        (lambda x, dy: (dy, dy), r"backward returns a tuple; expected \(\(dx, dg\), grads\)"),
        (lambda x, dy: (dy, {}), "backward returns 1 gradients of inputs; expected 2, of x, g, None for one that"),
        (lambda x, dy: ((dy, dy, dy), {}), "backward returns 3 gradients of inputs; expected 2"),
        (lambda x, dy: ((dy, 0.0), {}), "backward's gradient of g is a float; expected an array"),
        (lambda x, dy: ((dy, dy.astype(np.float32)), {}), r"gradient of g has dtype float32 but x has float64$"),
    ],
)
def test_what_backward_returns_is_told_as_what_it_is(returned, message):
    class Odd(TwoGate):
        def forward(self, params, x, g):
            return Pass(x * g, lambda dy: returned(x, dy))

    params, inputs = generic_values(Odd())
    run = Odd()(params, *inputs.values())
    with pytest.raises(TypeError, match=message):
        run.backward(run.output)


def test_what_forward_returns_is_told_as_what_it_is():
    class Bare(Doubled):
        def forward(self, params, x):
            return x, lambda dy: (dy, {})

    class Listed(Doubled):
        def forward(self, params, x):
            return Pass([x], lambda dy: (dy, {}))

    x = np.ones((1, 4, 2, 2))
    with pytest.raises(
        TypeError, match=r"Bare\(channels=4\): forward returns a tuple; expected Pass\(output, backward"
    ):
        Bare()({}, x)

    class Foreign(Doubled):
        def forward(self, params, x):
            return Pass(SimpleNamespace(dtype="torch.float32", shape=x.shape), lambda dy: (dy, {}))

    with pytest.raises(TypeError, match=r"forward's output is a types\.SimpleNamespace; expected an array like x"):
        Foreign()({}, x)
    with pytest.raises(TypeError, match="forward's output is a list; expected an array like x"):
        Listed()({}, x)


def test_the_example_of_a_system_is_that_of_its_defaults_or_is_asked_for():
    assert RMSNorm.example() == RMSNorm(channels=4)

    @dataclass(frozen=True)
    class Needy(Module):
        channels: int
        groups: int = 1

        def forward(self, params, x):
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Needy has no example: channels must be given; define a classmethod example"):
        Needy.example()
    with pytest.raises(TypeError, match="Needy has no example"):
        npattn.oracle.cases(Needy)


@dataclass(frozen=True)
class Halves(Module):
    """Two outputs."""

    channels: int = 4

    def output_shapes(self, batch, height, width):
        return dict.fromkeys(("output.0", "output.1"), (batch, self.channels, height, width))

    def forward(self, params, x):
        return Pass((x, 2 * x), lambda dy, dz: (dy + 2 * dz, {}))


def test_a_backward_that_takes_other_arguments_is_told_what_it_is_given():
    x = np.ones((1, 4, 2, 2))
    with pytest.raises(TypeError, match=r"one argument, .* a tuple of 2, as the output: \(dy0, dy1\) = dy"):
        Halves()({}, x).backward((x, x))


def test_a_type_error_within_backward_is_its_own():
    class Wrong(Halves):
        def forward(self, params, x):
            return Pass((x, x), lambda dy: len(1))

    x = np.ones((1, 4, 2, 2))
    with pytest.raises(TypeError, match=r"^object of type 'int' has no len"):
        Wrong()({}, x).backward((x, x))
