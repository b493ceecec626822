import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import CoordinateAttention
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_parity
from tests.naming import for_each
from tests.strategies import arrange, cases, coordinate_modules, layouts, seeds

in_either_mode = pytest.mark.parametrize("training", [False, True])
several = st.integers(2, 5)


def published(module):
    """The authors' stand-alone layer in PyTorch."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            hidden, bias = module.hidden or max(8, module.channels // module.reduction), module.bias
            self.conv1 = torch.nn.Conv2d(module.channels, hidden, 1, bias=bias)
            self.bn1 = torch.nn.BatchNorm2d(hidden)
            self.conv_h = torch.nn.Conv2d(hidden, module.channels, 1, bias=bias)
            self.conv_w = torch.nn.Conv2d(hidden, module.channels, 1, bias=bias)
            self.train(module.training)

        def forward(self, x):
            height, width = x.shape[2:]
            rows = torch.nn.functional.adaptive_avg_pool2d(x, (None, 1))
            columns = torch.nn.functional.adaptive_avg_pool2d(x, (1, None)).permute(0, 1, 3, 2)
            v = self.bn1(self.conv1(torch.cat([rows, columns], dim=2)))
            f_h, f_w = torch.split(v * torch.nn.functional.relu6(v + 3) / 6, [height, width], dim=2)
            return x * torch.sigmoid(self.conv_w(f_w.permute(0, 1, 3, 2))) * torch.sigmoid(self.conv_h(f_h))

    return Reference()


def upstream(x, seed=0):
    return np.random.RandomState(seed).standard_normal(x.shape).astype(x.dtype)


@given(cases(coordinate_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    assert_parity(module, published(module), params, inputs["x"], upstream(inputs["x"], seed))


@given(cases(coordinate_modules(training=True)), seeds)
@settings(max_examples=20)
def test_output_gradients_and_running_statistics_agree_with_pytorch_in_training(case, seed):
    module, params, inputs = case
    assert_parity(module, published(module), params, inputs["x"], upstream(inputs["x"], seed), floor=0.1)


@given(cases(coordinate_modules(training=True), batch=several, height=several, width=several))
@settings(max_examples=20)
def test_gradients_agree_with_the_complex_step_in_training(case):
    module, params, inputs = case
    report = gradcheck(module, params, inputs, method="adjoint", allow_zero=True)  # all units may be off
    assert report.passed, report


@for_each("seed", range(5))
def test_in_training_the_first_bias_changes_nothing_but_the_mean_that_is_remembered(seed):
    module = CoordinateAttention(channels=6, training=True)
    params, inputs = generic_values(module, batch=3, seed=seed)
    run, moved = (module(params | {"conv1.bias": params["conv1.bias"] + by}, inputs["x"]) for by in (0, 2.5))
    np.testing.assert_allclose(moved.output, run.output, rtol=1e-12)
    np.testing.assert_allclose(moved.buffers["bn1.running_mean"] - run.buffers["bn1.running_mean"], 0.25, rtol=1e-12)
    np.testing.assert_allclose(moved.buffers["bn1.running_var"], run.buffers["bn1.running_var"], rtol=1e-12)
    _, grads = run.backward(upstream(inputs["x"]))
    assert np.abs(grads["conv1.bias"]).max() < 1e-14 * np.abs(grads["conv1.weight"]).max()


@in_either_mode
def test_a_published_state_dict_loads_unchanged(training):
    torch = pytest.importorskip("torch")
    module = CoordinateAttention(channels=300, training=training)
    reference = published(module)
    state = reference.state_dict()
    params = module.from_state_dict(state)
    assert {*state} - {*params} == {"bn1.num_batches_tracked"}
    assert list(module.parameter_shapes()) == [name for name, _ in reference.named_parameters()]
    assert list(module.buffer_shapes()) == ["bn1.running_mean", "bn1.running_var"]
    assert all(value.dtype == np.float32 for value in params.values())
    x = np.random.RandomState(0).standard_normal((2, 300, 3, 5)).astype(np.float32)
    expected = reference(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(module(params, x).output, expected, rtol=1e-5, atol=1e-6)


def test_initial_values_fill_the_intervals_that_pytorch_draws_from():
    module = CoordinateAttention(channels=512, reduction=16)
    params = module.init(seed=1)
    for name, inputs in (("conv1", 512), ("conv_h", 32), ("conv_w", 32)):
        for part in ("weight", "bias"):
            values = params[f"{name}.{part}"] * np.sqrt(inputs)
            assert np.abs(values).max() <= 1
            assert np.abs(values).max() > 0.9
            assert abs(values.mean()) < 0.2
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        np.testing.assert_array_equal(params[f"bn1.{name}"], np.full(32, value))


@given(st.integers(1, 2000), st.integers(1, 70))
def test_the_narrow_layer_is_a_fraction_of_the_channels_but_never_below_eight(channels, reduction):
    module = CoordinateAttention(channels, reduction=reduction)
    shapes = module.parameter_shapes()
    hidden = shapes["bn1.weight"][0]
    assert hidden == module.hidden_channels >= 8
    assert hidden == 8 or hidden * reduction <= channels < (hidden + 1) * reduction
    assert shapes["conv1.weight"] == (hidden, channels, 1, 1)
    assert shapes["conv_h.weight"] == shapes["conv_w.weight"] == (channels, hidden, 1, 1)


def exchanged(params):
    """Parameters with the layers of rows and of columns in each other's place."""
    names = {"conv_h.weight": "conv_w.weight", "conv_h.bias": "conv_w.bias"}
    names |= {two: one for one, two in names.items()}
    return {name: params[names.get(name, name)] for name in params}


