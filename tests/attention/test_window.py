import importlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npattn import MultiHeadSelfAttention, WindowAttention
from npattn.ops.convolution import pair
from npattn.oracle import generic_values
from tests.attention.parity import assert_parity_in
from tests.attention.witnesses import agree, draw, installed
from tests.naming import for_each
from tests.strategies import cases, seeds, window_modules


def published(module):
    """The attention of a Swin block in PyTorch, with the authors' names."""
    torch = pytest.importorskip("torch")
    (h, w), inner = pair(module.window), module.heads * module.query_channels

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            table = torch.zeros((2 * h - 1) * (2 * w - 1), module.heads)
            self.relative_position_bias_table = torch.nn.Parameter(table)
            self.qkv = torch.nn.Linear(module.channels, 3 * inner, bias=module.bias)
            self.proj = torch.nn.Linear(inner, module.channels)
            at = torch.cartesian_prod(torch.arange(h), torch.arange(w)).reshape(h * w, 2)
            apart = at[:, None] - at + torch.tensor([h - 1, w - 1])
            self.index = apart[..., 0] * (2 * w - 1) + apart[..., 1]

        def cut(self, x):
            batch, height, width, channels = x.shape
            cut = x.reshape(batch, height // h, h, width // w, w, channels).transpose(2, 3)
            return cut.reshape(-1, h * w, channels)

        def low(self, height, width, moves):
            """-100 where positions come from parts of the map that lie apart."""
            parts = torch.zeros(1, height, width, 1)
            for i, down in enumerate((slice(-h), slice(-h, -moves[0] or None), slice(-moves[0] or height, None))):
                for j, right in enumerate((slice(-w), slice(-w, -moves[1] or None), slice(-moves[1] or width, None))):
                    parts[:, down, right] = 3 * i + j
            same = self.cut(parts)
            value = -100.0 if module.mask_value is not None else -torch.inf
            return torch.zeros(()).where(same == same.transpose(1, 2), value)[:, None]

        def forward(self, x):
            moves, (height, width) = module.moves(x.shape[2:]), x.shape[2:]
            x = x.permute(0, 2, 3, 1).roll((-moves[0], -moves[1]), (1, 2))
            x = torch.nn.functional.pad(x, (0, 0, 0, -width % w, 0, -height % h))
            batch, tall, wide, _ = x.shape
            u = self.qkv(self.cut(x)).reshape(-1, h * w, 3, module.heads, module.query_channels)
            q, k, v = u.permute(2, 0, 3, 1, 4)
            bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
            z = module.scale * q @ k.transpose(2, 3) + bias
            if any(moves):
                z = z.reshape(batch, -1, *z.shape[1:]) + self.low(tall, wide, moves).to(z)
            o = torch.softmax(z.reshape(-1, *z.shape[-3:]), dim=3) @ v
            y = self.proj(o.transpose(1, 2).reshape(-1, h * w, inner))
            y = y.reshape(batch, tall // h, wide // w, h, w, module.channels).transpose(2, 3)
            y = y.reshape(batch, tall, wide, module.channels)[:, :height, :width]
            return y.roll(moves, (1, 2)).permute(0, 3, 1, 2)

    return Reference()


@given(cases(window_modules()), seeds)
@settings(max_examples=20, deadline=None)
def test_output_and_gradients_agree_with_pytorch(case, seed):
    assert_parity_in(case, published, seed, floor=0.01)


def timm_block(module, size):
    """timm's block on maps of a size, whose windows are no larger than these."""
    installed("timm")
    swin = importlib.import_module("timm.models.swin_transformer")
    return swin.SwinTransformerBlock(
        module.channels,
        size,
        module.heads,
        module.head_channels,
        pair(module.window),
        pair(module.shift),
        qkv_bias=module.bias,
    )


def assert_blocks_agree(module, block, x, state, prefix=""):
    """Hold output and gradients to those of the attention in timm's block, whose state dict is loaded as it is."""
    import torch

    params = module.from_state_dict(state, prefix)
    leaf = torch.tensor(x.transpose(0, 2, 3, 1).copy(), requires_grad=True)
    expected = block._attn(leaf)
    dy = np.random.RandomState(1).standard_normal(x.shape)
    block.zero_grad()
    expected.backward(torch.tensor(dy.transpose(0, 2, 3, 1).copy()))
    run = module(params, x)
    dx, grads = run.backward(dy)
    agree(run.output, expected.detach().numpy().transpose(0, 3, 1, 2))
    agree(dx, leaf.grad.numpy().transpose(0, 3, 1, 2))
    theirs = {name: parameter.grad.numpy() for name, parameter in block.attn.named_parameters()}
    assert list(grads) == list(theirs)
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    for name, gradient in grads.items():
        agree(gradient, theirs[name], name, 0.01 * largest)  # that of a single logit is rounding alone


@given(window_modules(), st.integers(4, 9), st.integers(4, 9), seeds)
@example(WindowAttention(4, 2, window=(3, 4), shift=(1, 2)), 3, 8, 0)  # one window covers the rows
@settings(max_examples=12, deadline=None)
def test_it_is_the_attention_of_timms_block(module, height, width, seed):
    height, width = (max(length, side) for length, side in zip((height, width), pair(module.window), strict=True))
    block = draw_block(timm_block(module, (height, width)), seed)
    assert (block.window_size, block.shift_size) == (pair(module.window), module.moves((height, width)))
    x = np.random.RandomState(seed).standard_normal((2, module.channels, height, width))
    assert_blocks_agree(module, block, x, block.state_dict(), "attn.")


def draw_block(block, seed=0):
    """Give a block generic values, and the masks that drawing has lost."""
    draw(block, seed)
    for module in block.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    return block


def test_every_attention_of_a_swin_transformer_loads_and_gives_timms_values():
    """On maps of 16, 8, 4 and 2 positions a side, which windows do not divide, or which one window covers."""
    timm, torch = installed("timm"), importlib.import_module("torch")
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, num_classes=0).double().eval()
    state, seen = model.state_dict(), {}
    blocks = {name: block for name, block in model.named_modules() if type(block).__name__ == "SwinTransformerBlock"}
    for name, block in blocks.items():
        block.norm1.register_forward_hook(lambda _, __, x, name=name: seen.update({name: x.detach()}))
    with torch.no_grad():
        model(torch.tensor(np.random.RandomState(0).standard_normal((1, 3, 64, 64))))
        assert len(blocks) == len(seen) == 12
        for name, block in blocks.items():
            module = WindowAttention(block.dim, block.attn.num_heads, block.window_size, block.shift_size)
            params = module.from_state_dict(state, f"{name}.attn.")
            expected = block._attn(seen[name]).numpy().transpose(0, 3, 1, 2)
            agree(module(params, seen[name].numpy().transpose(0, 3, 1, 2)).output, expected, name)


def test_torchvisions_swin_transformer_loads_and_gives_its_values_where_windows_fill_the_map():
    models, torch = installed("torchvision").models, importlib.import_module("torch")
    model = models.swin_t(num_classes=2).double().eval()
    for name, size in (("features.1.0", 14), ("features.1.1", 14), ("features.3.1", 7)):
        attention = model.get_submodule(f"{name}.attn")
        module = WindowAttention(
            attention.qkv.in_features, attention.num_heads, attention.window_size, attention.shift_size
        )
        params = module.from_state_dict(model.state_dict(), f"{name}.attn.")
        x = np.random.RandomState(0).standard_normal((2, module.channels, size, size))
        with torch.no_grad():
            expected = attention(torch.tensor(x.transpose(0, 2, 3, 1).copy())).numpy()
        agree(module(params, x).output, expected.transpose(0, 3, 1, 2), name)


def test_training_starts_with_small_weights_and_no_biases():
    params = WindowAttention(channels=96, heads=3).init(seed=1)
    for name in ("relative_position_bias_table", "qkv.weight", "proj.weight"):
        assert params[name].std() == pytest.approx(0.02, rel=0.1)
        assert abs(params[name].mean()) < 0.003
    assert not params["qkv.bias"].any()
    assert not params["proj.bias"].any()


@given(cases(window_modules()), st.data())
@settings(max_examples=15, deadline=None)
def test_attention_map_is_what_the_output_is_made_of(case, data):
    module, params, inputs = case
    x, (height, width) = inputs["x"], inputs["x"].shape[2:]
    s = module.attention_map(params, x)
    assert s.shape == (len(x), module.heads, height * width, height * width)
    full = all(length % side == 0 for length, side in zip((height, width), pair(module.window), strict=True))
    if full:
        np.testing.assert_allclose(s.sum(axis=3), 1, rtol=1e-12)
    weight, inner = params["qkv.weight"], module.heads * module.query_channels
    bias = params.get("qkv.bias", np.zeros(3 * inner))[2 * inner :].reshape(1, module.heads, -1, 1)
    v = np.einsum("oc,bcn->bon", weight[2 * inner :], x.reshape(*x.shape[:2], -1))
    o = np.einsum("bhji,bhdi->bhdj", s, v.reshape(len(x), module.heads, module.query_channels, -1))
    y = np.einsum("co,bon->bcn", params["proj.weight"], (o + bias).reshape(len(x), inner, -1))
    y = (y + params["proj.bias"][:, None]).reshape(x.shape)
    # Zeros beyond the map have the bias for a value: with it, weights that take part there need not be known.
    np.testing.assert_allclose(module(params, x).output, y, rtol=1e-10, atol=1e-10)
    rows = data.draw(st.lists(st.integers(0, height * width - 1), max_size=4))
    np.testing.assert_allclose(module.attention_map(params, x, rows), s[:, :, rows], rtol=1e-12)


def test_one_window_without_a_table_is_multi_head_self_attention():
    module = WindowAttention(channels=6, heads=2, window=(4, 5))
    params, inputs = generic_values(module, height=4, width=5)
    params["relative_position_bias_table"][:] = 0
    whole = MultiHeadSelfAttention(channels=6, heads=2)
    names = {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias", "proj.weight": "out_proj.weight"}
    theirs = {names.get(name, "out_proj.bias"): value for name, value in params.items() if "table" not in name}
    np.testing.assert_allclose(module(params, inputs["x"]).output, whole(theirs, inputs["x"]).output, rtol=1e-12)


def test_windows_do_not_see_each_other_and_a_shift_does_not_join_opposite_edges():
    for shift, seen in ((0, [0, 1]), (1, [0])):
        module = WindowAttention(channels=2, heads=1, window=(1, 2), shift=(0, shift))
        params, inputs = generic_values(module, batch=1, height=1, width=6)
        assert np.flatnonzero(module.attention_map(params, inputs["x"], [0])[0, 0, 0]).tolist() == seen
    dy = np.zeros((1, 2, 1, 6))
    dy[..., 1] = 1
    dx, _ = module(params, inputs["x"]).backward(dy)
    assert np.flatnonzero(dx[0].any(axis=0)).tolist() == [1, 2]


def test_a_map_that_one_window_covers_does_not_move():
    module = WindowAttention(channels=4, heads=1, window=(4, 3), shift=(2, 1))
    still = WindowAttention(channels=4, heads=1, window=(4, 3))
    assert module.moves((4, 7)) == (0, 1)
    params, inputs = generic_values(module, height=3, width=3)
    np.testing.assert_array_equal(module(params, inputs["x"]).output, still(params, inputs["x"]).output)


def test_100_taken_off_hides_no_logits_that_are_large_enough():
    options = {"channels": 1, "heads": 1, "window": (1, 2), "shift": (0, 1)}
    hiding, lowering = WindowAttention(**options), WindowAttention(**options, mask_value=-100)
    params, _ = generic_values(hiding)
    params |= {"qkv.weight": np.reshape([30.0, 30.0, 1.0], (3, 1)), "qkv.bias": np.zeros(3)}
    x = np.reshape([1.0, 2.0, 3.0, 4.0], (1, 1, 1, 4))  # 0 and 3 stand in one window
    rows = [module.attention_map(params, x, [0])[0, 0, 0] for module in (hiding, lowering)]
    assert rows[0].tolist() == [1, 0, 0, 0]
    assert rows[1].round(12).tolist() == [0, 0, 0, 1]


@for_each(
    ("options", "error", "message"),
    [
        ({"heads": 3}, ValueError, "heads=3; expected a divisor of channels=8"),
        ({"window": 0}, ValueError, "window=0; expected an integer of at least 1"),
        ({"window": (7, 7, 7)}, ValueError, "window=(7, 7, 7); expected an integer, or a pair (height, width)"),
        ({"window": 3.5}, TypeError, "window=3.5 is a float; expected an int"),
        ({"shift": -1}, ValueError, "shift=-1; expected an integer of at least 0"),
        ({"shift": 7}, ValueError, "shift=7; expected fewer rows and columns than a window has, window=7"),
        ({"window": (7, 2), "shift": 3}, ValueError, "shift=3; expected fewer rows and columns"),
        ({"head_channels": 0}, ValueError, "head_channels=0; expected an integer of at least 1"),
        ({"mask_value": "-100"}, TypeError, "mask_value='-100'"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        WindowAttention(**{"channels": 8, "heads": 2} | options)
    assert str(caught.value).startswith(f"WindowAttention: {message}")


def test_a_list_becomes_a_pair_and_heads_may_have_channels_of_their_own():
    module = WindowAttention(8, 3, [7, 5], [3, 2], head_channels=4)
    assert (module.window, module.shift, module.scale) == ((7, 5), (3, 2), 0.5)
    assert module.parameter_shapes()["qkv.weight"] == (36, 8)
