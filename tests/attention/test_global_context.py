import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import GlobalContext
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in, assert_rearranged_alike, assert_state_dict_loads, in_pytorch
from tests.naming import for_each
from tests.strategies import cases, gc_modules, seeds

AUTHORS = {
    "conv_attn": "conv_mask",
    "mlp_add.fc1": "channel_add_conv.0",
    "mlp_add.norm": "channel_add_conv.1",
    "mlp_add.fc2": "channel_add_conv.3",
    "mlp_scale.fc1": "channel_mul_conv.0",
    "mlp_scale.norm": "channel_mul_conv.1",
    "mlp_scale.fc2": "channel_mul_conv.3",
}
"""The names of the layers in the authors' code, by those of timm's."""


def published(module):
    """The block in PyTorch, as the authors' code computes it, with timm's names."""
    torch = pytest.importorskip("torch")

    class Transform(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Conv2d(module.channels, module.hidden_channels, 1)
            self.norm = torch.nn.LayerNorm(module.hidden_channels, eps=module.eps)
            self.fc2 = torch.nn.Conv2d(module.hidden_channels, module.channels, 1)
            torch.nn.init.zeros_(self.fc2.weight)
            torch.nn.init.zeros_(self.fc2.bias)

        def forward(self, context):
            h = self.fc1(context)
            normal = self.norm(h.flatten(1)).view_as(h)
            return self.fc2(in_pytorch(module.activation)(normal))

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if module.attention:
                self.conv_attn = torch.nn.Conv2d(module.channels, 1, 1)
                torch.nn.init.kaiming_normal_(self.conv_attn.weight, mode="fan_in")
                torch.nn.init.zeros_(self.conv_attn.bias)
            for fusion in ("add", "scale"):
                if fusion in module.fuse:
                    setattr(self, f"mlp_{fusion}", Transform())

        def forward(self, x):
            context = x.mean((2, 3), keepdim=True)
            if module.attention:
                weights = torch.softmax(self.conv_attn(x).flatten(2), dim=2)
                context = (x.flatten(2) @ weights.transpose(1, 2))[..., None]
            if "scale" in module.fuse:
                x = x * in_pytorch(module.gate)(self.mlp_scale(context))
            return x + self.mlp_add(context) if "add" in module.fuse else x

    return Reference()


@given(cases(gc_modules()), seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=1e-3)


def test_a_published_state_dict_loads_unchanged():
    module = GlobalContext(channels=12, fuse=("add", "scale"), hidden=5)
    assert_state_dict_loads(module, published(module))


@given(cases(gc_modules()))
@settings(max_examples=20)
def test_the_authors_names_and_shapes_are_read(case):
    module, params, _ = case
    theirs = {}
    for name, value in params.items():
        layer, _, word = name.rpartition(".")
        theirs[f"{AUTHORS[layer]}.{word}"] = value[:, None, None] if layer.endswith("norm") else value
    found = module.from_state_dict(theirs)
    assert list(found) == list(params)
    for name, value in params.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_training_starts_from_he_scores_and_zeros_in_the_last_layers():
    params = GlobalContext(channels=512, reduction=2, fuse=("add", "scale")).init(seed=3)
    for name in ("mlp_add.fc2.weight", "mlp_add.fc2.bias", "mlp_scale.fc2.weight", "mlp_scale.fc2.bias"):
        assert not params[name].any()
    assert np.std(params["conv_attn.weight"]) == pytest.approx(np.sqrt(2 / 512), rel=0.1)
    assert not params["conv_attn.bias"].any()
    assert np.abs(params["mlp_add.fc1.weight"]).max() == pytest.approx(1 / np.sqrt(512), rel=1e-3)


def test_a_block_that_adds_starts_as_the_identity():
    module = GlobalContext(channels=12, fuse=("add",))
    x = generic_values(module)[1]["x"]
    np.testing.assert_array_equal(module(module.init(), x).output, x)


@given(cases(gc_modules()), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_positions_in_another_order_give_outputs_in_that_order(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(gc_modules().filter(lambda module: module.attention)), st.floats(-30, 30))
@settings(max_examples=25)
def test_what_is_added_to_all_scores_changes_nothing(case, more):
    module, params, inputs = case
    before = module(params, inputs["x"]).output
    after = module(params | {"conv_attn.bias": params["conv_attn.bias"] + more}, inputs["x"]).output
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-11)


def test_scores_that_are_all_the_same_weigh_as_no_attention_does():
    module = GlobalContext(channels=6, hidden=4, fuse=("scale", "add"))
    params, inputs = generic_values(module)
    equal = params | {"conv_attn.weight": np.zeros((1, 6, 1, 1))}
    without = GlobalContext(channels=6, hidden=4, fuse=("scale", "add"), attention=False)
    others = {name: value for name, value in params.items() if not name.startswith("conv_attn")}
    found, expected = module(equal, inputs["x"]), without(others, inputs["x"])
    np.testing.assert_allclose(found.output, expected.output, rtol=1e-13)
    np.testing.assert_allclose(found.attention["position"], 1 / 20, rtol=1e-14)


def test_every_position_is_told_the_same():
    module = GlobalContext(channels=6, hidden=4, fuse=("add",))
    params, inputs = generic_values(module)
    told = module(params, inputs["x"]).output - inputs["x"]
    np.testing.assert_allclose(told, np.broadcast_to(told[:, :, :1, :1], told.shape), rtol=0, atol=1e-14)


@for_each(
    ("options", "error", "message"),
    [
        ({"fuse": "add"}, TypeError, "GlobalContext: fuse='add' is a str; expected a tuple of some of add, scale"),
        ({"fuse": ("mul",)}, ValueError, "GlobalContext: fuse holds an unknown 'mul'"),
        ({"eps": 0}, ValueError, "GlobalContext: eps=0; expected a number above 0"),
        ({"attention": 1}, TypeError, "GlobalContext: attention=1 is an int; expected True or False"),
        ({"hidden": 0}, ValueError, "GlobalContext: hidden=0; expected an integer of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        GlobalContext(8, **options)
    assert str(caught.value).startswith(message)
