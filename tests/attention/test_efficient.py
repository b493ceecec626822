import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import EfficientAttention
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_starts_as, assert_state_dict_loads
from tests.memory import peak_memory
from tests.naming import for_each
from tests.strategies import cases, linear_modules, seeds


def published(module):
    """The authors' block in PyTorch, head by head, with their names."""
    torch = pytest.importorskip("torch")
    shapes = module.parameter_shapes()
    key_channels, value_channels = shapes["keys.bias"][0], shapes["values.bias"][0]

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.keys = torch.nn.Conv2d(module.channels, key_channels, 1)
            self.queries = torch.nn.Conv2d(module.channels, key_channels, 1)
            self.values = torch.nn.Conv2d(module.channels, value_channels, 1)
            self.reprojection = torch.nn.Conv2d(value_channels, module.channels, 1)

        def forward(self, x):
            parts = (layer(x).flatten(2).chunk(module.heads, 1) for layer in (self.keys, self.queries, self.values))
            attended = [
                (torch.softmax(k, dim=2) @ v.transpose(1, 2)).transpose(1, 2) @ torch.softmax(q, dim=1)
                for k, q, v in zip(*parts, strict=True)
            ]
            return x + self.reprojection(torch.cat(attended, dim=1).view(len(x), -1, *x.shape[2:]))

    return Reference()


@given(cases(linear_modules()), seeds)
@settings(max_examples=50)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    # The keys' bias has gradient 0; with one channel a head so have the queries.
    assert_parity_in(case, published, seed, floor=0.1)


def test_a_published_state_dict_loads_unchanged():
    module = EfficientAttention(channels=24, heads=2, key_channels=6)
    assert_state_dict_loads(module, published(module))


def test_training_starts_where_pytorch_starts():
    assert_starts_as(EfficientAttention(channels=256, heads=4), published)


@given(cases(linear_modules()))
def test_channels_of_keys_weigh_all_positions_by_1_and_positions_the_channels_of_a_head(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    np.testing.assert_allclose(run.attention["gather"].sum(axis=(2, 3)), 1, rtol=1e-12)
    distribute = run.attention["distribute"]
    of_heads = distribute.reshape(len(distribute), module.heads, -1, *distribute.shape[2:])
    np.testing.assert_allclose(of_heads.sum(axis=2), 1, rtol=1e-12)


@given(cases(linear_modules()), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_positions_in_another_order_give_outputs_in_that_order(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(linear_modules()), seeds)
@settings(max_examples=25)
def test_a_number_added_to_a_channel_of_the_keys_changes_nothing(case, seed):
    module, params, inputs = case
    more = np.random.RandomState(seed).standard_normal(params["keys.bias"].shape)
    moved = module(params | {"keys.bias": params["keys.bias"] + more}, inputs["x"])
    np.testing.assert_allclose(moved.output, module(params, inputs["x"]).output, rtol=1e-9, atol=1e-10)


def test_a_number_added_to_all_channels_of_a_heads_queries_changes_nothing():
    module = EfficientAttention.example()
    params, inputs = generic_values(module)
    more = np.repeat([0.7, -2.0], 3)
    moved = module(params | {"queries.bias": params["queries.bias"] + more}, inputs["x"])
    np.testing.assert_allclose(moved.output, module(params, inputs["x"]).output, rtol=1e-11)


def test_heads_of_one_channel_of_keys_hand_the_same_to_all_positions():
    module = EfficientAttention(channels=6, heads=3, key_channels=3, value_channels=6)
    params, inputs = generic_values(module)
    added = module(params, inputs["x"]).output - inputs["x"]
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :, :1, :1], added.shape), rtol=1e-9, atol=1e-12)


def test_memory_grows_as_the_positions_and_not_as_their_square():
    module = EfficientAttention(channels=8)
    params, inputs = generic_values(module, batch=1, height=64, width=64)

    def both():
        module.forward(params, inputs["x"]).backward(inputs["x"])

    assert peak_memory(both) < 4096**2 * 8 / 20


@for_each(("channels", "heads", "half"), [(16, 1, 8), (16, 3, 6), (7, 2, 2), (1, 1, 1), (4, 4, 4), (1, 3, 3)])
def test_keys_and_values_have_half_of_the_channels_as_heads_can_share_them(channels, heads, half):
    shapes = EfficientAttention(channels, heads).parameter_shapes()
    assert shapes["keys.bias"] == shapes["values.bias"] == (half,)


@pytest.mark.parametrize("name", ["key_channels", "value_channels"])
def test_channels_that_heads_do_not_share_evenly_are_refused(name):
    message = (
        f"EfficientAttention: heads=3; expected a divisor of {name}=7, an equal share for each: with 3 heads, 6 or 9"
    )
    with pytest.raises(ValueError, match=message):
        EfficientAttention(8, heads=3, **{name: 7})
