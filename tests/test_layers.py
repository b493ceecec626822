import dataclasses
import functools
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import ChannelAttention, CoordinateAttention, PositionAttention, layers, ops
from npattn.module import Pass
from npattn.parameters import he_normal, norm_buffers, norm_parameters, zeros
from tests.ops.primitives import normal, worst_error


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer's call, on an input of some shape and on parameters that are declared."""

    call: object
    shape: tuple
    declared: dict
    buffers: dict = dataclasses.field(default_factory=dict)

    def params(self):
        random = np.random.RandomState(1)
        drawn = self.declared | self.buffers
        return {name: parameter.draw(random, generic=True) for name, parameter in drawn.items()}


def value_alone(layer):
    """Leave out a layer's running statistics."""

    def call(*arguments, **options):
        (y, _), backward = layer(*arguments, **options)
        return y, backward

    return call


batch_norm, conv_norm_act = value_alone(layers.batch_norm), value_alone(layers.conv_norm_act)
MAP = 2, 3, 4, 5
CONV = layers.conv_parameters("conv", 2, 3, 3)
NORM = norm_parameters("bn", 3), norm_buffers("bn", 3)
BRANCH = (
    layers.conv_norm_act_parameters("convs.4", 2, 3, 3, parts=("1", "2")),
    layers.conv_norm_act_buffers("convs.4", 2, parts=("1", "2")),
)
CASES = {
    "conv": Case(lambda x, p: layers.conv(x, p, "conv", padding=2, dilation=2), MAP, CONV),
    "conv without bias": Case(
        lambda x, p: layers.conv(x, p, "conv"), MAP, layers.conv_parameters("conv", 2, 3, 3, bias=False)
    ),
    "conv with a matrix": Case(lambda x, p: layers.conv(x, p, "fc"), MAP, layers.linear_parameters("fc", 2, 3)),
    "conv with the kernel of a row": Case(
        lambda x, p: layers.conv(x, p, "conv"), MAP, {"conv.weight": he_normal(2, 3, 1), "conv.bias": zeros(2)}
    ),
    "conv by other names": Case(
        lambda x, p: layers.conv(x, p, "in_proj", separator="_"),
        MAP,
        {"in_proj_weight": he_normal(2, 3), "in_proj_bias": zeros(2)},
    ),
    "conv1d": Case(lambda x, p: layers.conv1d(x, p, "conv"), (2, 5), {"conv.weight": he_normal(1, 1, 3)}),
    "linear": Case(lambda x, p: layers.linear(x, p, "mlp.1"), (4, 3), layers.linear_parameters("mlp.1", 2, 3)),
    "linear without bias": Case(
        lambda x, p: layers.linear(x, p, "fc1"), (4, 3), layers.conv_parameters("fc1", 2, 3, bias=False)
    ),
    "layer norm": Case(lambda x, p: layers.layer_norm(x, p, "norm"), (4, 3), norm_parameters("norm", 3)),
    "layer norm of tokens": Case(lambda x, p: layers.layer_norm(x, p, "norm"), (2, 4, 3), norm_parameters("norm", 3)),
    "score": Case(lambda x, p: layers.score(x, p, "score"), (2, 3, 6), layers.conv_parameters("score", 1, 3)),
    "scale": Case(lambda x, p: layers.scale(x, p, "gamma"), MAP, {"gamma": zeros(1)}),
    "batch norm": Case(lambda x, p: batch_norm(x, p, "bn", training=False), MAP, *NORM),
    "batch norm in training": Case(lambda x, p: batch_norm(x, p, "bn", training=True), MAP, *NORM),
    "conv, norm, act": Case(
        lambda x, p: conv_norm_act(x, p, "convs.4", training=False, parts=("1", "2"), dilation=2), MAP, *BRANCH
    ),
    "conv, norm, act in training": Case(
        lambda x, p: conv_norm_act(x, p, "convs.4", training=True, parts=("1", "2")), MAP, *BRANCH
    ),
}
every_layer = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_step = pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("conv,")])


