import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import DoubleAttention, EfficientAttention
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_state_dict_loads
from tests.strategies import cases, double_modules, seeds


def published(module):
    """The paper's two steps in PyTorch, with the names of PyTorch code."""
    torch = pytest.importorskip("torch")
    shapes = module.parameter_shapes()
    features, maps = shapes["convA.bias"][0], shapes["convB.bias"][0]

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convA = torch.nn.Conv2d(module.channels, features, 1)
            self.convB = torch.nn.Conv2d(module.channels, maps, 1)
            self.convV = torch.nn.Conv2d(module.channels, maps, 1)
            self.conv_reconstruct = torch.nn.Conv2d(features, module.channels, 1)

        def forward(self, x):
            gather = torch.softmax(self.convB(x).flatten(2), dim=2)
            descriptors = self.convA(x).flatten(2) @ gather.transpose(1, 2)
            distributed = descriptors @ torch.softmax(self.convV(x).flatten(2), dim=1)
            return self.conv_reconstruct(distributed.view(len(x), -1, *x.shape[2:]))

    return Reference()


@given(cases(double_modules()), seeds)
@settings(max_examples=50)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    # The maps' bias has gradient 0; with one map so has that of the positions' weights.
    assert_parity_in(case, published, seed, floor=0.1)


def test_a_published_state_dict_loads_unchanged():
    module = DoubleAttention(channels=24, hidden=5, maps=3)
    assert_state_dict_loads(module, published(module))


@given(cases(double_modules()))
def test_maps_weigh_all_positions_by_1_and_positions_all_maps(case):
    module, params, inputs = case
    run = module(params, inputs["x"])
    np.testing.assert_allclose(run.attention["gather"].sum(axis=(2, 3)), 1, rtol=1e-12)
    np.testing.assert_allclose(run.attention["distribute"].sum(axis=1), 1, rtol=1e-12)


@given(cases(double_modules()))
def test_gathering_and_distributing_is_one_map_of_positions_that_adds_up_to_1(case):
    """The map is never made: position j weighs position i by what it takes of each map that i is in."""
    module, params, inputs = case
    x = inputs["x"]
    run = module(params, x)
    gather, distribute = (run.attention[name].reshape(*run.attention[name].shape[:2], -1) for name in run.attention)
    weights = distribute.swapaxes(1, 2) @ gather
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-12)
    a = np.einsum("mc,bchw->bmhw", params["convA.weight"][:, :, 0, 0], x).reshape(len(x), -1, x[0, 0].size)
    mixed = (a + params["convA.bias"][:, None]) @ weights.swapaxes(1, 2)
    y = params["conv_reconstruct.weight"][:, :, 0, 0] @ mixed + params["conv_reconstruct.bias"][:, None]
    np.testing.assert_allclose(run.output.reshape(y.shape), y, rtol=1e-9, atol=1e-10)


@given(cases(double_modules()), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_positions_in_another_order_give_outputs_in_that_order(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(double_modules()))
@settings(max_examples=25)
def test_efficient_attention_of_one_head_is_the_same_with_the_map_added(case):
    module, params, inputs = case
    names = {"convA": "values", "convB": "keys", "convV": "queries", "conv_reconstruct": "reprojection"}
    theirs = {names[name.partition(".")[0]] + "." + name.partition(".")[2]: value for name, value in params.items()}
    shapes = module.parameter_shapes()
    other = EfficientAttention(module.channels, 1, shapes["convB.bias"][0], shapes["convA.bias"][0])
    expected = other(theirs, inputs["x"]).output
    np.testing.assert_allclose(inputs["x"] + module(params, inputs["x"]).output, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("options", "sizes"), [({}, (4, 4)), ({"hidden": 3}, (3, 4)), ({"maps": 2}, (4, 2))])
def test_features_and_maps_are_a_fraction_of_the_channels_unless_given(options, sizes):
    shapes = DoubleAttention(channels=16, **options).parameter_shapes()
    assert (shapes["convA.bias"][0], shapes["convV.bias"][0]) == sizes


def test_kernels_start_by_their_fan_out():
    params = DoubleAttention(channels=256, hidden=64, maps=128).init(seed=2)
    for name, fan_out in (("convA", 64), ("convB", 128), ("convV", 128), ("conv_reconstruct", 256)):
        assert np.std(params[f"{name}.weight"]) == pytest.approx(np.sqrt(2 / fan_out), rel=0.03)
        assert not params[f"{name}.bias"].any()


@pytest.mark.parametrize("options", [{"hidden": 0}, {"maps": 0}, {"reduction": 0}])
def test_impossible_hyperparameters_are_refused(options):
    with pytest.raises(
        ValueError, match=f"DoubleAttention: {next(iter(options))}=0; expected an integer of at least 1"
    ):
        DoubleAttention(8, **options)
