import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import SelectiveKernel
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_parity, assert_starts_as, assert_state_dict_loads, in_pytorch
from tests.naming import for_each
from tests.strategies import seeds, sk_modules


def published(module):
    """The block in PyTorch, with timm's names."""
    torch = pytest.importorskip("torch")
    nn, count = torch.nn, len(module.kernel_sizes)

    class Path(nn.Module):
        def __init__(self, size, apart):
            super().__init__()
            taps = {"padding": apart * (size // 2), "dilation": apart, "stride": module.stride}
            self.conv = nn.Conv2d(
                module.read_channels, module.output_channels, size, bias=False, groups=module.groups, **taps
            )
            self.bn = nn.BatchNorm2d(module.output_channels)

        def forward(self, x):
            return in_pytorch(module.activation)(self.bn(self.conv(x)))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc_reduce = nn.Conv2d(module.output_channels, module.hidden_channels, 1, bias=False)
            self.bn = nn.BatchNorm2d(module.hidden_channels)
            self.fc_select = nn.Conv2d(module.hidden_channels, count * module.output_channels, 1, bias=False)

        def forward(self, pooled):
            z = self.fc_select(torch.relu(self.bn(self.fc_reduce(pooled))))
            return z.reshape(len(z), count, module.output_channels, 1, 1).softmax(1)

    class Reference(nn.Module):
        def __init__(self):
            super().__init__()
            spread = [(3, k // 2) if module.dilated and k > 3 else (k, 1) for k in module.kernel_sizes]
            self.paths = nn.ModuleList([Path(*kernel) for kernel in spread])
            self.attn = Attention()

        def forward(self, x):
            parts = x.chunk(count, 1) if module.split_input else [x] * count
            u = torch.stack([path(part) for path, part in zip(self.paths, parts, strict=True)], 1)
            return (u * self.attn(u.sum(1).mean((2, 3), keepdim=True))).sum(1)

    return Reference().train(module.training)


@given(st.booleans().flatmap(sk_modules), st.integers(3, 4), st.integers(2, 7), st.integers(2, 7), seeds)
@settings(max_examples=20, deadline=None)
def test_output_gradients_and_running_statistics_agree_with_pytorch(module, batch, height, width, seed):
    params, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed)
    [shape] = module.output_shapes(batch, height, width).values()
    dy = np.random.RandomState(seed).standard_normal(shape)
    assert_parity(module, published(module), params, inputs["x"], dy, floor=0.1)


@pytest.mark.parametrize("options", [{}, {"kernel_sizes": (3, 5, 7), "split_input": False}, {"dilated": False}])
def test_a_published_state_dict_loads_unchanged(options):
    module = SelectiveKernel(in_channels=12, hidden=5, **options)
    assert_state_dict_loads(module, published(module), prefix="conv2.")


@given(sk_modules(training=True), seeds)
@settings(max_examples=10, deadline=None)
def test_gradients_agree_with_the_complex_step_in_training(module, seed):
    report = gradcheck(module, *generic_values(module, batch=4, seed=seed), method="adjoint")
    assert report.passed, report


def test_training_starts_where_pytorch_starts():
    assert_starts_as(SelectiveKernel(in_channels=64, out_channels=32, hidden=32), published)


@given(sk_modules(), seeds)
@settings(max_examples=25)
def test_weights_of_a_channel_add_up_to_one_and_mix_its_branches(module, seed):
    params, inputs = generic_values(module, seed=seed)
    run = module(params, inputs["x"])
    a = run.attention["branch_weights"]
    assert a.shape == (len(inputs["x"]), len(module.kernel_sizes), module.output_channels)
    np.testing.assert_allclose(a.sum(axis=1), 1, rtol=1e-13)
    alone = params | {"attn.fc_select.weight": np.zeros_like(params["attn.fc_select.weight"])}
    np.testing.assert_allclose(
        module(alone, inputs["x"]).attention["branch_weights"], 1 / len(module.kernel_sizes), rtol=1e-14
    )


def test_a_branch_that_all_channels_choose_is_all_that_comes_out():
    module = SelectiveKernel(in_channels=6, split_input=False, hidden=3)
    params, inputs = generic_values(module)
    params["attn.bn.bias"] += 1000  # of which the second branch gets much more
    chosen = np.concatenate([np.zeros((6, 3, 1, 1)), np.ones((6, 3, 1, 1))])
    output = module(params | {"attn.fc_select.weight": chosen}, inputs["x"]).output
    other = params | {"attn.fc_select.weight": chosen[::-1].copy()}
    swapped = {name.replace("paths.0", "paths.x"): value for name, value in other.items()}
    swapped = {name.replace("paths.1", "paths.0"): value for name, value in swapped.items()}
    swapped = {name.replace("paths.x", "paths.1"): value for name, value in swapped.items()}
    mirrored = SelectiveKernel(in_channels=6, split_input=False, hidden=3, kernel_sizes=(5, 3))
    np.testing.assert_allclose(mirrored(swapped, inputs["x"]).output, output, rtol=1e-12)
    assert (output != 0).any()


@for_each(("channels", "hidden"), [(64, 8), (96, 8), (208, 16), (256, 16), (512, 32), (312, 24)])
def test_channels_inside_are_rounded_to_eights(channels, hidden):
    assert SelectiveKernel(in_channels=channels).hidden_channels == hidden


@for_each(
    ("options", "message"),
    [
        (
            {"in_channels": 7},
            "in_channels=7 can't be split among 2 branches; expected a multiple of 2, or split_input=",
        ),
        (
            {"in_channels": 8, "groups": 3},
            "groups=3; expected a divisor of read_channels=4",
        ),
        ({"in_channels": 8, "groups": 4, "out_channels": 6}, "groups=4; expected a divisor of out_channels=6"),
        ({"in_channels": 8, "kernel_sizes": (3, 4)}, "kernel_sizes[1]=4; expected an odd number"),
        ({"in_channels": 8, "stride": 0}, "stride=0; expected an integer of at least 1"),
    ],
)
def test_channels_that_cannot_be_cut_so_are_refused(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        SelectiveKernel(**options)
    assert str(caught.value).startswith(f"SelectiveKernel: {message}")


def test_a_single_image_is_refused_in_training():
    module = SelectiveKernel(in_channels=4, training=True)
    with pytest.raises(ValueError, match="expected at least two images"):
        module(module.init(), np.ones((1, 4, 3, 3)))
