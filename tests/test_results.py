"""What is validated of what a pass returns, and of the gradient that it is given."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from npattn import Module, Pass
from npattn.oracle import generic_values, golden, gradcheck
from tests.naming import for_each
from tests.own_systems import CausalHead, Doubled, LogitLoss, RMSNorm, Table, TwoGate

VALUES = generic_values(Table())


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
        (
            lambda x, dy: ([dy, dy], {}),
            r"backward returns a list of the inputs' gradients; expected a tuple: \(dx, dg\)",
        ),
        (lambda x, dy: ((dy, 0.0), {}), r"backward's gradient of g is a float; expected an array: leave out float\("),
        (lambda x, dy: ((dy, np.ma.masked_array(dy)), {}), "backward's gradient of g is a masked array"),
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


@for_each(
    ("returned", "message"),
    [
        (lambda dx, grads: (dx[..., :1], grads), r"returns a gradient of x of shape \(2, 20, 1\); expected \(2, 20, "),
        (lambda dx, grads: (dx, {"weight": dx}), r"gradient of weight of shape \(2, .*: add up over what it was"),
        (
            lambda dx, grads: (dx, {"weigh": dx}),
            r"gradient of 'weigh'; did you mean 'weight'. .parameters\(\) declares",
        ),
        (lambda dx, grads: (dx, grads | {"q": dx}), r"gradient of 'q' .parameters\(\) declares weight\)"),
    ],
)
def test_gradients_have_the_shapes_of_what_they_are_of(returned, message):
    class Odd(RMSNorm):
        def forward(self, params, x):
            run = super().forward(params, x)
            return Pass(run.output, lambda dy: returned(*run.backward(dy)))

    params, inputs = generic_values(Odd())
    run = Odd()(params, *inputs.values())
    with pytest.raises(ValueError, match=message):
        run.backward(run.output)


def test_what_forward_returns_is_told_as_what_it_is():
    class Bare(Doubled):
        def forward(self, params, x):
            return x, lambda dy: (dy, {})

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


@for_each(
    ("returned", "message"),
    [
        (lambda x: [x], "forward's output is a list; expected an array like x, or a tuple of such arrays"),
        (lambda x: (x, [x]), "forward's output.1 is a list; expected an array like x"),
        (lambda x: float(x.sum()), r"forward's output is a float; expected an array like x: leave out float\(\) and"),
        (lambda x: {"y": x}, "forward's output is a dict; expected an array like x"),
        (lambda x: (), "forward's output is an empty tuple; expected an array"),
        (lambda x: None, "forward's output is a NoneType; expected an array like x"),
        (np.ma.masked_array, "forward's output is a masked array, some of whose numbers"),
    ],
)
def test_an_output_that_is_no_array_is_told_as_what_it_is(returned, message):
    class Odd(Doubled):
        def forward(self, params, x):
            return Pass(returned(x), lambda dy: (dy, {}))

    with pytest.raises(TypeError, match=message):
        Odd()({}, np.ones((1, 4, 2, 2)))


@for_each(
    "index",
    [lambda table, ids: table[ids], lambda table, ids: np.take(table, ids, 0), lambda table, ids: range(ids[0, 0])],
)
@for_each("use", [lambda module: golden(module, height=2, width=3), lambda module: gradcheck(module, *VALUES)])
def test_an_error_about_indices_says_that_what_has_no_gradient_comes_as_numbers(index, use):
    class Odd(Table):
        def forward(self, params, ids):
            return Pass(index(params["table"], ids), lambda dy: (None, {}))

    with pytest.raises((IndexError, TypeError)) as caught:
        use(Odd())
    assert "ids came as float" in caught.value.__notes__[0]
    assert "indices are made of it by ids.real.astype(int)" in caught.value.__notes__[0]
    with pytest.raises((IndexError, TypeError)) as caught:
        Odd()(VALUES[0], np.full((2, 3), 99))
    assert not hasattr(caught.value, "__notes__")


def test_an_error_about_indices_where_every_input_has_a_gradient_is_as_it_was():
    class Odd(Doubled):
        def forward(self, params, x):
            return Pass(np.arange(3.0)[x], lambda dy: (dy, {}))

    with pytest.raises(IndexError, match="used as indices must be of integer") as caught:
        Odd()({}, np.ones((1, 4, 2, 2)))
    assert not hasattr(caught.value, "__notes__")


@for_each("use", [lambda module: golden(module, height=2, width=3), lambda module: module(VALUES[0], VALUES[1]["ids"])])
@for_each(
    "names",
    [
        ("tabel", "table", "holds no 'tabel', as parameters() and buffers() declare none; did you mean 'table'?"),
        ("table", "bias", "holds no 'bias', as parameters() and buffers() declare none (they declare table)"),
    ],
)
def test_an_error_about_a_name_says_which_are_declared(names, use):
    forward, backward, words = names

    class Odd(Table):
        def forward(self, params, ids):
            run = super().forward({"table": params[forward]}, ids)
            return Pass(run.output, lambda dy: run.backward(dy * params[backward].sum()))

    with pytest.raises(KeyError) as caught:
        run = use(Odd())
        run.backward(run.output)
    assert len(caught.value.__notes__) == 1
    assert words in caught.value.__notes__[0]


def test_an_error_about_another_name_is_as_it_was():
    class Odd(Table):
        def forward(self, params, ids):
            return {}[3]

    with pytest.raises(KeyError) as caught:
        Odd()(VALUES[0], VALUES[1]["ids"])
    assert not hasattr(caught.value, "__notes__")


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
