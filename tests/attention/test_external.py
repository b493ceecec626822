import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from npattn import ExternalAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_state_dict_loads
from tests.attention.witnesses import draw
from tests.strategies import cases, external_modules, seeds

any_modules = external_modules() | external_modules(training=True)


def published(module):
    """The authors' block in PyTorch, with their names; or the two memories alone."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            channels = module.channels
            if module.block:
                self.conv1 = torch.nn.Conv2d(channels, channels, 1)
            self.linear_0 = torch.nn.Conv1d(channels, module.memory, 1, bias=False)
            self.linear_1 = torch.nn.Conv1d(module.memory, channels, 1, bias=False)
            if module.block:
                last = torch.nn.Conv2d(channels, channels, 1, bias=False)
                self.conv2 = torch.nn.Sequential(last, torch.nn.BatchNorm2d(channels))
            self.train(module.training)

        def memories(self, x):
            weights = torch.softmax(self.linear_0(x.flatten(2)), dim=2)
            shares = weights / (1e-9 + weights.sum(dim=1, keepdim=True))
            return self.linear_1(shares).view_as(x)

        def forward(self, x):
            if not module.block:
                return self.memories(x)
            return torch.relu(x + self.conv2(self.memories(self.conv1(x))))

    return Reference()


@given(cases(any_modules), seeds)
@settings(max_examples=50)
def test_output_gradients_and_statistics_agree_with_pytorch(case, seed):
    # The first layer's bias has gradient 0; with one memory so have the keys.
    assert_parity_in(case, published, seed, floor=0.1)


def test_a_published_state_dict_loads_unchanged():
    module = ExternalAttention(channels=24)
    assert_state_dict_loads(module, draw(published(module)).float())


def test_linear_layers_called_mk_and_mv_are_read():
    module = ExternalAttention(channels=6, memory=4, block=False)
    params, _ = generic_values(module)
    theirs = {"mk.weight": params["linear_0.weight"][..., 0], "mv.weight": params["linear_1.weight"][..., 0]}
    for name, value in module.from_state_dict(theirs).items():
        np.testing.assert_array_equal(value, params[name], strict=True)


@given(cases(any_modules))
def test_every_positions_weights_add_up_to_1_but_for_what_keeps_the_quotient_finite(case):
    module, params, inputs = case
    weights = module(params, inputs["x"]).attention["memory"]
    assert (weights >= 0).all()
    total = weights.sum(axis=1).reshape(len(weights), -1)
    u = inputs["x"].reshape(*inputs["x"].shape[:2], -1)
    if module.block:  # whose bias, the same at all positions, a softmax over them does not see
        u = params["conv1.weight"][..., 0, 0] @ u
    shares = softmax(params["linear_0.weight"][..., 0] @ u, axis=2).sum(axis=1)
    np.testing.assert_allclose(total, shares / (shares + 1e-9), rtol=1e-9, atol=1e-15)
    assert (total.max(axis=1) >= 1 - 1.1e-9 * total.shape[1]).all()  # of N positions one has a share of 1/N at least


@given(cases(any_modules), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_positions_in_another_order_give_outputs_in_that_order(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(external_modules().filter(lambda module: module.block)), seeds)
@settings(max_examples=25)
def test_what_is_added_to_all_positions_before_the_memories_changes_nothing(case, seed):
    module, params, inputs = case
    moved = params | {"conv1.bias": np.random.RandomState(seed).standard_normal(module.channels)}
    expected = module(params, inputs["x"]).output
    np.testing.assert_allclose(module(moved, inputs["x"]).output, expected, rtol=1e-6, atol=1e-7)


@given(cases(external_modules()), st.permutations(range(6)))
@settings(max_examples=25)
def test_memories_have_no_order(case, order):
    module, params, inputs = case
    order = [i for i in order if i < module.memory]
    order += range(len(order), module.memory)
    keys, values = params["linear_0.weight"][order], params["linear_1.weight"][:, order]
    moved = module(params | {"linear_0.weight": keys, "linear_1.weight": values}, inputs["x"])
    run = module(params, inputs["x"])
    np.testing.assert_allclose(moved.output, run.output, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(moved.attention["memory"], run.attention["memory"][:, order], rtol=1e-11)


def test_a_memory_with_larger_scores_by_a_constant_weighs_no_more():
    """The first normalisation, over positions, is what keeps one memory from taking all."""
    module = ExternalAttention(channels=3, memory=2, block=False)
    params, inputs = generic_values(module)
    x = inputs["x"].copy()
    x[:, 2] = 1  # a channel that is 1 everywhere adds its weight to a memory's scores
    weights = module(params, x).attention["memory"]
    keys = params["linear_0.weight"].copy()
    keys[0, 2] += 50
    np.testing.assert_allclose(module(params | {"linear_0.weight": keys}, x).attention["memory"], weights, rtol=1e-9)


def test_one_memory_tells_every_position_the_same():
    module = ExternalAttention(channels=5, memory=1, block=False)
    params, inputs = generic_values(module)
    y = module(params, inputs["x"]).output
    np.testing.assert_allclose(y, 0 * y + params["linear_1.weight"], rtol=1e-4)


def test_kernels_start_by_their_fan_out():
    params = ExternalAttention(channels=256, memory=64).init(seed=2)
    for name, fan_out in (("conv1", 256), ("linear_0", 64), ("linear_1", 256), ("conv2.0", 256)):
        assert np.std(params[f"{name}.weight"]) == pytest.approx(np.sqrt(2 / fan_out), rel=0.03)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"memory": 0}, ValueError, "ExternalAttention: memory=0; expected an integer of at least 1"),
        ({"block": 1}, TypeError, "ExternalAttention: block=1 is an int; expected True or False"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        ExternalAttention(8, **options)
    assert str(caught.value).startswith(message)
