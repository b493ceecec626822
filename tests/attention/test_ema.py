import numpy as np
import pytest
from hypothesis import assume, given, settings

from npattn import EfficientMultiScaleAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_starts_as, assert_state_dict_loads
from tests.strategies import cases, ema_modules, seeds


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def published(module):
    """The module in PyTorch, as the authors' code computes it, with its names."""
    torch = pytest.importorskip("torch")
    c = module.channels // module.groups

    def pooled(branch):
        return torch.softmax(branch.mean((2, 3)), dim=1)[:, None]

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gn = torch.nn.GroupNorm(c, c)
            self.conv1x1 = torch.nn.Conv2d(c, c, 1)
            self.conv3x3 = torch.nn.Conv2d(c, c, 3, padding=1)

        def forward(self, x):
            height, width = x.shape[2:]
            groups = x.reshape(-1, c, height, width)
            averages = torch.cat([groups.mean(3, keepdim=True), groups.mean(2, keepdim=True).transpose(2, 3)], dim=2)
            rows, columns = self.conv1x1(averages).sigmoid().split([height, width], dim=2)
            first = self.gn(groups * rows * columns.transpose(2, 3))
            second = self.conv3x3(groups)
            logits = pooled(first) @ second.flatten(2) + pooled(second) @ first.flatten(2)
            return (groups * torch.sigmoid(logits).reshape(-1, 1, height, width)).reshape(x.shape)

    return Reference()


@given(cases(ema_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    assume(inputs["x"][0, 0].size > 1)  # the norm of one number is 0 here, and of the size of its rounding in PyTorch
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=1)  # a norm of few numbers


@pytest.mark.parametrize("channels", [32, 64])
def test_a_published_state_dict_loads_unchanged(channels):
    module = EfficientMultiScaleAttention(channels)
    assert_state_dict_loads(module, published(module))


def test_training_starts_from_the_values_that_pytorch_draws():
    assert_starts_as(EfficientMultiScaleAttention(channels=96, groups=2), published)


@given(cases(ema_modules()))
@settings(max_examples=20)
def test_one_gate_serves_all_channels_of_a_group_at_a_position(case):
    module, params, inputs = case
    x, run = inputs["x"], module(params, inputs["x"])
    gates = run.attention["cross"]
    assert gates.shape == (len(x), module.groups, *x.shape[2:])
    np.testing.assert_allclose(run.output, x * gates.repeat(module.channels // module.groups, axis=1), rtol=1e-13)


@given(cases(ema_modules()))
@settings(max_examples=20)
def test_groups_do_not_see_each_other_and_share_their_parameters(case):
    module, params, inputs = case
    x, size = inputs["x"], module.channels // module.groups
    gates = module(params, x).attention["cross"]
    alone = EfficientMultiScaleAttention(size, groups=1)
    for group in range(module.groups):
        part = x[:, group * size : (group + 1) * size]
        np.testing.assert_allclose(alone(params, part).attention["cross"][:, 0], gates[:, group], rtol=1e-9)


def test_the_normalised_branch_weighs_by_its_biases_whatever_the_map_is():
    """A channel's average after the norm is the norm's bias: the softmax of averages is one of biases."""
    module = EfficientMultiScaleAttention(channels=8, groups=2)
    params, inputs = generic_values(module)
    weights = np.exp(params["gn.bias"]) / np.exp(params["gn.bias"]).sum()
    blind = params | {"conv3x3.weight": np.zeros_like(params["conv3x3.weight"]), "gn.weight": np.zeros(4)}
    shared = np.exp(params["conv3x3.bias"]) / np.exp(params["conv3x3.bias"]).sum()
    logit = weights @ params["conv3x3.bias"] + shared @ params["gn.bias"]  # what is left where no branch reads the map
    gates = module(blind, inputs["x"]).attention["cross"]
    np.testing.assert_allclose(gates, sigmoid(logit), rtol=1e-12)


def test_with_one_channel_a_group_the_branches_are_added():
    module = EfficientMultiScaleAttention(channels=3, groups=3)
    params, inputs = generic_values(module)
    x = inputs["x"]
    rows, columns = (
        sigmoid(params["conv1x1.weight"].item() * x.mean(axis, keepdims=True) + params["conv1x1.bias"].item())
        for axis in (3, 2)
    )
    gated = x * rows * columns
    scale = 1 / np.sqrt(gated.var(axis=(2, 3), keepdims=True) + 1e-5)
    first = params["gn.weight"] * (gated - gated.mean(axis=(2, 3), keepdims=True)) * scale + params["gn.bias"]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    second = np.einsum("bchwij,ij->bchw", windows, params["conv3x3.weight"][0, 0]) + params["conv3x3.bias"]
    np.testing.assert_allclose(module(params, x).attention["cross"], sigmoid(first + second), rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 48}, "EfficientMultiScaleAttention: groups=32; expected a divisor of channels=48"),
        ({"channels": 8, "groups": 0}, "EfficientMultiScaleAttention: groups=0; expected an integer of at least 1"),
    ],
)
def test_channels_that_cannot_be_shared_out_are_refused(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        EfficientMultiScaleAttention(**options)
    assert str(caught.value).startswith(message)
