import functools
import itertools
import sys
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import MultiHeadSelfAttention, PixelCorrelation, PositionAttention, ops
from npattn.module import Module, Paper, Pass, as_tuple
from npattn.oracle import generic_values, gradcheck
from npattn.parameters import he_normal, zeros
from tests.naming import for_each
from tests.strategies import SMALL_MODULES, SYSTEMS, cases, has_few_parameters, seeds, small_example

METHODS = ["jacobian", "adjoint"]
# Systems that multiply the map by what they attend to, and do nothing else with it.
GATES = [
    system
    for system in SYSTEMS
    if system.key in ("se", "eca", "flexible", "cbam", "cbam-channel", "cbam-spatial", "coordinate")
]
PAPER = Paper(title="None", authors="None", venue="None", year=2000, url="https://example.org")


@dataclass(frozen=True)
class Weighted(Module):
    """Two inputs, of which one has no gradient, and two outputs; `fault` spoils one gradient."""

    key = "weighted"
    paper = PAPER
    without_gradient: ClassVar = ("noise",)

    channels: int = 3
    fault: str | None = None

    @classmethod
    def example(cls):
        return cls()

    def input_shapes(self, batch, height, width):
        return {"x": (batch, self.channels, height, width), "noise": (batch, self.channels)}

    def parameters(self):
        return {"weight": he_normal(self.channels, self.channels), "bias": zeros(self.channels)}

    def forward(self, params, x, noise):
        p, back_pool = ops.global_average_pool(x)
        z, back_linear = ops.linear(p, params["weight"], params["bias"])

        def backward(dy):
            dscaled, dz = dy
            dp, dweight, dbias = back_linear(dz)
            dx = dscaled * noise[:, :, None, None] + back_pool(dp)
            if self.fault == "detached":
                dx = dscaled * noise[:, :, None, None]
            if self.fault == "transposed":
                dweight = dweight.T
            if self.fault == "nan":
                dbias = dbias * np.nan
            grads = {"weight": dweight, "bias": dbias}
            if self.fault == "missing":
                del grads["bias"]
            if self.fault == "none":
                grads["bias"] = None
            if self.fault == "misspelt":
                grads["bais"] = grads.pop("bias")
            if self.fault == "extra":
                grads["scale"] = dbias
            if self.fault == "misshapen":
                grads["bias"] = dbias[None]
            return (dx, None), grads

        return Pass((x * noise[:, :, None, None], z), backward)


def spoiled(module, changes):
    """Derive from a module one that changes some of its gradients: a function of the gradient, by name."""

    @dataclass(frozen=True)
    class Spoiled(type(module)):
        def forward(self, params, *inputs):
            run = super().forward(params, *inputs)

            def backward(dy):
                dx, grads = run.backward(dy)
                gradients = dict(zip(self.input_shapes(1, 1, 1), as_tuple(dx), strict=True)) | grads
                gradients |= {name: change(np.array(gradients[name])) for name, change in changes.items()}
                dx = tuple(gradients.pop(name) for name in self.input_shapes(1, 1, 1))
                return dx if len(dx) > 1 else dx[0], gradients

            return replace(run, backward=backward)

    return Spoiled(**vars(module))


def gradients_of(module, params, inputs):
    """The gradients, by name, upstream of which all outputs are pulled with lengths of their own."""
    run = module(params, *inputs.values())
    dy = tuple(np.random.RandomState(0).uniform(0.5, 1.5, y.shape) for y in as_tuple(run.output))
    dx, grads = run.backward(dy if isinstance(run.output, tuple) else dy[0])
    by_input = dict(zip(inputs, as_tuple(dx), strict=True))
    return {name: gradient for name, gradient in (by_input | grads).items() if gradient is not None}


def a_billionth_off_in_one_element(gradients, random):
    """Changes, by name, that put one element of every gradient wrong by 1e-9, where that is more than rounding."""
    largest, changes = max(np.abs(gradient).max() for gradient in gradients.values()), {}
    for name, gradient in gradients.items():
        elements = np.flatnonzero(np.abs(gradient) > 1e-6 * largest)
        if elements.size:
            changes[name] = functools.partial(scale_one, element=random.choice(elements))
    return changes


