"""The steps of the catalogue's systems: those of their pages, with the values that are computed by hand."""

import inspect
import re
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np

import npattn
from npattn import ops
from npattn.fields import choice
from npattn.module import as_tuple
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.oracle import generic_values
from npattn.tracing import trace
from npattn.tracing.pages import equation_of, equations, forms
from tests.naming import for_each
from tests.strategies import SYSTEMS

WHOLE = {
    "attention-gate": {"training": True, "stride": 2},
    "cbam": {"training": True},
    "cbam-spatial": {"training": True},
    "coordinate": {"training": True},
    "danet": {"training": True, "size": (7, 6)},
    "external": {"training": True},
    "bottleneck": {"stride": 2},
    "halo": {"stride": 2, "avg_down": True},
    "multi-scale": {"training": True},
    "triplet": {"training": True},
    "non-local": {"training": True, "subsample": True},
    "sk": {"training": True},
    "split": {"training": True},
    "lambda": {"training": True, "stride": 2},
}
"""Hyperparameters under which every step of a system is taken."""
OTHER_FORMS = {
    "polarized": [{"form": "sequential"}, {"variant": "paper"}],
    "se": [{"batch_norm": True, "add_maxpool": True}],
}
"""Hyperparameters of systems whose forms have steps that no other has."""
every_system = for_each("system", SYSTEMS)


def whole(system):
    """A small instance of which no step is left out."""
    example = system.example()
    values = {name: getattr(example, name) for name in inspect.signature(system).parameters}
    return system(**values | WHOLE.get(system.key, {}))


def upstream(output):
    random = np.random.RandomState(7)
    drawn = tuple(random.standard_normal(y.shape).astype(y.dtype) for y in as_tuple(output))
    return drawn if isinstance(output, tuple) else drawn[0]


def traced(module, **options):
    params, inputs = generic_values(module, **options)
    steps = trace(module, params, *inputs.values())
    steps.backward(upstream(steps.run.output))
    return steps


def tags_in(function):
    return re.findall(r"# (\(\d+'?\))$", inspect.getsource(function), flags=re.MULTILINE)


def without_repeats(tags):
    return [tag for tag, _ in groupby(tags)]


@every_system
def test_tags_are_those_of_the_text_in_order_forward_then_backward(system):
    steps = traced(whole(system)).steps
    own = [step for step in steps if not step.parts]
    assert without_repeats(step.tag for step in own) == tags_in(system.forward)
    for parts in {step.parts for step in steps}:
        numbers = [re.sub(r"\D", "", step.tag) for step in steps if step.parts == parts]
        back = ["'" in step.tag for step in steps if step.parts == parts]
        forward, backward = ([int(n) for n, b in zip(numbers, back, strict=True) if b is way] for way in (False, True))
        assert back == sorted(back)
        assert all(a <= b for a, b in pairwise(forward))
        assert all(a >= b for a, b in pairwise(backward))
        assert {*forward} == {*backward}


def test_tags_of_all_systems_of_a_page_are_all_that_the_page_has():
    pages = {}
    for system in SYSTEMS:
        for changes in ({}, *OTHER_FORMS.get(system.key, ())):
            for step in traced(replace(whole(system), **changes)).steps:
                pages.setdefault(step.page, set()).add(step.tag)
    assert None not in pages
    for page, tags in pages.items():
        assert tags == equations(page).keys(), page


@every_system
def test_every_step_has_the_equation_of_its_page(system):
    for step in traced(whole(system)).steps:
        text = (npattn.tracing.pages.PACKAGE.parent / f"derivations/{step.page}.md").read_text(encoding="utf-8")
        assert f"{step.equation}\n\\tag{{{step.tag[1:-1]}}}" in text


