import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ChannelAttention, DualAttentionHead, PositionAttention
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_starts_as
from tests.attention.test_channel import published as published_channel
from tests.attention.test_position import published as published_position
from tests.naming import for_each
from tests.strategies import danet_modules, seeds

MASKS = "drop6", "drop7", "drop8"


def published(module):
    """The PyTorch form, with the names of the authors' code; in training it takes the keep masks as well."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    in_channels, hidden = module.in_channels, module.branch_channels

    def layer(inputs):
        return nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())

    def classifier():
        return nn.Sequential(nn.Dropout2d(module.dropout), nn.Conv2d(hidden, module.classes, 1))

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv5a, self.conv5c = layer(in_channels), layer(in_channels)
            self.sa = published_position(PositionAttention(hidden))
            self.sc = published_channel(ChannelAttention(hidden, module.variant))
            self.conv51, self.conv52 = layer(hidden), layer(hidden)
            self.conv6, self.conv7, self.conv8 = classifier(), classifier(), classifier()

        def forward(self, x, *masks):
            u = self.conv51(self.sa(self.conv5a(x)))
            v = self.conv52(self.sc(self.conv5c(x)))
            outputs = []
            heads = self.conv6, self.conv7, self.conv8
            for t, head, mask in zip((u, v, u + v), heads, masks or [None] * 3, strict=True):
                y = head(t) if mask is None else head[1](t * mask[:, :, None, None] / (1 - module.dropout))
                if module.size is not None:
                    y = nn.functional.interpolate(y, module.size, mode="bilinear", align_corners=True)
                outputs.append(y)
            left, right, fused = outputs
            return fused, left, right

    return Reference().train(module.training)


def values(module, seed=0, height=3, width=4):
    """Generic values, and masks of 0 and 1."""
    params, inputs = generic_values(module, height=height, width=width, seed=seed)
    random = np.random.RandomState(seed)
    return params, {n: v if n == "x" else random.randint(0, 2, v.shape).astype(v.dtype) for n, v in inputs.items()}


@given(st.booleans().flatmap(danet_modules), seeds)
@settings(max_examples=10, deadline=None)
def test_outputs_gradients_and_running_statistics_agree_with_pytorch(module, seed):
    torch = pytest.importorskip("torch")
    params, inputs = values(module, seed)
    reference = published(module).double()
    missing, unexpected = reference.load_state_dict({n: torch.tensor(v) for n, v in params.items()}, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    leaf = torch.tensor(inputs["x"], requires_grad=True)
    masks = [torch.tensor(inputs[name]) for name in MASKS if name in inputs]
    expected = reference(leaf, *masks)
    random = np.random.RandomState(seed)
    dy = tuple(random.standard_normal(y.shape) for y in expected)
    torch.autograd.backward(expected, [torch.tensor(d) for d in dy])
    run = module(params, *inputs.values())
    dx, grads = run.backward(dy)
    if module.training:
        assert dx[1:] == (None, None, None)
        dx = dx[0]
    assert list(grads) == [name for name, _ in reference.named_parameters()]
    pairs = {f"output.{i}": pair for i, pair in enumerate(zip(run.output, expected, strict=True))}
    pairs |= {"x": (dx, leaf.grad)} | {name: (grads[name], p.grad) for name, p in reference.named_parameters()}
    assert set(run.buffers) == (set(module.buffer_shapes()) if module.training else set())
    pairs |= {name: (run.buffers[name], b) for name, b in reference.named_buffers() if name in run.buffers}
    floor = 0.1 * max(np.abs(g).max() for g in (dx, *grads.values()))
    for name, (ours, tensor) in pairs.items():
        theirs = tensor.detach().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * max(np.abs(theirs).max(), floor), err_msg=name)


def test_a_published_state_dict_loads_unchanged():
    module = DualAttentionHead(in_channels=16, classes=3, variant="code")
    reference = published(module)
    params = module.from_state_dict({f"head.{n}": v for n, v in reference.state_dict().items()}, "head.")
    assert list(params | {}) == list(module.parameter_shapes() | module.buffer_shapes())
    assert list(module.parameter_shapes()) == [name for name, _ in reference.named_parameters()]
    torch = pytest.importorskip("torch")
    x = np.random.RandomState(0).standard_normal((2, 16, 3, 5)).astype(np.float32)
    for ours, theirs in zip(module(params, x).output, reference(torch.tensor(x)), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


@given(danet_modules(training=True))
@settings(max_examples=5, deadline=None)
def test_gradients_agree_with_the_complex_step_in_training(module):
    params, inputs = values(module)
    report = gradcheck(module, params, inputs, method="adjoint", allow_zero=True)  # of few positions all may be off
    assert report.passed, report


def test_training_starts_where_pytorch_starts():
    assert_starts_as(DualAttentionHead(in_channels=1024, classes=150), published)


def test_without_dropout_fused_scores_are_those_of_the_sum():
    module = DualAttentionHead(in_channels=8, classes=3)
    params, inputs = values(module)
    for key in ("weight", "bias"):
        params[f"conv6.1.{key}"] = params[f"conv7.1.{key}"] = params[f"conv8.1.{key}"]
    fused, left, right = module(params, inputs["x"]).output
    bias = params["conv8.1.bias"][:, None, None]
    np.testing.assert_allclose(fused, left + right - bias, rtol=1e-12, atol=1e-13)


def test_each_mask_drops_channels_of_its_own_classifier_alone():
    module = DualAttentionHead(in_channels=16, classes=3, training=True)
    params, inputs = values(module)
    ones = {name: np.ones_like(v) if name in MASKS else v for name, v in inputs.items()}
    whole = module(params, *ones.values()).output
    for name, place in (("drop8", 0), ("drop6", 1), ("drop7", 2)):
        dropped = module(params, *(ones | {name: 0 * ones[name]}).values()).output
        for i, (y, z) in enumerate(zip(dropped, whole, strict=True)):
            assert (y == z).all() == (i != place)
        bias = params[f"conv{name[-1]}.1.bias"]
        np.testing.assert_array_equal(dropped[place], np.broadcast_to(bias[:, None, None], dropped[place].shape))


@for_each(
    ("options", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels=0; expected an integer of at least 1"),
        ({"classes": 2.0}, TypeError, "classes=2.0 is a float; expected an int"),
        ({"dropout": 1}, ValueError, "dropout=1; expected a probability of at least 0 and below 1"),
        ({"dropout": "0.1"}, TypeError, "dropout='0.1' is a str; expected a number"),
        ({"variant": "codes"}, ValueError, "variant='codes'; did you mean 'code'"),
        ({"training": 1}, TypeError, "training=1 is an int; expected True or False"),
        ({"size": (1,)}, ValueError, "expected None or a pair"),
        ({"size": 7}, ValueError, "size=7; expected None or a pair"),
        ({"size": (0, 3)}, ValueError, "size\\[0\\]=0; expected an integer of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        DualAttentionHead(**{"in_channels": 8, "classes": 3} | options)


def test_training_on_a_single_value_is_refused():
    module = DualAttentionHead(in_channels=8, classes=3, training=True)
    params, inputs = generic_values(module, batch=1, height=1, width=1)
    with pytest.raises(ValueError, match="at least two values in each channel for the variance"):
        module(params, *inputs.values())
