import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import FlexibleAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_parity_in, assert_state_dict_loads, rearranged
from tests.strategies import cases, flexible_modules, seeds

# PyTorch's derivative of the sigmoid, a (1 - a), loses digits where the gate is nearly 1: gradients that have passed
# through nothing but such gates are compared on the scale of the others.
SATURATED = 0.1


def published(module):
    """The gate in PyTorch, its two layers under the names used here."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            hidden = max(1, module.channels // module.reduction)
            self.fc1 = torch.nn.Linear(module.channels, hidden)
            self.fc2 = torch.nn.Linear(hidden, module.channels)

        def forward(self, x):
            pools = torch.nn.functional.adaptive_avg_pool2d(x, 1), torch.nn.functional.adaptive_max_pool2d(x, 1)
            z = sum(self.fc2(torch.relu(self.fc1(pool.flatten(1)))) for pool in pools)
            return x * torch.sigmoid(z)[:, :, None, None]

    return Reference()


@given(cases(flexible_modules()), seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=SATURATED)


@given(cases(flexible_modules()), seeds)
@settings(max_examples=20)
def test_at_ties_too_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    random = np.random.RandomState(seed)
    x = random.randint(0, 2, inputs["x"].shape).astype(float)
    assert_parity(module, published(module), params, x, random.standard_normal(x.shape), floor=SATURATED)


def test_a_state_dict_of_two_linear_layers_loads_unchanged():
    module = FlexibleAttention(channels=12, reduction=4)
    assert_state_dict_loads(module, published(module))


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_middle_is_a_fraction_of_the_channels_and_never_empty(channels, reduction):
    hidden = max(1, channels // reduction)
    assert FlexibleAttention(channels, reduction).parameter_shapes() == {
        "fc1.weight": (hidden, channels),
        "fc1.bias": (hidden,),
        "fc2.weight": (channels, hidden),
        "fc2.bias": (channels,),
    }


def gate_by_hand(params, image):
    """The gates of one image, pool by pool, layer by layer."""
    w1, b1, w2, b2 = params.values()
    logits = 0
    for pool in (np.mean, np.max):
        pooled = np.array([pool(channel) for channel in image])
        logits = logits + w2 @ np.maximum(w1 @ pooled + b1, 0) + b2
    return 1 / (1 + np.exp(-logits))


@given(cases(flexible_modules()))
def test_gates_are_those_of_both_pools_through_the_same_layers_image_by_image(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    expected = np.array([gate_by_hand(params, image) for image in inputs["x"]])
    np.testing.assert_allclose(run.attention["channel"], expected, rtol=1e-12)
    np.testing.assert_allclose(run.output, inputs["x"] * expected[:, :, None, None], rtol=1e-12)


@given(cases(flexible_modules()), seeds)
def test_the_order_of_positions_does_not_matter_to_the_gates(case, seed):
    module, params, inputs = case
    x = inputs["x"]
    order = np.random.RandomState(seed).permutation(x.shape[2] * x.shape[3])
    gates, same = (module(params, each).attention["channel"] for each in (x, rearranged(x, order)))
    np.testing.assert_allclose(same, gates, rtol=1e-10)


def test_on_a_constant_map_both_pools_agree_and_every_logit_is_doubled():
    module = FlexibleAttention(channels=6, reduction=2)
    params, _ = generic_values(module)
    means = np.random.RandomState(0).standard_normal((2, 6))
    x = np.broadcast_to(means[:, :, None, None], (2, 6, 3, 4)).copy()
    gates = module(params, x).attention["channel"]
    hidden = np.maximum(means @ params["fc1.weight"].T + params["fc1.bias"], 0)
    logits = hidden @ params["fc2.weight"].T + params["fc2.bias"]
    np.testing.assert_allclose(gates, 1 / (1 + np.exp(-2 * logits)), rtol=1e-12)


def test_the_second_bias_collects_the_gradient_of_the_logits_twice():
    module = FlexibleAttention.example()
    params, inputs = generic_values(module)
    run = module(params, inputs["x"])
    dy = np.random.RandomState(0).standard_normal(run.output.shape)
    a = run.attention["channel"]
    dz = a * (1 - a) * (inputs["x"] * dy).sum(axis=(2, 3))
    np.testing.assert_allclose(run.backward(dy)[1]["fc2.bias"], 2 * dz.sum(axis=0), rtol=1e-11, atol=1e-13)


def test_beside_the_gate_the_gradient_is_even_but_for_one_spike_at_the_first_maximum():
    module = FlexibleAttention(channels=6, reduction=2)
    params, _ = generic_values(module)
    x = np.random.RandomState(3).randint(-2, 3, (2, 6, 4, 5)).astype(float)
    run = module(params, x)
    dy = np.random.RandomState(0).standard_normal(x.shape)
    dx, _ = run.backward(dy)
    rest = (dx - run.attention["channel"][:, :, None, None] * dy).reshape(2, 6, 20)
    spread = np.median(rest, axis=2, keepdims=True)
    first = x.reshape(2, 6, 20).argmax(axis=2, keepdims=True)
    spikes = np.abs(rest - spread) > 1e-12
    assert spikes.any()
    assert not np.delete(spikes, 0, axis=2)[first[:, :, 0] == 0].any()
    np.put_along_axis(spikes, first, False, axis=2)
    assert not spikes.any()


def test_training_starts_from_he_weights_and_zero_biases():
    params = FlexibleAttention(channels=512, reduction=2).init(seed=3)
    assert not params["fc1.bias"].any()
    assert not params["fc2.bias"].any()
    assert np.std(params["fc1.weight"]) == pytest.approx(np.sqrt(2 / 512), rel=0.02)
    assert np.std(params["fc2.weight"]) == pytest.approx(np.sqrt(2 / 256), rel=0.02)


@pytest.mark.parametrize("height", [1e4, -1e4])
def test_a_spike_of_any_height_saturates_without_overflow(height):
    module = FlexibleAttention.example()
    params, inputs = generic_values(module)
    x = inputs["x"]
    x[:, :, 1, 1] = height
    run = module(params, x)
    dx, grads = run.backward(np.ones_like(x))
    assert all(np.isfinite(result).all() for result in (run.output, dx, *grads.values()))
    assert run.attention["channel"].min() >= 0
    assert run.attention["channel"].max() <= 1


@pytest.mark.parametrize(
    ("hyperparameters", "error", "message"),
    [
        (
            {"channels": 8, "reduction": 0},
            ValueError,
            "FlexibleAttention: reduction=0; expected an integer of at least 1",
        ),
        (
            {"channels": 8, "reduction": 2.0},
            TypeError,
            r"FlexibleAttention: reduction=2\.0 is a float; expected an int",
        ),
        ({"channels": True}, TypeError, "FlexibleAttention: channels=True is a bool; expected an int"),
    ],
)
def test_impossible_hyperparameters_are_refused(hyperparameters, error, message):
    with pytest.raises(error, match=message):
        FlexibleAttention(**hyperparameters)
