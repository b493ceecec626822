import functools
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import npattn
from npattn import Module, Pass, ops
from npattn.fields import integer
from npattn.oracle import generic_values, golden
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.lines import rules_of_lines
from npattn.oracle.mistakes.matching import Search
from npattn.parameters import ones
from tests.oracle.mistakes.searching import SECONDS, diagnosed


@dataclass(frozen=True)
class Centred(Module):
    """Tokens less their mean, by a learnt scale, beside what attention with one weight each makes of them."""

    channels: int = integer(least=1, default=4)

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height, width)}

    def output_shapes(self, batch, height, width):
        return {"output": (batch, height, width)}

    def parameters(self):
        return {"weight": ones(1)}

    def forward(self, params, x):
        m = x.mean(axis=-1, keepdims=True)  # (1)
        c = x - m  # (2)
        s, back_softmax = ops.softmax(c)  # (3)
        g = s @ x.swapaxes(-1, -2)  # (4)
        y = params["weight"] * (g @ c) + np.tanh(c)  # (5)

        def backward(dy):
            dc = dy * (1 - np.tanh(c) ** 2)  # (5')
            dproduct = params["weight"] * dy
            dg = dproduct @ c.swapaxes(-1, -2)
            dc = dc + g.swapaxes(-1, -2) @ dproduct
            dx = dg.swapaxes(-1, -2) @ s  # (4')
            dc = dc + back_softmax(dg @ x)  # (3')
            dx = dx + dc  # (2')
            dx = dx - dc.mean(axis=-1, keepdims=True)  # (1')
            return dx, {"weight": np.array([(dy * (g @ c)).sum()])}

        return Pass(y, backward)


WRONG = {
    "tanh left out": ("(5)", lambda x, w, s, c: w * (s(c) @ x.swapaxes(1, 2) @ c) + c),
    "sign turned": ("(2)", lambda x, w, s, c: forward(x, w, s, 2 * x - c)),
    "sum for mean": ("(1)", lambda x, w, s, c: forward(x, w, s, x - x.sum(-1, keepdims=True))),
    "over axis -2": ("(1)", lambda x, w, s, c: forward(x, w, s, x - x.mean(-2, keepdims=True))),
    "transposition left out": ("(4)", lambda x, w, s, c: w * (s(c) @ x @ c) + np.tanh(c)),
    "exchanged": ("(5)", lambda x, w, s, c: w * (c @ (s(c) @ x.swapaxes(1, 2))) + np.tanh(c)),
    "params['weight'] left out": ("(5)", lambda x, w, s, c: forward(x, 1, s, c)),
    "over the wrong axis": ("(3)", lambda x, w, s, c: forward(x, w, lambda z: ops.softmax(z, 1)[0], c)),
}


def forward(x, w, s, c):
    return w * (s(c) @ x.swapaxes(1, 2) @ c) + np.tanh(c)


@pytest.fixture(scope="module")
def case():
    return golden(Centred(), batch=3, height=4, width=4, dtype="float32", certify=False)


@pytest.mark.parametrize("words", WRONG)
def test_a_line_read_wrongly_is_named_with_its_tag(case, words):
    tag, wrong = WRONG[words]
    x, w = (np.array(a, np.float64) for a in (case.inputs["x"], case.params["weight"]))
    y = wrong(x, w, lambda z: ops.softmax(z)[0], x - x.mean(-1, keepdims=True))
    found = diagnosed(case, {"output": y})
    names = [one.name for one in found.suspects[: found.alike]]
    assert any(name.startswith(tag) and words in name for name in names), names


def test_a_term_of_a_gradient_that_is_not_added_is_named(case):
    x = np.array(case.inputs["x"], np.float64)
    dx = case.expected["x.grad"] - dx_of_mean(case, x)
    found = diagnosed(case, {"output": case.expected["output"], "x.grad": dx})
    assert found[0].name.startswith("(1') dc.mean(axis=-1, keepdims=True) not taken off")
    assert found.sure


@pytest.mark.parametrize("words", ["(1') dc.mean(axis=-1, keepdims=True) not taken off", "(5) tanh left out"])
def test_a_line_read_wrongly_is_named_beside_the_steps_of_the_kernel_too(case, words):
    steps = {name: step.expected for name, step in case.steps().items()}
    results = dict(case.expected)
    if words.startswith("(1')"):
        results["x.grad"] = steps["(1') dx"] = steps["(2') dx"]
    else:
        results["output"] = steps["(5) y"] = steps["(5) y"] - np.tanh(steps["(2) c"]) + steps["(2) c"]
    found = diagnosed(case, results | steps)
    assert found[0].name.startswith(words)
    assert found.sure
    assert found[0].all