@for_each("name", [*ACTIVATIONS, *GATES])
@for_each("system", [npattn.SqueezeExcitation, npattn.CBAM])
def test_equations_say_what_the_activation_and_the_gate_are_that_are_set(system, name):
    of_activation, of_gate = (r"\varphi", "activation", "relu"), (r"\sigma", "gate", "sigmoid")
    function, field, default = of_activation if name in ACTIVATIONS else of_gate
    module = replace(system.example(), **{field: name})
    saying = [step for step in traced(module).steps if f"{function}_{{" in step.equation]
    assert {"'" in step.tag for step in saying} == {False, True}
    for step in saying:
        assert f"{function}_{{\\text{{{name.replace('_', ' ')}}}}}" in step.equation
        formula = forms()[name]["'" in step.tag]
        assert name == default or step.equation.endswith(f" = {formula}")


def test_a_function_that_no_page_knows_is_left_out_of_an_equation():
    @dataclass(frozen=True)
    class Tanh(npattn.SqueezeExcitation):
        activation: str = choice({"relu": ops.relu, "tanh": ops.tanh}, default="relu")

    module = Tanh(channels=4, activation="tanh")
    said = [equation_of("squeeze_excitation", tag, module) for tag in ("(3)", "(3')")]
    assert said == [r"r_{bm} = \varphi(h_{bm})", r"\bar h_{bm} = \varphi'(h_{bm}) \bar r_{bm}"]
    assert equation_of("squeeze_excitation", "(3)", Tanh(channels=4)) == equation_of("squeeze_excitation", "(3)")


@every_system
def test_a_traced_pass_is_the_pass_to_the_last_bit(system):
    module = whole(system)
    params, inputs = generic_values(module)
    run = module(params, *inputs.values())
    dy = upstream(run.output)
    steps = trace(module, params, *inputs.values())
    expected, found = run.backward(dy), steps.backward(dy)
    for kind in ("attention", "buffers"):
        np.testing.assert_equal(dict(getattr(steps.run, kind)), dict(getattr(run, kind)), strict=True)
    np.testing.assert_equal(steps.run.output, run.output, strict=True)
    np.testing.assert_equal(found, expected, strict=True)


@every_system
def test_what_the_pass_returns_is_among_the_steps(system):
    steps = traced(whole(system))
    values = [step.value for step in steps.forward_steps]
    for y in as_tuple(steps.run.output):
        laid = [y.ravel(), np.atleast_2d(y).swapaxes(-1, -2).ravel()]  # as sdpa computes it, positions last
        assert any(value.size == y.size and np.array_equal(value.ravel(), z) for value in values for z in laid)
    _, grads = steps.run.backward(steps.backward_passes[0].dy)
    for name, grad in grads.items():
        found = [step.name for step in steps.backward_passes[0].steps if np.array_equal(step.value, grad)]
        assert f"d{name}" in found or any(n.endswith(".grad") and name.endswith(n[:-5]) for n in found), name


def test_values_of_efficient_channel_attention_are_those_computed_by_hand():
    module = npattn.EfficientChannelAttention(channels=2, kernel_size=3)
    x = np.array([[[[1.0, 3.0]], [[0.0, -2.0]]]])
    w = np.array([[[1.0, 0.0, 2.0]]])
    dy = np.array([[[[1.0, 0.0]], [[2.0, 1.0]]]])
    steps = trace(module, {"conv.weight": w}, x)
    dx, _ = steps.backward(dy)
    s = 1 / (1 + np.exp(2))
    slope = s * (1 - s)
    expected = {
        "(1) p": [[2, -1]],  # (1 + 3) / 2, (0 - 2) / 2
        "(2) z": [[-2, 2]],  # 2 · -1, 1 · 2
        "(3) a": [[s, 1 - s]],
        "(4) y": [[[[s, 3 * s]], [[0, -2 * (1 - s)]]]],
        "(4') dx": [[[[s, 0]], [[2 * (1 - s), 1 - s]]]],
        "(4') da": [[1, -2]],  # 1 · 1 + 3 · 0, 0 · 2 - 2 · 1
        "(3') dz": [[slope, -2 * slope]],
        "(2') dp": [[-2 * slope, 2 * slope]],  # z₁ takes 1 of p₀, z₀ takes 2 of p₁
        "(2') conv.weight.grad": [[[-4 * slope, 4 * slope, -slope]]],
        "(1') dx": [[[[s - slope, -slope]], [[2 * (1 - s) + slope, 1 - s + slope]]]],
    }
    assert [step.path for step in steps.steps] == list(expected)
    for path, value in expected.items():
        np.testing.assert_allclose(steps[path].value, value, rtol=1e-14, err_msg=path)
    np.testing.assert_equal(dx, steps["(1') dx"].value)
    assert steps["(2') dp"].line == "dp, grads = back_conv(dz)"