def scale_one(gradient, element):
    gradient.flat[element] *= 1 + 1e-9
    return gradient


@pytest.mark.parametrize(("method", "examples"), [("jacobian", 10), ("adjoint", 25)])
def test_every_gradient_agrees_with_the_complex_step_to_twelve_digits_and_no_fault_is_found(method, examples):
    few = st.integers(1, 3)
    drawn = cases(batch=few, height=few).filter(has_few_parameters) if method == "jacobian" else cases()

    # Of one position's softmax, of dead units or of a variance of one value, the gradient is 0.
    @given(case=drawn)
    @settings(max_examples=examples)
    def check(case):
        report = gradcheck(*case, method=method, allow_zero=True)
        assert report.passed, report
        assert report.faults == ()

    check()


@pytest.mark.parametrize(("share", "passed"), [(3e-14, True), (1e-11, False)])
def test_an_element_that_is_rounding_alone_is_held_to_the_largest_gradient_beside_others_of_its_tensor(share, passed):
    """A key's bias, which the softmax hides; of a query that sees one key rounding mostly leaves nothing of it."""
    module = MultiHeadSelfAttention(channels=4, heads=2)

    def add_a_trace(gradient):
        gradient[4] += share * gradient[8]  # to a key's bias, of a value's
        return gradient

    values = generic_values(module, batch=1, height=2, width=3)
    report = gradcheck(spoiled(module, {"in_proj_bias": add_a_trace}), *values, method="jacobian")
    assert report.passed == passed, report


@pytest.mark.parametrize("system", SYSTEMS[::2], ids=lambda system: system.key)
def test_one_element_of_any_gradient_wrong_by_one_part_in_a_billion_is_caught_by_the_jacobian(system):
    module = small_example(system)
    values = generic_values(module, batch=1, height=2, width=2)
    gradients = gradients_of(module, *values)
    changes = a_billionth_off_in_one_element(gradients, np.random.RandomState(0))
    report = gradcheck(spoiled(module, changes), *values, method="jacobian")
    assert not report.passed
    assert gradients.keys() - changes.keys() == set(report.vanishing)
    for name, error in report.errors.items():
        if name in changes:
            assert error == pytest.approx(1e-9, rel=1e-2), name
        else:
            assert error <= report.tolerance


@pytest.mark.parametrize(
    ("system", "first"), list(zip(SYSTEMS[1::2], itertools.cycle((0, 1)))), ids=lambda one: getattr(one, "key", one)
)
def test_a_gradient_wrong_by_one_part_in_a_billion_is_caught_by_the_adjoint_identity(system, first):
    """Every other gradient of a system is wrong: of the first system from the first on, of the next from the second."""
    module = small_example(system)
    values = generic_values(module, batch=1, height=3, width=4)
    gradients = gradients_of(module, *values)
    largest = {name: np.abs(gradient).max() for name, gradient in gradients.items()}
    names = [name for name, size in largest.items() if size > 1e-6 * max(largest.values())]  # of others, 0 is right
    wrong = names[first::2] or names
    changes = dict.fromkeys(wrong, lambda gradient: gradient * (1 + 1e-9))
    report = gradcheck(spoiled(module, changes), *values, method="adjoint")
    assert not report.passed
    assert set(report.vanishing) == gradients.keys() - set(names)
    assert [name for name, error in report.errors.items() if error > report.tolerance] == wrong
    assert [report.errors[name] for name in wrong] == pytest.approx([1e-9] * len(wrong), rel=1e-3)


@given(cases(["se", "eca", "pam", "cam", "coordinate", "mhsa", "pcm"], batch=st.just(1), height=st.just(2)), seeds)
@settings(max_examples=10)
def test_one_wrong_element_is_caught_whatever_the_sizes_and_values(case, seed):
    module, params, inputs = case
    changes = a_billionth_off_in_one_element(gradients_of(*case), np.random.RandomState(seed))
    report = gradcheck(spoiled(module, changes), params, inputs, method="jacobian", allow_zero=True)
    assert {name for name, error in report.errors.items() if error > report.tolerance} == changes.keys()


