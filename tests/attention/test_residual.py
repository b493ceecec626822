import dataclasses
import importlib
import pickle
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import assume, given, settings

import npattn
from npattn import LambdaLayer, Module, Pass, PositionAttention, Residual, SqueezeExcitation
from npattn.oracle import generic_values, gradcheck
from npattn.parameters import add_prefix, strip_prefix
from tests.attention.parity import assert_parity
from tests.naming import for_each
from tests.strategies import NAMESPACE, cases, residual_modules, seeds


def gives_one_map(system):
    shapes = list(system.example().output_shapes(batch=1, height=3, width=3).values())
    return len(shapes) == 1 and len(shapes[0]) == 4


# Imported here, as Hypothesis forbids a test to define others.
TESTS = {
    key: importlib.import_module(f"tests.attention.test_{system.__module__.rpartition('.')[2]}")
    for key, system in npattn.CATALOGUE.items()
    if gives_one_map(system) and system is not Residual
}


def published(module):
    """The PyTorch form: the inner system's own, as a member of that name."""
    torch = pytest.importorskip("torch")
    of_inner = published if isinstance(module.inner, Residual) else TESTS[module.inner.key].published

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = of_inner(module.inner)

        def forward(self, x, *others):
            return x + self.inner(x, *others)

    return Reference().train(module.training)


@dataclass(frozen=True)
class Guided(Module):
    """Two inputs, of which the second has a gradient, and the first is handed on as it is where `idle`."""

    key: ClassVar = "guided"
    channels: int = 3
    idle: bool = False

    @classmethod
    def example(cls):
        return cls()

    def input_shapes(self, batch, height, width):
        return {"map": (batch, self.channels, height, width), "guide": (batch, self.channels, 1, 1)}

    def draw_input(self, name, shape, random):
        return random.randint(0, 2, shape).astype(float) if name == "guide" else random.standard_normal(shape)

    def forward(self, params, x, guide):
        if self.idle:
            return Pass(x, lambda dy: ((dy, None), {}))
        return Pass(x * guide, lambda dy: ((dy * guide, (dy * x).sum(axis=(2, 3), keepdims=True)), {}))


@dataclass(frozen=True)
class Rounded(Module):
    """Rounds its input, and estimates the gradient as if it didn't."""

    key: ClassVar = "rounded"
    estimator: ClassVar = "straight-through"
    channels: int = 3

    @classmethod
    def example(cls):
        return cls()

    def forward(self, params, x):
        return Pass(np.rint(x.real).astype(x.dtype), lambda dy: (dy.copy(), {}))

    def surrogate(self, params, x):
        return lambda params, x: Pass(x, lambda dy: (dy, {}))


def innermost(module):
    return innermost(module.inner) if isinstance(module, Residual) else module


@given(cases(residual_modules()), seeds)
@settings(max_examples=30, deadline=None)
def test_output_gradients_and_running_statistics_agree_with_pytorch(case, seed):
    module, params, inputs = case
    x, *others = inputs.values()
    assume(not others)  # whose gradients are the inner system's, as the next test says
    # Of one image PyTorch's batch norm misreads the gradient there: `tests/benchmarks/pytorch_faults.py`.
    assume(len(x) > 1 or not isinstance(innermost(module), LambdaLayer))
    dy = np.random.RandomState(seed).standard_normal(x.shape)
    assert_parity(module, published(module), params, x, dy, floor=1)  # the highest of the systems' own tests


@given(cases(residual_modules()), seeds)
@settings(max_examples=25)
def test_output_is_the_input_and_what_the_inner_system_makes_of_it_forward_and_backward(case, seed):
    module, params, inputs = case
    x, *others = inputs.values()
    run, alone = module(params, x, *others), module.inner(strip_prefix("inner.", params), x, *others)
    np.testing.assert_array_equal(run.output, x + alone.output)
    np.testing.assert_equal(dict(run.attention), dict(alone.attention))
    np.testing.assert_equal(run.buffers, add_prefix("inner.", alone.buffers))
    assert (run.buffers != {}) == (module.training and module.buffer_shapes() != {})
    dy = np.random.RandomState(seed).standard_normal(x.shape)
    dx, grads = run.backward(dy)
    dx_alone, grads_alone = alone.backward(dy)
    if others:
        (dx, *rest), (dx_alone, *rest_alone) = dx, dx_alone
        np.testing.assert_equal(rest, rest_alone)
    np.testing.assert_array_equal(dx, dy + dx_alone)
    np.testing.assert_equal(grads, add_prefix("inner.", grads_alone))


def test_a_published_state_dict_loads_unchanged_and_from_within_a_larger_one():
    torch = pytest.importorskip("torch")
    module = Residual(npattn.CBAM(channels=12, reduction=4))
    reference = published(module).eval()
    saved = reference.state_dict()
    params = module.from_state_dict({f"layer1.0.{name}": tensor for name, tensor in saved.items()}, "layer1.0.")
    assert list(params) == [name for name in saved if not name.endswith("num_batches_tracked")]
    assert all(value.dtype == np.float32 for value in params.values())
    x = np.random.RandomState(0).standard_normal((2, 12, 6, 5)).astype(np.float32)
    expected = reference(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-5, atol=1e-6)


def test_round_a_gate_every_number_grows_by_one_to_two():
    module = Residual(SqueezeExcitation.example())
    params, inputs = generic_values(module)
    ratio = module(params, inputs["x"]).output / inputs["x"]
    assert ((ratio > 1) & (ratio < 2)).all()


def test_round_a_system_that_starts_as_the_identity_it_starts_by_doubling():
    module = Residual(PositionAttention(channels=8))
    params, x = module.init(), generic_values(module)[1]["x"]
    run = module(params, x)
    np.testing.assert_array_equal(run.output, 2 * x)
    np.testing.assert_array_equal(run.backward(x)[0], 2 * x)