def test_a_reading_that_writes_to_what_a_pass_is_given_spoils_no_other():
    case = golden(Collecting(), batch=1, height=3, width=4, dtype="float32", certify=False)
    search = Search(case, {"x.grad": 2 * case.expected["x.grad"]}, SECONDS)
    search.find_places(rules_of_lines(case.module))
    search.singles()
    np.testing.assert_array_equal(search.given.upstream["output"], case.upstream["output"])
    assert any("zeros_like left out" in mistake.name for mistake in search.places)


@dataclass(frozen=True)
class Collecting(Module):
    """A gradient that is collected in zeros."""

    channels: int = integer(least=1, default=4)

    def forward(self, params, x):
        y = np.tanh(x)  # (1)

        def backward(dy):
            dx = np.zeros_like(dy)
            dx += dy * (1 - y * y)  # (1')
            return dx, {}

        return Pass(y, backward)


def dx_of_mean(case, x):
    step = case.steps()["(3') dc"].expected
    return -step.mean(axis=-1, keepdims=True)


def test_wrong_lines_are_carried_through_backward_as_their_derivative(case):
    """What stands in no primitive is differentiated as well."""
    x, dy = (np.array(a, np.float64) for a in (case.inputs["x"], case.upstream["output"]))
    one = next(m for m in rules_of_lines(case.module) if m.name.startswith("(5) tanh left out") and m.way == "carried")

    def run(module, params, inputs, upstream):
        passed = module(params, *inputs.values())
        dx, grads = passed.backward(upstream["output"])
        return {"output": passed.output, "x.grad": dx, "weight.grad": grads["weight"]}

    def output(x):
        return one.apply(run, case.module, params, {"x": x}, {"output": dy})["output"]

    params = {"weight": np.array(case.params["weight"], np.float64)}
    found = one.apply(run, case.module, params, {"x": x}, {"output": dy})
    v = np.random.RandomState(0).standard_normal(x.shape)
    slope = ((output(x + 1e-6 * v) - output(x - 1e-6 * v)) * dy).sum() / 2e-6
    assert np.isclose((found["x.grad"] * v).sum(), slope, rtol=1e-6)
    assert not np.allclose(found["x.grad"], run(case.module, params, {"x": x}, {"output": dy})["x.grad"])


def test_code_that_is_not_at_hand_has_no_lines():
    space = dict(globals())
    exec(
        "class Unseen(Centred):\n    def forward(self, params, x):\n        return Pass(x + x, None)",
        space,
    )
    assert rules_of_lines(space["Unseen"]()) == []


def test_a_line_may_read_another_tensor():
    module = npattn.CATALOGUE["pam"].example()
    found = {one.name for one in rules_of_lines(module)}
    assert any("q read, not x: `layers.conv(q, params, 'key_conv')`" in name for name in found)
    assert not any("positions read" in name for name in found)


def test_backward_alone_may_read_another_tensor_than_was_saved():
    module = npattn.CATALOGUE["external"].example()
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    dy = np.random.RandomState(0).standard_normal(inputs["x"].shape)
    given = params, inputs, {"output": dy}
    one = next(m for m in rules_of_lines(module) if m.name == "(9) gradient: backward, where n read, not t")
    right, wrong = (way(module, *given) for way in (run, functools.partial(one.apply, run)))
    n = next(step.value for step in npattn.trace(module, params, inputs["x"]).steps if step.name == "n")
    assert np.array_equal(wrong["output"], right["output"])
    assert np.allclose(wrong["conv2.1.bias.grad"], (dy * (n > 0)).sum(axis=(0, 2, 3)), rtol=1e-12)
    assert not np.allclose(wrong["conv2.1.bias.grad"], right["conv2.1.bias.grad"])


def run(module, *given):
    return named_results(module, Given(*given))


@dataclass(frozen=True)
class Products(Module):
    """Tokens that attend to each other without a softmax, times their number, and times 2."""

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height, width)}

    def output_shapes(self, batch, height, width):
        return {"output": (batch, height, width)}

    def forward(self, params, x):
        n = x.shape[1]
        s = np.einsum("bmc,bnc->bmn", x, np.tanh(x))  # (1)
        y = 2 * n * np.einsum("bmn,bnc->bmc", s, x)  # (2)

        def backward(dy):
            ds = 2 * n * np.einsum("bmc,bnc->bmn", dy, x)  # (2')
            dx = np.einsum("bmn,bmc->bnc", 2 * n * s, dy)  # (2')
            dt = np.einsum("bmn,bmc->bnc", ds, x)  # (1')
            dx = dx + np.einsum("bmn,bnc->bmc", ds, np.tanh(x))  # (1')
            return dx + dt * (1 - np.tanh(x) ** 2), {}

        return Pass(y, backward)