@pytest.mark.parametrize("system", GATES, ids=lambda system: system.key)
def test_the_adjoint_identity_sees_one_part_in_a_billion_of_one_path_on_a_large_map(system):
    module = system.example()
    params, inputs = generic_values(module, batch=1, height=60, width=80)
    direct = np.ones_like(inputs["x"])
    for gate in module(params, inputs["x"]).attention.values():
        direct, _ = ops.gate(direct, gate)

    @dataclass(frozen=True)
    class Spoiled(system):
        def forward(self, params, x):
            run = super().forward(params, x)

            def backward(dy):
                dx, grads = run.backward(dy)
                through_the_gates = dx - direct * dy
                return dx + 1e-9 * through_the_gates, grads

            return replace(run, backward=backward)

    report = gradcheck(Spoiled.example(), params, inputs, method="adjoint")
    assert not report.passed
    assert report.worst == "x"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("fault", "name"), [("detached", "x"), ("transposed", "weight"), ("nan", "bias")])
def test_common_faults_are_caught_and_named(fault, name, method):
    values = generic_values(Weighted())
    assert gradcheck(Weighted(), *values, method=method).passed
    report = gradcheck(Weighted(fault=fault), *values, method=method)
    assert not report.passed
    assert report.worst == name
    assert f"{name:<6}" in str(report)
    assert "WRONG" in str(report)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "returns no gradient of bias; expected one of shape"),
        ("none", "returns no gradient of bias; expected one of shape"),
        ("extra", r"returns a gradient of 'scale' \(parameters\(\) declares weight, bias\)"),
        ("misspelt", r"returns a gradient of 'bais'; did you mean 'bias'\? \(parameters\(\) declares"),
        ("misshapen", r"returns a gradient of bias of shape \(1, 3\); expected \(3,\)"),
    ],
)
def test_a_backward_pass_with_the_wrong_gradients_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        gradcheck(Weighted(fault=fault), *generic_values(Weighted()))


def test_inputs_without_a_gradient_are_left_out():
    assert sorted(gradcheck(Weighted(), *generic_values(Weighted())).errors) == ["bias", "weight", "x"]


def test_an_outright_wrong_gradient_has_an_error_of_order_one():
    module = spoiled(SYSTEMS[0].example(), {"x": np.negative})
    for method in METHODS:
        assert gradcheck(module, *generic_values(module, batch=1, height=2), method=method).error >= 1


def test_a_gradient_that_should_be_zero_and_is_not_has_infinite_error():
    @dataclass(frozen=True)
    class Constant(Weighted):
        def forward(self, params, x, noise):
            return Pass(x * 0, lambda dy: ((dy, None), {n: np.zeros_like(v) for n, v in params.items()}))

    for method in METHODS:
        report = gradcheck(Constant(), *generic_values(Constant()), method=method)
        assert report.worst == "x"
        assert not report.passed
        assert report.errors["weight"] == 0