def test_further_inputs_pass_through_under_their_names_and_with_their_gradients():
    module = Residual(Guided())
    params, inputs = generic_values(module)
    assert list(inputs) == ["map", "guide"]
    assert set(np.unique(inputs["guide"])) <= {0, 1}
    x, guide = inputs.values()
    run = module(params, x, guide)
    np.testing.assert_array_equal(run.output, x + x * guide)
    dx, dguide = run.backward(x)[0]
    np.testing.assert_array_equal(dx, x + x * guide)
    np.testing.assert_allclose(dguide, (x * x).sum(axis=(2, 3), keepdims=True), rtol=1e-14)
    assert gradcheck(module, params, inputs).passed
    with pytest.raises(ValueError, match=r"^Residual\(inner=Guided.*: guide has shape \(1, 3, 1, 1\); expected \(2, 3"):
        module(params, x, guide[:1])


def test_an_inner_system_that_hands_the_upstream_gradient_on_does_not_get_it_changed():
    module = Residual(Guided(idle=True))
    params, inputs = generic_values(module)
    dy = np.ones_like(inputs["map"])
    (dx, none), _ = module(params, *inputs.values()).backward(dy)
    np.testing.assert_array_equal(dx, 2)
    np.testing.assert_array_equal(dy, 1)
    assert none is None


@pytest.mark.parametrize("module", [Residual(Rounded()), Residual(Residual(Rounded()))])
def test_an_estimator_of_the_inner_system_is_the_wholes(module):
    params, inputs = generic_values(module)
    assert module.estimator == "straight-through"
    report = gradcheck(module, params, inputs)
    assert report.passed
    assert report.estimator == "straight-through"
    assert Residual.example().estimator is None


def test_what_only_the_inner_system_refuses_is_refused():
    module = Residual(npattn.CBAM(channels=4, training=True))
    params = module.init()
    assert module.training
    with pytest.raises(ValueError, match="expected at least two values in each channel"):
        module(params, np.ones((1, 4, 1, 1)))
    module(params, np.ones((2, 4, 1, 1)))


def test_running_statistics_come_back_under_the_names_that_a_call_takes_them_by():
    module = Residual(npattn.CBAM(channels=4, training=True))
    params, inputs = generic_values(module)
    run = module(params, inputs["x"])
    assert list(run.buffers) == list(module.buffer_shapes()) != []
    module(params | run.buffers, inputs["x"])


@pytest.mark.parametrize("depth", [1, 2])
def test_attention_map_is_the_inner_systems_for_the_parameters_of_the_whole(depth):
    inner = module = PositionAttention(channels=8)
    for _ in range(depth):
        module = Residual(module)
    params, inputs = generic_values(module)
    own = strip_prefix("inner." * depth, params)
    for rows in (None, [3, 1]):
        found = module.attention_map(params, inputs["x"], rows=rows)
        np.testing.assert_array_equal(found, inner.attention_map(own, inputs["x"], rows))
    assert not hasattr(Residual.example(), "attention_map")


@given(residual_modules())
@settings(max_examples=25)
def test_a_residual_is_written_hashed_and_pickled_as_a_value(module):
    assert repr(module) == f"Residual(inner={module.inner!r})"
    assert eval(repr(module), NAMESPACE) == pickle.loads(pickle.dumps(module)) == module
    assert hash(module) == hash(dataclasses.replace(module))
    assert module != Residual(module)
    assert list(module.parameter_shapes()) == [f"inner.{name}" for name in module.inner.parameter_shapes()]


SHAPE_CHANGING = [
    (npattn.DualAttentionHead(in_channels=16, classes=16), "gives 3 outputs; expected a system of one output"),
    (npattn.SlidingWindowSegmentation(8, 3, 3, 2), r"makes \(2, 3, 211, 307\) of \(2, 8, 211, 307\); expected"),
]


@pytest.mark.parametrize(("inner", "message"), SHAPE_CHANGING)
def test_a_system_that_changes_the_shape_is_refused_by_name(inner, message):
    with pytest.raises(ValueError, match=message) as caught:
        Residual(inner)
    assert str(caught.value).startswith(f"Residual: inner={inner} ")
    assert "such as SqueezeExcitation" in str(caught.value)


def test_a_system_of_another_kind_that_keeps_the_shape_is_welcome():
    as_many_classes = npattn.SlidingWindowSegmentation(channels=3, classes=3, window=2, stride=1)
    module = Residual(as_many_classes)
    assert gradcheck(module, *generic_values(module)).passed


@for_each(
    ("inner", "message"),
    [
        (8, "inner=8 is an int; expected a system, such as"),
        (None, "inner=None is a NoneType; expected a system"),
        ("se", "inner='se' is a str; expected a system"),
        (npattn.CBAM, "inner=.*CBAM.* is a class, not an instance of it; expected a system"),
        (np.tanh, "inner=.*tanh.* is a numpy.ufunc; expected a system"),
    ],
)
def test_what_is_no_system_is_refused_by_its_type(inner, message):
    with pytest.raises(TypeError, match=f"^Residual: {message}"):
        Residual(inner)


def test_the_inner_output_is_let_go_of_after_forward(monkeypatch):
    seen, add = [], npattn.ops.add

    def watched(*arrays):
        seen.append(weakref.ref(arrays[1]))
        return add(*arrays)

    monkeypatch.setattr(npattn.ops, "add", watched)
    module = npattn.Residual(npattn.EfficientChannelAttention(channels=8))
    run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    assert len(seen) == 1
    assert seen[0]() is None
    assert run.backward(np.ones((2, 8, 7, 5)))[0].shape == (2, 8, 7, 5)