def test_values_of_channel_attention_in_a_residual_are_those_computed_by_hand():
    module = npattn.Residual(npattn.ChannelAttention(channels=1))
    x = np.array([[[[1.0, 2.0]]]])
    steps = trace(module, {"inner.gamma": np.array([10.0])}, x)
    steps.backward(np.array([[[[1.0, -1.0]]]]))
    expected = {  # with one channel every weight is 1: the mixture is the channel itself
        "inner / (1) g": [[[5]]],
        "inner / (2) s": [[[1]]],
        "inner / (3) m": [[[1, 2]]],
        "inner / (4) e": [[[10, 20]]],
        "inner / (5) y": [[[[11, 22]]]],
        "(1) run": [[[[11, 22]]]],
        "(2) y": [[[[12, 24]]]],
        "(2') dx_skip": [[[[1, -1]]]],
        "(2') df": [[[[1, -1]]]],
        "inner / (5') dx": [[[[1, -1]]]],
        "inner / (5') de": [[[[1, -1]]]],
        "inner / (4') dm": [[[10, -10]]],
        "inner / (4') gamma.grad": [-1],  # 1 · 1 - 2 · 1
        "inner / (3') ds": [[[-10]]],  # 10 · 1 - 10 · 2
        "inner / (3') dmixed": [[[10, -10]]],
        "inner / (2') dg": [[[0]]],
        "inner / (1') dgram": [[[0, 0]]],
        "(1') gradients": [[[[11, -11]]]],
        "(1') inner.gamma.grad": [-1],
    }
    assert [step.path for step in steps.steps] == list(expected)
    for path, value in expected.items():
        np.testing.assert_array_equal(steps[path].value, value, err_msg=path)


def test_parts_have_the_names_of_their_parameters():
    def parts(module):
        return {step.parts for step in traced(module).steps}

    assert parts(npattn.CBAM.example()) == {(), ("ChannelGate",), ("SpatialGate",)}
    assert parts(npattn.Residual(npattn.Residual(npattn.CBAM.example()))) == {
        (),
        ("inner",),
        ("inner", "inner"),
        ("inner", "inner", "ChannelGate"),
        ("inner", "inner", "SpatialGate"),
    }
    layers = {("conv5a",), ("conv5c",), ("conv51",), ("conv52",), ("conv6",), ("conv7",), ("conv8",)}
    assert parts(npattn.DualAttentionHead.example()) == {(), ("sa",), ("sc",), *layers}
    assert traced(npattn.DualAttentionHead.example())["sa / (4) o"].equation.startswith("o_{bcj} = ")


def test_values_are_those_of_the_moment():
    module = npattn.EfficientChannelAttention(channels=32)
    params, inputs = generic_values(module, batch=2, height=48, width=64)  # so large that gradients are added in place
    x = inputs["x"]
    dy = np.ones_like(x)
    steps = trace(module, params, x)
    dx, _ = steps.backward(dy)
    gates = steps["(3) a"].value[:, :, None, None]
    np.testing.assert_array_equal(steps["(4') dx"].value, np.broadcast_to(gates, x.shape))
    np.testing.assert_array_equal(steps["(1') dx"].value, dx)
    kept = steps["(4) y"].value.copy(), steps["(1') dx"].value.copy()
    steps.run.output[...] = dx[...] = 0
    np.testing.assert_array_equal(steps["(4) y"].value, kept[0])
    np.testing.assert_array_equal(steps["(1') dx"].value, kept[1])