@every_layer
def test_gradients_of_a_layer_agree_with_the_complex_step(case):
    params, names = case.params(), list(case.declared)

    def primitive(x, *values):
        y, backward = case.call(x, params | dict(zip(names, values, strict=True)))

        def gradients(dy):
            dx, grads = backward(dy)
            return dx, *(grads[name] for name in names)

        return y, gradients

    assert worst_error(primitive, normal(*case.shape), *(params[name] for name in names)) < 1e-10


@every_layer
def test_gradients_have_the_names_and_shapes_that_are_declared_in_that_order(case):
    y, backward = case.call(normal(*case.shape), case.params())
    _, grads = backward(y)
    assert [(name, grad.shape) for name, grad in grads.items()] == [
        (name, parameter.shape) for name, parameter in case.declared.items()
    ]


@every_layer
def test_a_layer_writes_to_nothing_that_it_is_given(case):
    x, params = normal(*case.shape), case.params()
    for array in (x, *params.values()):
        array.flags.writeable = False
    y, backward = case.call(x, params)
    dy = np.ones_like(y)
    dy.flags.writeable = False
    backward(dy)


@every_layer
def test_a_layer_reads_the_parameters_of_its_name_alone(case):
    x, params = normal(*case.shape), case.params()
    others = {f"{name}.other": np.full(1, np.nan) for name in params} | {"other.weight": np.full((2, 3), np.nan)}
    y, backward = case.call(x, params)
    same, back = case.call(x, params | others)
    np.testing.assert_array_equal(y, same)
    assert list(back(y)[1]) == list(backward(y)[1])


@every_step
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_gradient_that_came_another_way_is_added_and_left_as_it_is(name, seed, writeable):
    case = CASES[name]
    y, backward = case.call(normal(*case.shape), case.params())
    came = normal(*case.shape, seed=seed)
    kept = came.copy()
    came.flags.writeable = writeable
    alone, grads = backward(y)
    total, same = backward(y, accumulate_into=came)
    np.testing.assert_array_equal(total, came + alone)
    np.testing.assert_array_equal(came, kept)
    assert not np.shares_memory(total, came)
    for parameter, gradient in grads.items():
        np.testing.assert_array_equal(gradient, same[parameter])


def test_layers_have_the_values_of_their_primitives():
    x, params = normal(*MAP), CASES["conv"].params()
    expected = ops.conv2d(x, params["conv.weight"], params["conv.bias"], padding=2, dilation=2)[0]
    np.testing.assert_array_equal(CASES["conv"].call(x, params)[0], expected)
    rows, matrix = normal(4, 3), CASES["linear"].params()
    expected = ops.linear(rows, matrix["mlp.1.weight"], matrix["mlp.1.bias"])[0]
    np.testing.assert_array_equal(layers.linear(rows, matrix, "mlp.1")[0], expected)
    norm = CASES["layer norm"].params()
    expected = ops.layer_norm(rows, norm["norm.weight"], norm["norm.bias"], eps=0.5)[0]
    np.testing.assert_array_equal(layers.layer_norm(rows, norm, "norm", eps=0.5)[0], expected)


@pytest.mark.parametrize("momentum", [0.1, 0.01])
def test_batch_norm_names_its_new_running_statistics_and_has_none_outside_of_training(momentum):
    x, params = normal(*MAP), CASES["batch norm"].params()
    (_, running), _ = layers.batch_norm(x, params, "bn", training=True, momentum=momentum)
    old = params["bn.running_mean"], params["bn.running_var"]
    (_, expected), _ = ops.batch_norm(x, params["bn.weight"], params["bn.bias"], *old, training=True, momentum=momentum)
    assert list(running) == ["bn.running_mean", "bn.running_var"]
    for found, new in zip(running.values(), expected, strict=True):
        np.testing.assert_array_equal(found, new)
    (_, running), _ = layers.batch_norm(x, params, "bn", training=False)
    assert running == {}


