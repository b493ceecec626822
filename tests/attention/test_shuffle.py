import numpy as np
import pytest
from hypothesis import assume, given, settings

from npattn import ShuffleAttention, ops
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity, assert_state_dict_loads
from tests.memory import peak_of_pass
from tests.strategies import cases, seeds, shuffle_modules


def published(module):
    """The layer in PyTorch, as the authors' code computes it, with its names."""
    torch = pytest.importorskip("torch")
    c = module.channels // (2 * module.groups)

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, start in (("cweight", 0.0), ("cbias", 1.0), ("sweight", 0.0), ("sbias", 1.0)):
                setattr(self, name, torch.nn.Parameter(torch.full((1, c, 1, 1), start)))
            self.gn = torch.nn.GroupNorm(c, c)

        def forward(self, x):
            batch, channels, height, width = x.shape
            first, second = x.reshape(-1, 2 * c, height, width).chunk(2, dim=1)
            pooled = torch.nn.functional.adaptive_avg_pool2d(first, 1)
            first = first * torch.sigmoid(self.cweight * pooled + self.cbias)
            second = second * torch.sigmoid(self.sweight * self.gn(second) + self.sbias)
            joined = torch.cat([first, second], dim=1).reshape(batch, 2, channels // 2, height, width)
            return joined.transpose(1, 2).reshape(x.shape)

    return Reference()


@given(cases(shuffle_modules()), seeds)
@settings(max_examples=20)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    module, params, inputs = case
    assume(inputs["x"][0, 0].size > 1)  # the norm of one number is 0 here, and of the size of its rounding in PyTorch
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=1e-3)


def test_a_published_state_dict_loads_unchanged():
    module = ShuffleAttention(channels=16, groups=2)
    assert_state_dict_loads(module, published(module))


def test_training_starts_where_all_gates_are_alike():
    module = ShuffleAttention(channels=256)
    params = module.init(seed=1)
    theirs = published(module).state_dict()
    assert list(params) == list(theirs)
    for name, value in params.items():
        np.testing.assert_array_equal(value, theirs[name].numpy())
    run = module(params, generic_values(module, height=2, width=2)[1]["x"])
    np.testing.assert_allclose(run.attention["gate"], 1 / (1 + np.exp(-1)))


@given(cases(shuffle_modules()))
@settings(max_examples=20)
def test_the_output_is_the_gated_map_with_its_channels_dealt_out(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    gated = inputs["x"] * run.attention["gate"]
    np.testing.assert_allclose(run.output, ops.channel_shuffle(gated, 2)[0], rtol=1e-13)


@given(cases(shuffle_modules()))
@settings(max_examples=20)
def test_groups_do_not_see_each_other_and_share_their_parameters(case):
    module, params, inputs = case
    x, size = inputs["x"], module.channels // module.groups
    gates = module(params, x).attention["gate"]
    alone = ShuffleAttention(size, groups=1)
    for group in range(module.groups):
        part = slice(group * size, (group + 1) * size)
        np.testing.assert_allclose(alone(params, x[:, part]).attention["gate"], gates[:, part], rtol=1e-10)


def test_first_halves_have_a_gate_for_a_channel_and_second_halves_one_for_a_number():
    module = ShuffleAttention(channels=8, groups=2)
    params, inputs = generic_values(module)
    spread = np.ptp(module(params, inputs["x"]).attention["gate"], axis=(0, 2, 3))
    within = np.ptp(module(params, inputs["x"]).attention["gate"], axis=(2, 3)).max(axis=0)
    assert [bool(value > 1e-6) for value in within] == [False, False, True, True] * 2
    assert (spread > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"channels": 32},
            "ShuffleAttention: groups=64; expected a divisor of half of channels=32: each group is cut in two, so",
        ),
        ({"channels": 6, "groups": 2}, "ShuffleAttention: groups=2; expected a divisor of half of channels=6"),
        ({"channels": 8, "groups": 0}, "ShuffleAttention: groups=0; expected an integer of at least 1"),
    ],
)
def test_channels_that_cannot_be_cut_so_are_refused(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        ShuffleAttention(**options)
    assert str(caught.value).startswith(message)


def test_both_passes_hold_six_maps_and_two_thirds_at_most():
    assert peak_of_pass(ShuffleAttention(channels=128, groups=16), 64) < 20 / 3 * 128 * 64 * 64 * 4