@dataclass(frozen=True)
class Faulty(Weighted):
    """Computes what `Weighted` does, and something that a pass must not do besides."""

    state: dict = field(default_factory=dict)

    def forward(self, params, x, noise):
        run = super().forward(params, x.copy(), noise.copy())
        output = run.output
        self.state["noise"] = noise.copy()
        if self.fault == "forward writes to x":
            x *= 2
        if self.fault == "forward writes to weight":
            params["weight"][0] = 0
        if self.fault == "forward gives something else the second time":
            self.state["calls"] = self.state.get("calls", 0) + 1
            output = output[0] + self.state["calls"], output[1]

        def backward(dy):
            (dx, _), grads = run.backward(tuple(d.copy() for d in dy))
            if self.fault == "backward writes to x":
                x[0] = 0
            if self.fault == "backward writes to bias":
                params["bias"][0] = 0
            if self.fault == "backward writes to dy":
                dy[1][0] = 0
            if self.fault == "backward gives something else the second time: weight, bias":
                grads = {name: (self.state.setdefault(name, 1) * gradient) for name, gradient in grads.items()}
                self.state.update({name: self.state[name] + 1 for name in grads})
            if self.fault == "backward of dy = 0 is not 0: bias":
                grads["bias"] = grads["bias"] + 1e-20
            if self.fault == "backward is not linear in dy: bias":
                grads["bias"] = (dy[1] ** 2).sum(axis=0)  # the right one for a unit vector
            if self.fault == "backward gives something else after a forward pass on other values: x":
                dx = dx + dy[0] * (self.state["noise"] - noise)[:, :, None, None]
            return (dx, None), grads

        return Pass(output, backward)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "fault",
    [
        "forward writes to x",
        "forward writes to weight",
        "forward gives something else the second time",
        "backward writes to x",
        "backward writes to bias",
        "backward writes to dy",
        "backward gives something else the second time: weight, bias",
        "backward gives something else after a forward pass on other values: x",
        "backward of dy = 0 is not 0: bias",
        "backward is not linear in dy: bias",
    ],
)
def test_a_pass_that_does_what_it_must_not_is_named_and_fails(fault, method):
    params, inputs = generic_values(Weighted())
    kept = [value.copy() for value in (*params.values(), *inputs.values())]
    report = gradcheck(Faulty(fault=fault), params, inputs, method=method)
    assert fault in report.faults
    assert not report.passed
    assert f"FAULT: {fault}" in str(report)
    for before, after in zip(kept, (*params.values(), *inputs.values()), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_pass_without_it_has_no_fault(method):
    report = gradcheck(Faulty(), *generic_values(Weighted()), method=method)
    assert report.passed
    assert report.faults == ()


def test_a_backward_pass_that_is_linear_but_for_a_billionth_is_named():
    @dataclass(frozen=True)
    class Bent(Weighted):
        def forward(self, params, x, noise):
            run = super().forward(params, x, noise)

            def backward(dy):
                dx, grads = run.backward(dy)
                return dx, grads | {"bias": grads["bias"] + 1e-9 * (dy[1] ** 2 - dy[1]).sum(axis=0)}

            return replace(run, backward=backward)

    report = gradcheck(Bent(), *generic_values(Bent()), method="jacobian")
    assert report.faults == ("backward is not linear in dy: bias",)
    assert max(report.errors.values()) <= report.tolerance


@pytest.mark.parametrize("method", METHODS)
def test_gradients_may_be_returned_in_one_buffer_that_is_written_again(method):
    buffers = {}

    @dataclass(frozen=True)
    class Reusing(Weighted):
        def forward(self, params, x, noise):
            run = super().forward(params, x, noise)

            def backward(dy):
                (dx, _), grads = run.backward(dy)
                for name, gradient in (grads | {"x": dx}).items():
                    buffers.setdefault((name, gradient.dtype), np.empty_like(gradient))[...] = gradient
                kept = {name: buffers[name, dx.dtype] for name in ("x", *grads)}
                return (kept.pop("x"), None), kept

            return replace(run, backward=backward)

    values = generic_values(Reusing())
    assert gradcheck(Reusing(), *values, method=method).passed
    wrong = Reusing(fault="transposed")
    assert gradcheck(wrong, *values, method=method).worst == "weight"


HIDDEN = ("query_conv.weight", "query_conv.bias", "key_conv.weight", "key_conv.bias", "value_conv.weight")
"""Parameters of position attention that γ = 0 hides, but for the last bias."""


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_seen_as_zeros_alone_does_not_pass(method):
    module = PositionAttention(channels=4)
    _, inputs = generic_values(module, batch=1, height=3, width=2)
    wrong = spoiled(module, {"query_conv.weight": np.negative, "key_conv.weight": np.zeros_like})
    report = gradcheck(wrong, module.init(), inputs, method=method)
    assert report.zeros == report.untested == (*HIDDEN, "value_conv.bias")
    assert not report.passed
    assert "query_conv.weight  exactly 0: NOT TESTED; try generic_values, or allow_zero=['query_conv.weight']" in str(
        report
    )
    assert gradcheck(module, *generic_values(module, batch=1, height=3, width=2), method=method).zeros == ()


def test_zeros_pass_where_they_are_allowed():
    module = PositionAttention(channels=4)
    values = module.init(), generic_values(module, batch=1, height=3, width=2)[1]
    assert gradcheck(module, *values, allow_zero=True).passed
    report = gradcheck(module, *values, allow_zero={*HIDDEN, "value_conv.bias", "gamma"})
    assert report.passed
    assert "query_conv.weight  exactly 0: allowed" in str(report)
    report = gradcheck(module, *values, allow_zero=HIDDEN)
    assert not report.passed
    assert report.untested == ("value_conv.bias",)
    assert not gradcheck(module, *values, allow_zero=[]).passed


def test_a_gradient_allowed_to_be_zero_is_still_checked():
    module = spoiled(PositionAttention(channels=4), {"gamma": np.negative})
    values = module.init(), generic_values(module, batch=1, height=3, width=2)[1]
    assert not gradcheck(module, *values, allow_zero=True).passed


@pytest.mark.parametrize("key", ["pam", "danet"])
def test_a_gradient_that_is_zero_but_for_rounding_is_named(key):
    module = {"pam": PositionAttention(channels=4), "danet": SMALL_MODULES["danet"]}[key]
    report = gradcheck(module, *generic_values(module), method="adjoint")
    assert report.passed
    assert [name.rpartition("sa.")[2] for name in report.vanishing] == ["key_conv.bias"]
    assert "ok, 0 but for rounding: relative to the largest gradient" in str(report)
    wrong = spoiled(module, {report.vanishing[0]: lambda gradient: gradient + 1e-6})
    assert gradcheck(wrong, *generic_values(module), method="adjoint").worst == report.vanishing[0]


@dataclass(frozen=True)
class Steep(Module):
    """y = x (exp(40 w₀) + 1e-7 w₁²) + x w₂: gradients that vary steeply, that are small in one element, and others."""

    key = "steep"
    paper = PAPER
    channels: int = 2

    @classmethod
    def example(cls):
        return cls()

    def parameters(self):
        return {"weight": he_normal(3, 1)}

    def forward(self, params, x):
        w = params["weight"][:, 0]
        e = np.exp(40 * w[0])

        def backward(dy):
            total = np.sum(dy * x)
            dw = np.stack([40 * e * total, 2e-7 * w[1] * total, total])
            return dy * (e + 1e-7 * w[1] ** 2 + w[2]), {"weight": dw[:, None]}

        return Pass(x * (e + 1e-7 * w[1] ** 2 + w[2]), backward)


@pytest.mark.parametrize("element", range(3))
def test_a_mistake_is_caught_in_an_element_that_varies_steeply_or_is_small_beside_the_others(element):
    _, inputs = generic_values(Steep(), batch=1, height=2, width=2)
    params = (
        {"weight": np.array([[4.0], [0.7], [0.3]])} if element == 0 else {"weight": np.array([[0.1], [0.7], [0.3]])}
    )
    assert gradcheck(Steep(), params, inputs).passed
    report = gradcheck(spoiled(Steep(), {"weight": functools.partial(scale_one, element=element)}), params, inputs)
    assert report.worst == "weight"
    assert report.error == pytest.approx(1e-9, rel=1e-3)


def traces():
    """In one dimension features point one of two ways, and all of their gradient but a trace of ε cancels."""
    module = PixelCorrelation(channels=4, embedding=1)
    params, inputs = generic_values(module, batch=1, height=2, width=3, seed=1)
    return module, params, inputs | {"features": 10 * inputs["features"]}


@pytest.mark.parametrize("digits", [np.float64, np.longdouble])
def test_a_gradient_of_which_rounding_leaves_few_digits_passes_and_says_how_few(digits, monkeypatch):
    monkeypatch.setattr(sys.modules["npattn.oracle.gradcheck.entries"], "EXTENDED", digits)
    report = gradcheck(*traces(), method="jacobian")
    assert report.passed
    assert report.rounding["features"] > 100 * report.tolerance
    assert "ok, beside rounding of up to" in report.verdict("features")


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="longdouble has no more digits than float64 here")
def test_what_the_rounding_of_float64_hides_longdouble_shows(monkeypatch):
    module, params, inputs = traces()
    wrong = spoiled(module, {"features": lambda gradient: gradient * (1 + 3e-9)})
    report = gradcheck(wrong, params, inputs, method="jacobian")
    assert report.worst == "features"
    assert report.error == pytest.approx(3e-9, rel=0.1)
    monkeypatch.setattr(sys.modules["npattn.oracle.gradcheck.entries"], "EXTENDED", np.float64)
    assert gradcheck(wrong, params, inputs, method="jacobian").passed
    coarse = spoiled(module, {"features": lambda gradient: gradient * (1 + 1e-3)})
    assert not gradcheck(coarse, params, inputs, method="jacobian").passed