@pytest.mark.parametrize("batch", [0, 1])
def test_batch_norm_learns_no_variance_from_one_number_and_says_of_which_norm(batch):
    x, params = np.ones((batch, MAP[1], 1, 1)), CASES["batch norm"].params()
    with pytest.raises(ValueError, match=r"batch_norm 'bn': x has shape .* at least two values in each channel"):
        layers.batch_norm(x, params, "bn", training=True)
    (y, _), _ = layers.batch_norm(x, params, "bn", training=False)
    assert y.shape == x.shape


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_conv_norm_act_with_a_stride_has_every_so_manieth_position_of_the_whole(kernel_size, stride):
    parts = "conv", "bn"
    declared = layers.conv_norm_act_parameters("a", 6, 1, kernel_size, parts=parts)
    declared |= layers.conv_norm_act_buffers("a", 6, parts=parts)
    assert list(declared)[:2] == ["a.conv.weight", "a.bn.weight"]
    params = {name: parameter.draw(np.random.RandomState(2), generic=True) for name, parameter in declared.items()}
    layer = functools.partial(layers.conv_norm_act, normal(*MAP), params, "a", training=False, parts=parts, groups=3)
    (whole, _), _ = layer(activation="silu")
    (some, _), _ = layer(activation="silu", stride=stride)
    np.testing.assert_allclose(some, whole[:, :, ::stride, ::stride], rtol=1e-12)
    (rectified, _), _ = layer()
    assert (rectified >= 0).all()
    assert (whole < 0).any()


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_conv_norm_act_keeps_the_size_and_is_its_three_steps(kernel_size, dilation):
    declared = layers.conv_norm_act_parameters("a", 2, 3, kernel_size) | layers.conv_norm_act_buffers("a", 2)
    params = {name: parameter.draw(np.random.RandomState(2), generic=True) for name, parameter in declared.items()}
    (r, running), _ = layers.conv_norm_act(normal(*MAP), params, "a", training=True, dilation=dilation)
    assert r.shape == (2, 2, 4, 5)
    assert list(running) == ["a.1.running_mean", "a.1.running_var"]
    padding = dilation * (kernel_size // 2)
    z, _ = ops.conv2d(normal(*MAP), params["a.0.weight"], padding=padding, dilation=dilation)
    names = "weight", "bias", "running_mean", "running_var"
    (n, _), _ = ops.batch_norm(z, *(params[f"a.1.{name}"] for name in names), training=True)
    np.testing.assert_array_equal(r, ops.relu(n)[0])


def test_submodule_finds_its_parameters_and_names_gradients_and_buffers_as_the_whole_does():
    inner = CoordinateAttention(channels=3, training=True)
    own, x = inner.init(generic=True), normal(*MAP)
    alone = inner.forward(own, x)
    run = layers.submodule(inner.forward, {f"part.{name}": value for name, value in own.items()}, "part", x)
    np.testing.assert_array_equal(run.output, alone.output)
    assert list(run.attention) == list(alone.attention)
    (dx, grads), (expected, own_grads) = run.backward(x), alone.backward(x)
    np.testing.assert_array_equal(dx, expected)
    assert list(grads) == [f"part.{name}" for name in own_grads]
    assert list(run.buffers) == [f"part.{name}" for name in alone.buffers]
    for name, gradient in own_grads.items():
        np.testing.assert_array_equal(grads[f"part.{name}"], gradient)


def test_the_way_back_through_a_submodule_does_not_keep_its_output():
    def forward(params, x):
        return Pass(x + 1, lambda dy: (dy, {}))

    run = layers.submodule(forward, {}, "part", normal(*MAP))
    output, backward = weakref.ref(run.output), run.backward
    del run
    assert output() is None
    assert backward(1)[0] == 1


@pytest.mark.parametrize("system", [PositionAttention(channels=4), ChannelAttention(channels=4)])
def test_a_skip_connections_gradient_is_the_callers_and_is_not_written_to(system):
    run = system(system.init(generic=True), normal(2, 4, 3, 3))
    dy = normal(2, 4, 3, 3, seed=1)
    dy.flags.writeable = False
    dx, _ = run.backward(dy)
    assert not np.shares_memory(dx, dy)