@pytest.fixture(scope="module")
def products():
    return golden(Products(), batch=2, height=2, width=5, dtype="float32", certify=False)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("(1) operands exchanged", lambda x, t: 4 * (t @ x.swapaxes(1, 2)) @ x),
        ("(2) s transposed", lambda x, t: 4 * (t @ x.swapaxes(1, 2)) @ x),
    ],
)
def test_operands_of_a_sum_of_products_are_exchanged_or_transposed(products, words, wrong):
    x = np.asarray(products.inputs["x"], np.float64)
    found = diagnosed(products, {"output": wrong(x, np.tanh(x))})
    assert any(one.name.startswith(words) for one in found.suspects[: found.alike])


def test_a_gradient_that_backward_makes_by_a_function_of_numpy_may_be_lost(products):
    x, dy = (np.asarray(a, np.float64) for a in (products.inputs["x"], products.upstream["output"]))
    dt = np.einsum("bmn,bmc->bnc", 4 * np.einsum("bmc,bnc->bmn", dy, x), x)
    wrong = products.expected["x.grad"] - dt * (1 - np.tanh(x) ** 2)
    found = diagnosed(products, dict(products.expected) | {"x.grad": wrong})
    assert found[0].name.startswith("(1') dt lost: ")


def test_lines_that_are_wrong_in_other_words_with_the_same_results_are_all_told(products):
    """Of 2 tokens their number is 2 as well: whether it was left out, or the 2, no result tells."""
    found = diagnosed(products, {name: a / 2 for name, a in products.expected.items()})
    told = " ".join(one.name for one in found.suspects[: found.alike])
    assert "2 left out: `n` for `2 * n`" in told
    assert "n left out: `2` for `2 * n`" in told


@dataclass(frozen=True)
class Ramped(Module):
    """A ramp added, with an index of a product of a number, and a parameter."""

    channels: int = integer(least=1, default=3)

    def parameters(self):
        return {"shift": ones(1)}

    def forward(self, params, x):
        ramp = (0.5 * np.arange(x.shape[-1]))[None, :].astype(x.real.dtype)
        return Pass(x * x + ramp + params["shift"], lambda dy: (2 * x * dy, {"shift": dy.sum().reshape(1)}))