def test_a_module_that_knows_no_longdouble_is_judged_by_its_rounding():
    @dataclass(frozen=True)
    class Narrow(PixelCorrelation):
        def forward(self, params, *inputs):
            if inputs[0].dtype in (np.longdouble, np.clongdouble) and np.longdouble != np.float64:
                raise TypeError("array type float128 is unsupported in linalg")
            return super().forward(params, *inputs)

    module, params, inputs = traces()
    report = gradcheck(Narrow(**vars(module)), params, inputs, method="jacobian")
    assert report.passed
    assert "features" in report.rounding


def test_a_mistake_of_float64_alone_is_caught_where_there_is_rounding():
    module = MultiHeadSelfAttention(channels=4, heads=2)
    values = generic_values(module, batch=1, height=2, width=3)

    def on_the_fast_way(gradient):
        return gradient * (1 + 1e-9) if gradient.dtype == np.float64 else gradient

    for method in METHODS:
        report = gradcheck(spoiled(module, {"in_proj_weight": on_the_fast_way}), *values, method=method)
        assert report.error == pytest.approx(1e-9, rel=1e-2)


def test_a_wrong_convention_at_a_kink_is_caught():
    class Halved(type(SYSTEMS[0].example())):
        def forward(self, params, x):
            run = super().forward(params, x)

            def backward(dy):
                dx, grads = run.backward(dy)
                return dx, grads | {"fc1.bias": grads["fc1.bias"] + 0.5 * np.sum(dy) * (params["fc1.bias"] == 0)}

            return replace(run, backward=backward)

    module = Halved.example()
    params, inputs = generic_values(module, batch=1, height=2, width=2)
    params |= {"fc1.bias": 0 * params["fc1.bias"], "fc1.weight": 0 * params["fc1.weight"]}
    report = gradcheck(module, params, inputs, method="adjoint", allow_zero=True)
    assert report.worst == "fc1.bias"
    assert not report.passed


