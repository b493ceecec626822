import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import SplitAttention
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_parity, assert_starts_as, assert_state_dict_loads, in_pytorch
from tests.naming import for_each
from tests.strategies import seeds, split_modules


def published(module):
    """The block in PyTorch, with the authors' names."""
    torch = pytest.importorskip("torch")
    nn, act, splits = torch.nn, in_pytorch(module.activation), module.radix * module.output_channels

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            size, apart = module.kernel_size, module.dilation
            taps = {"stride": module.stride, "padding": apart * (size // 2), "dilation": apart, "bias": module.bias}
            self.conv = nn.Conv2d(module.in_channels, splits, size, groups=module.groups * module.radix, **taps)
            if module.batch_norm:
                self.bn0 = nn.BatchNorm2d(splits)
            self.fc1 = nn.Conv2d(module.output_channels, module.hidden_channels, 1, groups=module.groups)
            if module.batch_norm:
                self.bn1 = nn.BatchNorm2d(module.hidden_channels)
            self.fc2 = nn.Conv2d(module.hidden_channels, splits, 1, groups=module.groups)

        def forward(self, x):
            norm0, norm1 = (self.bn0, self.bn1) if module.batch_norm else (lambda u: u, lambda h: h)
            v = torch.stack(act(norm0(self.conv(x))).chunk(module.radix, 1), 1)
            z = self.fc2(act(norm1(self.fc1(v.sum(1).mean((2, 3), keepdim=True)))))
            z = z.reshape(len(x), module.groups, module.radix, -1)
            a = z.softmax(2) if module.radix > 1 else z.sigmoid()
            return (v * a.transpose(1, 2).reshape(len(x), module.radix, module.output_channels, 1, 1)).sum(1)

    return Reference().train(module.training)


@given(st.booleans().flatmap(split_modules), st.integers(3, 4), st.integers(2, 7), st.integers(2, 7), seeds)
@settings(max_examples=20, deadline=None)
def test_output_gradients_and_running_statistics_agree_with_pytorch(module, batch, height, width, seed):
    params, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed)
    [shape] = module.output_shapes(batch, height, width).values()
    dy = np.random.RandomState(seed).standard_normal(shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=0.1)


@pytest.mark.parametrize("options", [{}, {"groups": 2, "radix": 3}, {"radix": 1}])
def test_a_published_state_dict_loads_unchanged(options):
    module = SplitAttention(in_channels=12, hidden=4, **options)
    assert_state_dict_loads(module, published(module), prefix="conv2.")


@given(split_modules(training=True), seeds)
@settings(max_examples=10, deadline=None)
def test_gradients_agree_with_the_complex_step_in_training(module, seed):
    inputs = generic_values(module, batch=4, seed=seed)
    # A bias before a norm, and a score's that all splits share, have no gradient.
    report = gradcheck(module, *inputs, method="adjoint", allow_zero=["fc1.bias"])
    assert report.passed, report


def test_training_starts_where_pytorch_starts():
    assert_starts_as(SplitAttention(in_channels=64, out_channels=32, hidden=32), published)


@given(split_modules(), seeds)
@settings(max_examples=25)
def test_weights_of_a_channel_add_up_to_one_unless_there_is_one_split(module, seed):
    params, inputs = generic_values(module, seed=seed)
    a = module(params, inputs["x"]).attention["branch_weights"]
    assert a.shape == (len(inputs["x"]), module.radix, module.output_channels)
    if module.radix > 1:
        np.testing.assert_allclose(a.sum(axis=1), 1, rtol=1e-13)
    else:
        assert ((a > 0) & (a < 1)).all()


def test_cardinal_groups_do_not_see_each_other():
    module = SplitAttention(in_channels=8, groups=2, hidden=4)
    params, inputs = generic_values(module)
    run = module(params, inputs["x"])
    dy = np.zeros_like(run.output)
    dy[:, :4] = 1
    dx, grads = run.backward(dy)
    assert [bool(dx[:, i : i + 2].any()) for i in (0, 2, 4, 6)] == [True, False, True, False]
    assert not grads["fc2.weight"].reshape(2, 8, -1)[1].any()


@for_each(
    ("options", "message"),
    [
        ({"in_channels": 7}, "groups * radix=2; expected a divisor of in_channels=7"),
        ({"in_channels": 8, "groups": 4, "out_channels": 6}, "groups=4; expected a divisor of out_channels=6"),
        ({"in_channels": 12, "groups": 3, "hidden": 4}, "groups=3; expected a divisor of hidden_channels=8"),
        ({"in_channels": 8, "kernel_size": 2}, "kernel_size=2; expected an odd number"),
        ({"in_channels": 8, "radix": 0}, "radix=0; expected an integer of at least 1"),
    ],
)
def test_channels_that_cannot_be_cut_so_are_refused(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        SplitAttention(**options)
    assert str(caught.value).startswith(f"SplitAttention: {message}")


def test_a_single_image_is_refused_in_training_where_there_are_norms():
    module = SplitAttention(in_channels=4, training=True)
    with pytest.raises(ValueError, match="expected at least two images"):
        module(module.init(), np.ones((1, 4, 3, 3)))
    without = SplitAttention(in_channels=4, training=True, batch_norm=False)
    assert without(without.init(), np.ones((1, 4, 3, 3))).output.shape == (1, 4, 3, 3)
