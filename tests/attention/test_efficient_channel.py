import math

import numpy as np
import pytest
from hypothesis import given, settings

from npattn import EfficientChannelAttention
from npattn.attention.efficient_channel import adaptive_kernel_size
from tests.attention.parity import assert_parity_in, assert_state_dict_loads
from tests.strategies import cases, eca_modules, seeds


def published(module):
    """The authors' layer in PyTorch."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 1, module.num_taps, padding=(module.num_taps - 1) // 2, bias=False)

        def forward(self, x):
            p = x.mean(dim=(2, 3), keepdim=True)
            z = self.conv(p.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
            return x * torch.sigmoid(z).expand_as(x)

    return Reference()


@given(cases(eca_modules()), seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed)


def test_a_published_state_dict_loads_unchanged():
    module = EfficientChannelAttention(channels=256)
    assert_state_dict_loads(module, published(module))


def test_kernel_width_follows_the_published_rule_for_every_number_of_channels():
    for channels in range(1, 4097):
        t = int(abs((math.log(channels, 2) + 1) / 2))
        largest = max(t for t in range(8) if 4**t <= 2 * channels)  # the same in whole numbers
        assert t == largest
        expected = t if t % 2 else t + 1
        assert adaptive_kernel_size(channels) == expected
        assert EfficientChannelAttention(channels).parameter_shapes() == {"conv.weight": (1, 1, expected)}


@given(eca_modules())
def test_kernel_is_always_odd(module):
    assert module.num_taps % 2 == 1
    assert module.kernel_size in (None, module.num_taps)


def test_slope_and_offset_move_the_width():
    assert adaptive_kernel_size(512, gamma=1) == 11
    assert adaptive_kernel_size(512, gamma=1, b=-2) == 7
    assert adaptive_kernel_size(512, gamma=-2) == 5


@given(cases(eca_modules()))
def test_reversing_channels_and_kernel_reverses_the_output(case):
    module, params, inputs = case
    output = module(params, inputs["x"]).output
    mirrored = module({"conv.weight": params["conv.weight"][..., ::-1]}, inputs["x"][:, ::-1]).output
    np.testing.assert_allclose(mirrored, output[:, ::-1], rtol=1e-11, atol=1e-13)


def test_a_gate_sees_its_own_channel_and_the_nearest_ones_alone():
    module = EfficientChannelAttention(channels=9, kernel_size=3)
    x = np.random.RandomState(0).standard_normal((1, 9, 2, 2))
    params = module.init()
    moved = x.copy()
    moved[:, 4] += 1
    changed = module(params, moved).attention["channel"] != module(params, x).attention["channel"]
    np.testing.assert_array_equal(np.flatnonzero(changed), [3, 4, 5])


def test_training_starts_uniformly_within_one_over_the_root_of_the_width():
    weights = np.concatenate([EfficientChannelAttention(64).init(seed)["conv.weight"].ravel() for seed in range(400)])
    assert np.abs(weights).max() <= 1 / math.sqrt(3)
    assert np.std(weights) == pytest.approx(1 / 3, rel=0.05)