@given(cases(), seeds)
@settings(max_examples=5)
def test_the_same_seed_gives_the_same_report(case, seed):
    first, second = (gradcheck(*case, seed=seed, method="adjoint") for _ in range(2))
    assert first == second


def test_small_problems_are_compared_whole_and_large_ones_in_directions():
    module = SYSTEMS[0].example()
    assert gradcheck(module, *generic_values(module, batch=1, height=2, width=3)).method == "jacobian"
    assert gradcheck(module, *generic_values(module, batch=1, height=9, width=9)).method == "adjoint"


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_other_real_dtypes_are_checked_in_double_precision(dtype):
    module = SYSTEMS[0].example()
    params, inputs = generic_values(module, dtype=dtype)
    assert gradcheck(module, params, inputs).passed


def test_inputs_may_be_named_listed_or_alone():
    module = SYSTEMS[0].example()
    params, inputs = generic_values(module)
    reports = [gradcheck(module, params, given) for given in (inputs, (inputs["x"],), inputs["x"])]
    assert reports[0] == reports[1] == reports[2]


@for_each(
    ("change", "error", "message"),
    [
        ({"inputs": {"y": 0}}, ValueError, "unknown input 'y'.*expected x"),
        ({"inputs": ()}, TypeError, "got 0 inputs; expected 1: x"),
        ({"inputs": [1.0]}, TypeError, "x is a list; expected an array"),
        ({"inputs": np.ones((1, 32, 2, 2), complex)}, TypeError, "x has dtype complex128; expected real numbers"),
        ({"inputs": np.ones((1, 32, 2, 2), int)}, TypeError, "x has dtype int64; expected floating point"),
        ({"params": None}, TypeError, "params is a NoneType; expected a mapping"),
        ({"params": {}}, ValueError, "missing parameter"),
        ({"method": "numerical"}, ValueError, "method='numerical' .expected 'jacobian' or 'adjoint', or None"),
        ({"method": np.ones(3)}, TypeError, "method=.* is a numpy.ndarray; expected 'jacobian' or"),
        ({"tolerance": "1e-9"}, TypeError, "tolerance='1e-9' is a str; expected a number"),
        ({"tolerance": True}, TypeError, "tolerance=True is a bool; expected a number"),
        ({"tolerance": 0.0}, ValueError, "tolerance=0.0; expected a number above 0"),
        ({"tolerance": np.nan}, ValueError, "tolerance=nan; expected a finite number"),
        ({"tolerance": np.inf}, ValueError, "tolerance=inf; expected a finite number"),
        (
            {"inputs": np.full((1, 32, 2, 2), np.nan)},
            ValueError,
            "x holds 128 numbers that are infinite or NaN, of 128",
        ),
        ({"module": "eca"}, TypeError, "gradcheck: module is the key 'eca'; expected an instance: gradcheck"),
        ({"module": SYSTEMS[0]}, TypeError, "gradcheck: module is the class SqueezeExcitation; expected an instance"),
        ({"module": None}, TypeError, "gradcheck: module is a NoneType; expected a system"),
        ({"seed": None}, TypeError, "gradcheck: seed=None is a NoneType; expected an int"),
        ({"seed": 2**32}, ValueError, "expected an integer of at most"),
        ({"allow_zero": ["x", "fc1"]}, ValueError, "allow_zero='fc1'; did you mean 'fc1.bias'.*expected 'x' or"),
        ({"allow_zero": "x"}, TypeError, "allow_zero='x' is a str; expected True, False or a list of some of x, fc1"),
        ({"allow_zero": [0]}, TypeError, "allow_zero=0 is an int; expected 'x' or"),
        ({"seed": -1}, ValueError, "seed=-1; expected an integer of at least 0"),
    ],
)
def test_bad_input_is_refused_with_a_reason(change, error, message):
    module = SYSTEMS[0].example()
    params, inputs = generic_values(module)
    arguments = {"module": module, "params": params, "inputs": inputs} | change
    with pytest.raises(error, match=message):
        gradcheck(**arguments)