@given(cases(coordinate_modules() | coordinate_modules(training=True)))
@settings(max_examples=25)
def test_a_map_on_its_side_with_the_two_layers_exchanged_gives_the_output_on_its_side(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    turned = module(exchanged(params), inputs["x"].swapaxes(2, 3))
    np.testing.assert_allclose(turned.output.swapaxes(2, 3), run.output, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(turned.attention["width"].swapaxes(2, 3), run.attention["height"], rtol=1e-9)


@in_either_mode
def test_rows_in_another_order_give_the_output_in_that_order(training):
    module = CoordinateAttention(channels=5, training=training)
    params, inputs = generic_values(module)
    order = [3, 0, 4, 2, 1]
    run, moved = module(params, inputs["x"]), module(params, inputs["x"][:, :, order])
    np.testing.assert_allclose(moved.output, run.output[:, :, order], rtol=1e-11)
    np.testing.assert_allclose(moved.attention["width"], run.attention["width"], rtol=1e-11)


@in_either_mode
def test_a_row_moves_its_own_gate_and_those_of_columns_and_in_training_every_gate_of_the_batch(training):
    module = CoordinateAttention(channels=5, training=training)
    params, inputs = generic_values(module, batch=2)
    moved = inputs["x"].copy()
    moved[1, :, 3] += 1
    before, after = module(params, inputs["x"]), module(params, moved)
    rows = (before.attention["height"] != after.attention["height"]).any(axis=(1, 3))
    columns = (before.attention["width"] != after.attention["width"]).any(axis=(1, 2))
    assert rows[1, 3]
    assert columns[1].all()
    others = [*rows[0], *columns[0], *np.delete(rows[1], 3)]
    assert all(other == training for other in others)


@given(cases(coordinate_modules() | coordinate_modules(training=True)))
def test_the_output_is_the_map_times_its_two_gates(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    batch, channels, height, width = inputs["x"].shape
    assert run.attention["height"].shape == (batch, channels, height, 1)
    assert run.attention["width"].shape == (batch, channels, 1, width)
    gates = run.attention["height"] * run.attention["width"]
    assert ((gates > 0) & (gates < 1)).all()
    np.testing.assert_allclose(run.output, inputs["x"] * gates, rtol=1e-14)


def test_with_zero_parameters_every_gate_is_one_half():
    module = CoordinateAttention.example()
    params, inputs = generic_values(module)
    zero = {name: value if "running" in name else np.zeros_like(value) for name, value in params.items()}
    run = module(zero, inputs["x"])
    for gate in run.attention.values():
        np.testing.assert_array_equal(gate, 0.5)
    np.testing.assert_array_equal(run.output, inputs["x"] / 4)


@pytest.mark.parametrize(("corner", "slope"), [(-3, 0), (3, 1)])
def test_at_the_corners_of_the_activation_the_slope_is_the_published_codes(corner, slope):
    module = CoordinateAttention(channels=2)
    params, inputs = generic_values(module)
    params |= {"bn1.weight": np.zeros(8), "bn1.bias": np.full(8, float(corner))}  # so that v is the corner everywhere
    dy = upstream(inputs["x"])
    assert_parity(module, published(module), params, inputs["x"], dy)
    report = gradcheck(module, params, inputs, allow_zero=True)
    assert report.passed, report
    behind = set() if slope else {"bn1.weight", "bn1.bias", "conv_h.weight", "conv_w.weight"}
    assert set(report.zeros) == {"conv1.weight", "conv1.bias"} | behind  # a scale of 0, and units that are off
    _, grads = module(params, inputs["x"]).backward(dy)
    assert (grads["bn1.bias"] != 0).all() == bool(slope)


def test_running_statistics_are_those_of_rows_and_columns_together():
    module = CoordinateAttention(channels=5, training=True)
    params, inputs = generic_values(module, batch=3)
    x = inputs["x"]
    strip = np.concatenate([x.mean(axis=3), x.mean(axis=2)], axis=2)
    u = np.einsum("mc,bct->mbt", params["conv1.weight"][:, :, 0, 0], strip).reshape(8, -1)
    u += params["conv1.bias"][:, None]
    run = module(params, x)
    assert list(run.buffers) == list(module.buffer_shapes())
    for name, statistic in (("bn1.running_mean", u.mean(axis=1)), ("bn1.running_var", u.var(axis=1, ddof=1))):
        np.testing.assert_allclose(run.buffers[name], 0.9 * params[name] + 0.1 * statistic, rtol=1e-12)
    assert CoordinateAttention(channels=5)(params, x).buffers == {}


def test_inference_with_the_statistics_of_the_batch_gives_what_training_gives():
    params, inputs = generic_values(CoordinateAttention(channels=5), batch=3)
    x = inputs["x"]
    run = CoordinateAttention(channels=5, training=True)(params, x)
    count = 3 * (5 + 4)
    batch = {name: (run.buffers[name] - 0.9 * params[name]) / 0.1 for name in run.buffers}
    batch["bn1.running_var"] *= (count - 1) / count
    again = CoordinateAttention(channels=5)(params | batch, x)
    np.testing.assert_allclose(again.output, run.output, rtol=1e-12)


@given(st.data())
@settings(max_examples=20)
def test_training_keeps_dtypes_and_writes_to_nothing_it_is_given(data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.longdouble]))
    module, params, inputs = data.draw(cases(coordinate_modules(training=True), dtype=dtype))

    def laid_out(array):
        arranged = arrange(array.copy(), data.draw(layouts))
        arranged.flags.writeable = False
        return arranged

    run = module({name: laid_out(value) for name, value in params.items()}, laid_out(inputs["x"]))
    dx, grads = run.backward(laid_out(upstream(inputs["x"])))
    for result in (run.output, dx, *grads.values(), *run.attention.values(), *run.buffers.values()):
        assert result.dtype == dtype
        assert result.flags.writeable


def test_training_runs_on_a_device_array_and_gives_the_same_bits():
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    module = CoordinateAttention(channels=3, training=True)
    params, inputs = generic_values(module)
    dy = upstream(inputs["x"])
    expected = module(params, inputs["x"])
    found = module({name: DeviceArray(value) for name, value in params.items()}, DeviceArray(inputs["x"]))
    dx, grads = found.backward(DeviceArray(dy))
    expected_dx, expected_grads = expected.backward(dy)
    pairs = [(found.output, expected.output), (dx, expected_dx)]
    for ours, theirs in ((grads, expected_grads), (found.buffers, expected.buffers)):
        pairs += [(ours[name], value) for name, value in theirs.items()]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.get(), theirs)


