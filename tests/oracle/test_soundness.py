"""What golden says of systems that it has not seen."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from scipy import special

import npattn
from npattn import Pass
from npattn.oracle import GradcheckReport, generic_values, golden, soundness
from npattn.oracle.budgets import Given
from npattn.oracle.systems import SYSTEMS, is_known
from npattn.parameters import zeros
from tests.naming import for_each
from tests.own_systems import OWN_SYSTEMS, CausalHead, LogitLoss, NormGate, Powers, RMSNorm, Table, TwoGate

RIGHT = GradcheckReport({}, "adjoint", 1e-12)
SMALL = {"height": 2, "width": 3}


def spoiled(system, change):
    """Derive a system one of whose passes is changed."""

    @dataclass(frozen=True)
    class Spoiled(system):
        def forward(self, params, *inputs):
            return change(super().forward(params, *inputs))

    return Spoiled()


def given_to(module):
    """Draw what a module of one map is given."""
    params, inputs = generic_values(module)
    return Given(params, inputs, {"output": inputs["x"]})


def with_gradients(change):
    """Change what a backward pass returns."""
    return lambda run: replace(run, backward=lambda dy: change(*run.backward(dy)))


@for_each("system", [*OWN_SYSTEMS, Powers, Table])
def test_right_systems_have_golden_cases(system):
    case = golden(system.example(), batch=2, **SMALL)
    assert case.compare(case.expected).passed


@for_each(
    ("module", "message"),
    [
        (spoiled(RMSNorm, with_gradients(lambda dx, grads: (1.001 * dx, grads))), "x is off by 0.001"),
        (spoiled(RMSNorm, with_gradients(lambda dx, grads: (dx, {"weight": -grads["weight"]}))), "weight is off by 2 "),
        (
            spoiled(RMSNorm, with_gradients(lambda dx, grads: (dx, {}))),
            "backward returns no gradient of weight; expected one of shape",
        ),
        (spoiled(CausalHead, with_gradients(lambda dx, grads: ((dx[0], dx[2], dx[1], None), grads))), "k is off by"),
        (spoiled(RMSNorm, lambda run: Pass(np.abs(run.output), run.backward)), "A forward that takes abs"),
        (
            spoiled(RMSNorm, lambda run: Pass(np.floor(run.output), run.backward)),
            "its gradients can't be checked by complex step: .*select on x.real",
        ),
        (
            spoiled(RMSNorm, lambda run: replace(run, output=np.sqrt(2) * run.output)),
            "forward's output has dtype float64 but x has float32",
        ),
        (
            spoiled(RMSNorm, with_gradients(lambda dx, grads: (dx * np.float64(1), grads))),
            "backward's gradient of x has dtype float64 but x has float32",
        ),
        (
            spoiled(NormGate, lambda run: replace(run, buffers={"bn.running_mean": run.buffers["bn.running_mean"]})),
            "buffer 'bn.running_var' not at all; buffers.. declares",
        ),
        (
            spoiled(NormGate, lambda run: replace(run, buffers=run.buffers | {"bn.count": np.ones(1, np.float32)})),
            "forward returns the buffer 'bn.count'",
        ),
    ],
)
def test_a_system_that_is_wrong_is_refused_in_one_line(module, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        golden(module, **SMALL)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{module}: ")


def test_a_none_that_is_not_declared_is_told_with_what_to_declare():
    class Silent(CausalHead):
        without_gradient = ()

    with pytest.raises(ValueError, match=r"backward gives None for mask; .*declare without_gradient = \('mask',\)"):
        golden(Silent(), **SMALL)

    class Misspelt(CausalHead):
        without_gradient = ("masks",)

    with pytest.raises(ValueError, match=r"declare without_gradient = \('mask',\) in place of masks"):
        golden(Misspelt(), **SMALL)

    class OneString(CausalHead):
        without_gradient = "mask"

    with pytest.raises(TypeError, match=r"without_gradient is the str 'mask'; expected a tuple of names: \('mask',\)"):
        golden(OneString(), **SMALL)


class Slopes(npattn.Module):
    """A system whose arrays are made in many ways: of each kind one, and what it makes of its input."""

    channels = 3

    def __init__(self, make=np.positive, back=np.positive):
        super().__init__()
        object.__setattr__(self, "make", make)
        object.__setattr__(self, "back", back)

    def forward(self, params, x):
        e = np.exp(self.make(x))
        return Pass(x * e, lambda dy: (dy * e * (1 + self.back(x)), {}))


def filled(x):
    """Fill a plain array, as a loop over time does, with numbers that have been followed."""
    found = np.zeros(x.shape, x.dtype)
    for i in range(x.shape[-1]):
        found[..., i] = x[..., i]
    return found


@for_each(
    "keeps",
    [
        np.positive,
        lambda x: x * np.where(x.real > 0, 1 / 3, 2 / 3),
        lambda x: x + filled(x) - filled(x),
        lambda x: x + np.full(x.shape, np.nan),
    ],
)
def test_arrays_may_be_filled_chosen_by_comparisons_and_nan(keeps):
    assert soundness.lost_in(Slopes(keeps, keeps), given_to(Slopes())) == ""


@for_each("loses", [np.asarray, np.array, lambda x: special.softmax(x, axis=1)])
def test_a_system_that_loses_the_kind_of_its_arrays_is_refused(loses):
    """In plain arrays nothing is rounded: a kernel that rounds there would be."""
    assert soundness.lost_in(Slopes(loses), given_to(Slopes())) == "forward"
    assert soundness.lost_in(Slopes(back=lambda x: x + np.exp(loses(x)) - np.exp(x)), given_to(Slopes())) == "backward"
    with pytest.raises(TypeError, match="backward makes plain arrays of what it is given"):
        golden(Slopes(back=lambda x: x + np.exp(np.asarray(x)) - np.exp(x)), batch=2, **SMALL)


def test_forgotten_output_shapes_are_told_as_that():
    class Forgetful(LogitLoss):
        output_shapes = npattn.Module.output_shapes

    class Wrong(LogitLoss):
        def output_shapes(self, batch, height, width):
            return {"output": (1,)}

    with pytest.raises(
        ValueError,
        match=r"returns output of shape \(\) where output_shapes\(2, 3, 2\) says output of shape \(2, 5\), the first "
        r"input's, as it does unless a system says otherwise: override output_shapes",
    ):
        golden(Forgetful(), **SMALL)
    with pytest.raises(ValueError, match=r"says output of shape \(1,\): correct output_shapes\(batch, height, width\)"):
        golden(Wrong(), **SMALL)


def test_sizes_may_be_called_otherwise_by_a_system_of_ones_own():
    class Short(RMSNorm):
        def input_shapes(self, b, h, w):
            return super().input_shapes(b, h, w)

        def output_shapes(self, b, h, w):
            return super().output_shapes(b, h, w)

    x = np.ones((2, 3, 4))
    assert golden(Short(4), inputs=x, batch=2, certify=False).given == ("inputs",)
    assert npattn.Residual(inner=Short(4)).inner == Short(4)


def test_a_system_is_looked_at_once_and_those_of_npattn_never(monkeypatch):
    looked = []
    monkeypatch.setattr(soundness, "gradcheck", lambda module, *_, **__: looked.append(module) or RIGHT)

    @dataclass(frozen=True)
    class Fresh(RMSNorm):
        pass

    for module in (Fresh(4), Fresh(4), Fresh(5), npattn.SqueezeExcitation(4)):
        golden(module, **SMALL)
    assert looked == [Fresh(4), Fresh(5)]


@dataclass(frozen=True)
class Switched(npattn.Module):
    """Lets the input through where its only parameter is on: `sign` says which side of 0 that is."""

    key: ClassVar = "switched"
    channels: int = 2
    sign: float = 1.0
    factor: float = 1.0

    def parameters(self):
        return {"switch": zeros(1)}

    def forward(self, params, x):
        s = self.sign * params["switch"]
        on = x.dtype.type(s.real > 0)

        def backward(dy):
            return on * s * dy, {
                "switch": self.sign * on * (dy * x).sum(keepdims=True)[0, 0, 0] * x.real.dtype.type(self.factor)
            }

        return Pass(on * s * x, backward)


def test_a_gradient_that_is_0_at_first_is_looked_at_with_other_parameters():
    off = -float(np.sign(Switched().init(0, generic=True)["switch"][0]))
    assert golden(Switched(sign=off), **SMALL).expected["switch.grad"].any()
    with pytest.raises(ValueError, match="switch is off by 1 "):
        golden(Switched(sign=off, factor=2.0), **SMALL)


def test_a_wrong_system_stays_refused():
    module = spoiled(RMSNorm, with_gradients(lambda dx, grads: (2 * dx, grads)))
    for _ in range(2):
        with pytest.raises(ValueError, match="backward is not the derivative of forward"):
            golden(module, **SMALL)


def test_a_wrong_system_within_one_of_the_catalogue_is_refused():
    class Wrong(npattn.EfficientChannelAttention):
        def forward(self, params, x):
            run = super().forward(params, x)
            return replace(run, backward=lambda dy: (dy, run.backward(dy)[1]))

    with pytest.raises(ValueError, match=r"Residual\(inner=.*Wrong\(channels=4.*x is off by"):
        golden(npattn.Residual(Wrong(4)), **SMALL)


def test_systems_are_known_by_their_classes():
    assert all(is_known(system.example()) for system in SYSTEMS.values())
    assert not any(is_known(system.example()) for system in OWN_SYSTEMS)


def test_a_system_that_takes_no_small_case_is_looked_at_where_it_is_asked_for():
    class Large(RMSNorm):
        def check_inputs(self, inputs):
            super().check_inputs(inputs)
            if inputs[0].shape[1] < 20:
                raise ValueError("too few tokens")

        def forward(self, params, x):
            run = super().forward(params, x)
            return replace(run, backward=lambda dy: (2 * run.backward(dy)[0], run.backward(dy)[1]))

    with pytest.raises(ValueError, match="too few tokens"):
        golden(Large(), height=1, width=19)
    with pytest.raises(ValueError, match="x is off by 1 "):
        golden(Large(), height=1, width=20)


def with_attention(attention):
    """Change the maps that a forward pass returns."""
    return lambda run: replace(run, attention=attention(run) if callable(attention) else attention)


class NamedTwice(RMSNorm):
    """A parameter that is named as the input."""

    def parameters(self):
        return super().parameters() | {"x": zeros(1)}


class NamedAsOutput(RMSNorm):
    """A parameter that is named as the output."""

    def parameters(self):
        return super().parameters() | {"output": zeros(1)}


@for_each(
    ("module", "error", "message"),
    [
        (NamedTwice(), ValueError, "'x' names an input and a parameter; expected other names"),
        (NamedAsOutput(), ValueError, "'output' names an output and an input or a parameter; expected other names"),
        *(
            (
                spoiled(TwoGate, with_attention(lambda run, name=name: {name: run.output})),
                ValueError,
                f"'{name}' names an attention map and another result; expected other names",
            )
            for name in ("output", "x.grad")
        ),
        (
            spoiled(NormGate, with_attention(lambda run: {"bn.running_var": run.output})),
            ValueError,
            "'bn.running_var' names an attention map and another result; expected other names",
        ),
        (
            spoiled(TwoGate, with_attention(lambda run: [run.output])),
            TypeError,
            "attention is a list; expected a dict of maps by name",
        ),
        (spoiled(TwoGate, with_attention(None)), TypeError, "attention is .*; expected a dict of maps by name"),
        (
            spoiled(TwoGate, with_attention(lambda run: {"a": [run.output]})),
            TypeError,
            "attention holds 'a': a list; expected a dict of maps by name, arrays",
        ),
        (
            spoiled(TwoGate, with_attention(lambda run: {1: run.output})),
            TypeError,
            "attention holds 1: a numpy.ndarray; expected a dict of maps by name, arrays",
        ),
        (
            spoiled(TwoGate, lambda run: replace(run, buffers=[run.output])),
            TypeError,
            "buffers is a list; expected a dict of running statistics by name",
        ),
    ],
)
def test_a_name_that_two_results_would_have_is_refused(module, error, message):
    with pytest.raises(error, match=message) as caught:
        golden(module, **SMALL)
    assert str(caught.value).startswith(f"{module}: ")


def test_a_forgotten_shape_of_outputs_is_told_of_though_an_upstream_gradient_is_given():
    class Pooled(RMSNorm):
        def forward(self, params, x):
            run = super().forward(params, x)
            ones = np.ones_like(x)
            return Pass(run.output.sum(axis=1), lambda dy: run.backward(dy[:, None] * ones))

    for upstream in (None, np.ones((2, 4), np.float32)):
        with pytest.raises(ValueError, match="output_shapes"):
            golden(Pooled(), batch=2, upstream=upstream, **SMALL)


class Lookup(npattn.Module):
    """A system of which nothing has a gradient."""

    without_gradient = ("x",)

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height * width)}

    def forward(self, params, x):
        return Pass(x * x, lambda dy: (None, {}))


def test_a_system_without_any_gradient_has_golden_cases_and_nothing_to_check():
    case = golden(Lookup(), batch=2, **SMALL)
    assert list(case.expected) == ["output"]
    assert case.compare(case.expected).passed
    assert not case.compare({"output": 1 + case.expected["output"]}).passed