def test_a_parameter_that_is_infinite_is_refused_by_name():
    module = SYSTEMS[0].example()
    params, inputs = generic_values(module)
    params["fc1.bias"][1] = np.inf
    with pytest.raises(ValueError, match=r"parameter 'fc1.bias' holds 1 numbers that are infinite or NaN, of 4"):
        gradcheck(module, params, inputs)


TIED = {
    "few numbers": lambda shape: np.random.RandomState(0).randint(-1, 2, shape).astype(float),
    "zeros": np.zeros,
    "ones": np.ones,
}


def at_kinks(module, params, inputs, without_bias, tied):
    """Check gradients where the first input is tied: forward and backward are to take the same side there."""
    if without_bias:
        params = {name: np.zeros_like(value) if name.endswith("bias") else value for name, value in params.items()}
    name, first = next(iter(inputs.items()))
    return gradcheck(module, params, inputs | {name: TIED[tied](first.shape)}, method="adjoint", allow_zero=True)


@for_each("system", SYSTEMS)
def test_a_system_keeps_to_its_convention_at_zeros_throughout(system):
    module = small_example(system)
    report = at_kinks(module, *generic_values(module, batch=2, height=3, width=3), without_bias=True, tied="zeros")
    assert report.passed, report


@given(cases().filter(has_few_parameters), st.booleans(), st.sampled_from(list(TIED)))
@settings(max_examples=25)
def test_kinks_follow_the_stated_convention(case, without_bias, tied):
    report = at_kinks(*case, without_bias, tied)
    assert report.passed, report


def test_a_system_without_any_gradient_has_nothing_to_check():
    class Square(Module):
        without_gradient = ("x",)

        def input_shapes(self, batch, height, width):
            return {"x": (batch, height * width)}

        def forward(self, params, x):
            return Pass(x * x, lambda dy: (None, {}))

    with pytest.raises(ValueError, match=r"Square.*: no input and no parameter has a gradient; expected one to check"):
        gradcheck(Square(), *generic_values(Square()))