@pytest.mark.parametrize("wrong", [1, 7, 16])
def test_gates_for_another_number_of_channels_are_refused_with_a_reason(wrong):
    with pytest.raises(ValueError, match=f"out_channels={wrong}; expected None or 8: the gates multiply the map"):
        CoordinateAttention(channels=8, out_channels=wrong)
    CoordinateAttention(channels=8, out_channels=8)


@for_each(
    ("arguments", "error", "message"),
    [
        ({"out_channels": 8.0}, TypeError, r"out_channels=8\.0 is a float; expected an int"),
        ({"out_channels": 0}, ValueError, "out_channels=0; expected an integer of at least 1"),
        ({"reduction": 0}, ValueError, "reduction=0; expected an integer of at least 1"),
        ({"reduction": "32"}, TypeError, "reduction='32' is a str; expected an int"),
        ({"training": 1}, TypeError, "training=1 is an int; expected True or False"),
    ],
)
def test_impossible_hyperparameters_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=f"CoordinateAttention: {message}"):
        CoordinateAttention(channels=8, **arguments)


def test_in_training_an_empty_batch_is_refused_and_a_single_position_is_not():
    module = CoordinateAttention(channels=3, training=True)
    params, inputs = generic_values(module, batch=1, height=1, width=1)
    with pytest.raises(ValueError, match=r"x has shape \(0, 3, 1, 1\); expected at least one image .* training=False"):
        module(params, inputs["x"][:0])
    # Row and column are one and the same number there: what batch norm leaves of it is its shift.
    run = module(params, inputs["x"])
    shifted = module(params | {"conv1.weight": params["conv1.weight"] * 0}, inputs["x"])
    np.testing.assert_array_equal(run.output, shifted.output)
