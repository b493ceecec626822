"""What is validated of a call, for systems with inputs of any rank and for systems that do not say what theirs are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import Module, Pass, oracle
from npattn.calls import find_sizes
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.own_systems import OWN_SYSTEMS, CausalHead, Doubled, RMSNorm, Table
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


@for_each(
    ("shapes", "error", "message"),
    [
        ({}, ValueError, "input_shapes returns {}, so that there is nothing to compute with"),
        (None, TypeError, "input_shapes returns a NoneType; expected a dict"),
        ((1, 2), TypeError, "input_shapes returns a tuple; expected a dict"),
        ({"x": 3}, TypeError, "input_shapes returns {'x': 3}; expected a dict"),
        ({"x": (1, 2.5)}, TypeError, "input_shapes returns {'x': (1, 2.5)}; expected a dict"),
        ({1: (1, 2)}, TypeError, "input_shapes returns {1: (1, 2)}; expected a dict"),
    ],
)
@for_each(
    "use",
    [
        lambda module: module({}),
        lambda module: module({}, np.ones((1, 2))),
        lambda module: npattn.trace(module, {}, np.ones((1, 2))),
        oracle.generic_values,
        oracle.golden,
        lambda module: oracle.golden(module, inputs=np.ones((1, 2))),
        oracle.cases,
        lambda module: oracle.gradcheck(module, {}, {}),
    ],
)
def test_a_system_that_says_of_no_input_which_shape_it_has_is_refused_at_every_door(shapes, error, message, use):
    class Blank(Module):
        def input_shapes(self, batch, height, width):
            return shapes

        def forward(self, params, *inputs):
            raise NotImplementedError

    with pytest.raises(error) as caught:
        use(Blank())
    assert f"Blank(): {message}" in str(caught.value)
    assert str(caught.value).endswith("by its name, such as {'x': (batch, height * width, 16)}")


@for_each("shapes", [None, (1, 2), [(1, 2)], {"output": 3}, {}])
@for_each("use", [oracle.golden, oracle.cases])
def test_a_system_that_says_of_no_output_which_shape_it_has_is_refused(shapes, use):
    class Blank(Doubled):
        def output_shapes(self, batch, height, width):
            return shapes

    with pytest.raises(
        (TypeError, ValueError), match=r"Blank\(channels=4\): output_shapes returns .*; expected a dict"
    ):
        use(Blank())


@dataclass(frozen=True)
class Within(CausalHead):
    """A system that calls another, to which it hands its mask."""

    def forward(self, params, q, k, v, mask):
        run = CausalHead(self.channels)(params, q, k, v, mask)
        return Pass(2 * run.output, lambda dy: run.backward(2 * dy))


@dataclass(frozen=True)
class Published(Module):
    """The same with one of the catalogue."""

    without_gradient: ClassVar = ("mask",)

    def input_shapes(self, batch, height, width):
        return {"x": (batch, 2, height, 4), "mask": (batch, 1, height, height)}

    def draw_input(self, name, shape, random):
        return (random.uniform(size=shape) < 0.6).astype(float) if name == "mask" else random.standard_normal(shape)

    def forward(self, params, x, mask):
        run = npattn.ScaledDotProductAttention(heads=2, head_dim=4, mask=True)({}, x, x, x, mask)

        def backward(dy):
            (dq, dk, dv, _), _ = run.backward(dy)
            return (dq + dk + dv, None), {}

        return Pass(run.output, backward)


@for_each("system", [Within, Published])
def test_a_system_within_another_takes_a_mask_where_derivatives_are_by_complex_step(system):
    values = generic_values(system())
    assert oracle.gradcheck(system(), *values).passed
    case = oracle.golden(system(), batch=2, height=3, width=2, certify=False)
    assert case.compare(case.expected).passed
    with pytest.raises(TypeError, match=r"mask has dtype float32 but . has float64; expected one"):
        system()({}, *(x.astype(np.float32) if name == "mask" else x for name, x in values[1].items()))


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


def test_where_an_input_without_gradient_comes_first_all_agree_with_the_first_that_has_one():
    class Masked(Module):
        without_gradient = ("mask",)

        def input_shapes(self, batch, height, width):
            return {"mask": (height, width), "x": (batch, height, width)}

        def forward(self, params, mask, x):
            return Pass(np.where(mask, x, 0), lambda dy: ((None, np.where(mask, dy, 0)), {}))

    x = np.ones((1, 2, 2), np.float32)
    run = Masked()({}, np.eye(2) > 0, x)
    assert run.backward(run.output)[0][1].dtype == np.float32
    with pytest.raises(TypeError, match="mask has dtype float64 but x has float32"):
        Masked()({}, np.eye(2), x)


def test_a_map_of_another_size_than_a_system_is_for_is_not_told_that_its_channels_are_wrong():
    module = Shaped([lambda b, h, w: (b, 4, 7, 7)])
    with pytest.raises(ValueError, match=r"x0 has shape \(2, 4, 5, 5\); expected \(2, 4, 7, 7\)$"):
        module({}, np.ones((2, 4, 5, 5)))
    with pytest.raises(ValueError, match=r"expected \(2, 4, 7, 7\); the map has 5 channels, the module 4$"):
        module({}, np.ones((2, 5, 7, 7)))


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_integers_are_the_only_input_results_have_the_dtype_of_the_parameters(dtype):
    params = {"table": np.arange(28, dtype=dtype).reshape(7, 4)}
    ids = np.array([[1, 6, 1]])
    run = Table()(params, ids)
    np.testing.assert_array_equal(run.output, params["table"][ids])
    assert run.output.dtype == dtype
    _, grads = run.backward(np.ones_like(run.output))
    assert grads["table"].dtype == dtype
    np.testing.assert_array_equal(grads["table"].sum(axis=1), [0, 8, 0, 0, 0, 0, 4])


@for_each(
    ("forward", "backward", "message"),
    [
        (np.float64, np.float32, "forward's output has dtype float64 but parameter 'table' has float32"),
        (np.float32, np.float64, "backward's gradient of table has dtype float64 but parameter 'table' has float32"),
    ],
)
def test_where_integers_are_the_only_input_another_dtype_than_the_parameters_is_refused(forward, backward, message):
    class Lifted(Table):
        def forward(self, params, ids):
            run = super().forward(params, ids)
            return Pass(
                run.output.astype(forward), lambda dy: (None, {"table": run.backward(dy)[1]["table"].astype(backward)})
            )

    params = {"table": np.ones((7, 4), np.float32)}
    with pytest.raises(TypeError, match=message):
        Lifted()(params, np.array([[1, 6, 1]])).backward(np.ones((1, 3, 4), np.float32))


@for_each(
    ("name", "function", "expected"),
    [
        ("forward", lambda self, x: None, r"forward\(self, params, x\)"),
        ("forward", lambda self, params, *, x: None, r"forward\(self, params, x\)"),
        ("input_shapes", lambda self, batch, size: {}, r"input_shapes\(self, batch, height, width\)"),
        ("output_shapes", lambda self: {}, r"output_shapes\(self, batch, height, width\)"),
    ],
)
def test_a_method_that_takes_other_arguments_is_told_which_it_is_given(name, function, expected):
    system = type("Odd", (Doubled,), {name: function})
    with pytest.raises(TypeError, match=rf"^Odd\(channels=4\): {name} can't be called \(.*\); expected {expected}$"):
        oracle.golden(system(), height=2, width=2)


def test_an_error_within_a_method_is_left_as_it_is():
    class Odd(Doubled):
        def forward(self, params, x):
            return len(3)

    with pytest.raises(TypeError, match=r"^object of type 'int' has no len\(\)$"):
        Odd()({}, np.ones((1, 4, 1, 1)))