def test_wrong_lines_that_python_warns_of_are_not_compiled():
    case = golden(Ramped(), batch=2, height=2, width=3, dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        found = diagnosed(case, {"output": case.expected["output"] - 2 * np.float64([0, 0.5, 1])})
    assert "sign turned" in str(found) or "not added" in str(found) or "x * x - ramp" in str(found)


def test_a_mistake_in_a_line_that_is_no_step_is_not_said_to_be_several():
    case = golden(Ramped(), batch=2, height=2, width=3, dtype="float32")
    kernel = {"output": case.expected["output"] - case.params["shift"], "shift.grad": np.zeros(1)}
    off = case.expected | kernel
    assert "more than one mistake, or one in lines between steps" in " ".join(str(case.compare(off)).split())


def decay(length):
    distance = np.arange(length)[:, None] - np.arange(length)
    return np.where(distance >= 0, 0.9 ** np.abs(distance), 0)


@dataclass(frozen=True)
class Retention(Module):
    """Weights that fall with the distance: made by a method, a static one and a function."""

    channels: int = integer(least=1, default=8)

    def input_shapes(self, batch, height, width):
        return dict.fromkeys("qkv", (batch, width, self.channels))

    def output_shapes(self, batch, height, width):
        return {"output": (batch, width, self.channels)}

    def scores(self, q, k):
        scale = 1 / math.sqrt(self.channels)
        z = scale * (q @ k.swapaxes(-1, -2))

        def backward(dz):
            return scale * dz @ k, scale * dz.swapaxes(-1, -2) @ q

        return z, backward

    @staticmethod
    def doubled(a):
        return 2 * a

    def forward(self, params, q, k, v):
        z, back_scores = self.scores(q, k)
        w = self.doubled(decay(q.shape[1]).astype(q.real.dtype))
        a = w * z

        def backward(dy):
            da = dy @ v.swapaxes(-1, -2)
            return (*back_scores(w * da), a.swapaxes(-1, -2) @ dy), {}

        return Pass(a @ v, backward)


def retention(case, *, scale, scale_back, factor=2, least=0):
    """A kernel in float32."""
    q, k, v, dy = (np.float32(a) for a in (*case.inputs.values(), *case.upstream.values()))
    distance = np.arange(q.shape[1])[:, None] - np.arange(q.shape[1])
    w = np.float32(factor * np.where(distance >= least, 0.9 ** np.abs(distance), 0))
    a = np.float32(scale) * w * (q @ k.swapaxes(1, 2))
    dz = np.float32(scale_back) * w * (dy @ v.swapaxes(1, 2))
    return {"output": a @ v, "q.grad": dz @ k, "k.grad": dz.swapaxes(1, 2) @ q, "v.grad": a.swapaxes(1, 2) @ dy}


ROOT = 8**-0.5
HELPERS = {
    "in scores: sqrt left out": {"scale": 1 / 8, "scale_back": 1 / 8},
    "in scores: scale left out": {"scale": 1, "scale_back": 1},
    "in doubled: 2 left out": {"scale": ROOT, "scale_back": ROOT, "factor": 1},
    "in decay: equality left out": {"scale": ROOT, "scale_back": ROOT, "least": 1},
}


@pytest.mark.parametrize("words", HELPERS)
def test_a_line_of_what_a_forward_pass_calls_is_named_with_its_function(words):
    case = golden(Retention(), batch=2, height=1, width=6, dtype="float32", certify=False)
    assert case.compare(retention(case, scale=ROOT, scale_back=ROOT)).passed
    names = [one.name for suspect in diagnosed(case, retention(case, **HELPERS[words])) for one in suspect.mistakes]
    assert any(words in name for name in names), names


@dataclass(frozen=True)
class Rotated(Module):
    """Products of queries and keys turned by their positions: by a function that stands in the forward pass."""

    channels: int = integer(least=2, default=4)

    def input_shapes(self, batch, height, width):
        return dict.fromkeys("qk", (batch, width, self.channels))

    def output_shapes(self, batch, height, width):
        return {"output": (batch, width, width)}

    def forward(self, params, q, k):
        half, angle = self.channels // 2, np.arange(q.shape[1], dtype=q.real.dtype)[:, None]
        cos, sin = np.cos(angle), np.sin(angle)

        def turn(x):
            one, other = x[..., :half], x[..., half:]
            return np.concatenate([one * cos - other * sin, other * cos + one * sin], -1)

        def turn_back(d):
            one, other = d[..., :half], d[..., half:]
            return np.concatenate([one * cos + other * sin, other * cos - one * sin], -1)

        a, b = turn(q), turn(k)

        def backward(dy):
            return (turn_back(dy @ b), turn_back(dy.swapaxes(1, 2) @ a)), {}

        return Pass(a @ b.swapaxes(1, 2), backward)


def rotated(case, *, sign=1.0, of_keys=1.0, undone=1.0):
    """A kernel in float32, in which a rotation has another sign in its second half, or is left out."""
    q, k, dy = (np.float32(a) for a in (*case.inputs.values(), *case.upstream.values()))

    def turn(x, times=1.0, *, back=False):
        (one, other), angle = np.split(x, 2, axis=-1), np.float32(times) * np.arange(x.shape[1], dtype=x.dtype)[:, None]
        cos, sin = np.cos(angle), np.sin(angle)
        if back:
            return np.concatenate([one * cos + sign * other * sin, other * cos - one * sin], -1)
        return np.concatenate([one * cos - other * sin, other * cos + sign * one * sin], -1)

    a, b = turn(q), turn(k, of_keys)
    dq, dk = turn(dy @ b, back=True), turn(dy.swapaxes(1, 2) @ a, of_keys * undone, back=True)
    return {"output": a @ b.swapaxes(1, 2), "q.grad": dq, "k.grad": dk}


NESTED = {
    "sign turned: `other * cos - one * sin` for `other * cos + one * sin`": {"sign": -1.0},
    "turn left out: `k` for `turn(k)`": {"of_keys": 0.0},
    "turn_back left out: `dy.swapaxes(1, 2) @ a`": {"undone": 0.0},
}


@pytest.mark.parametrize("words", NESTED)
def test_a_line_of_a_function_within_the_forward_pass_is_named_and_a_call_of_it_may_be_left_out(words):
    case = golden(Rotated(), batch=2, height=1, width=6, dtype="float32", certify=False)
    assert case.compare(rotated(case)).passed
    names = [one.name for suspect in diagnosed(case, rotated(case, **NESTED[words])) for one in suspect.mistakes]
    assert any(words in name for name in names), names
