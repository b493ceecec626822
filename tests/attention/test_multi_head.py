import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import MultiHeadSelfAttention, PositionAttention
from npattn.module import as_tuple
from npattn.oracle import generic_values, gradcheck
from tests.attention.parity import assert_parity, assert_rearranged_alike, assert_runs, assert_starts_as
from tests.memory import peak_memory, peak_of_pass
from tests.strategies import cases, mhsa_modules, seeds


def published(module, need_weights=True):
    """PyTorch's own module on the positions of a map, with all weights at once."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.MultiheadAttention):
        def forward(self, x, *others):
            tokens = x.flatten(2).permute(2, 0, 1)
            options = {"need_weights": need_weights, "average_attn_weights": False}
            y, _ = super().forward(tokens, tokens, tokens, attn_mask=self.added(x, others), **options)
            return y.permute(1, 2, 0).reshape(x.shape)

        def added(self, x, others):
            """What is added to the logits: the bias, and -inf where a key is not seen."""
            if not (module.causal or others):
                return None
            given = dict(zip(list(module.input_shapes(1, 1, 1))[1:], others, strict=True))
            positions = x.shape[2] * x.shape[3]
            shape = len(x), module.heads, positions, positions
            added = given.get("bias", torch.zeros((), dtype=x.dtype)).expand(shape)
            hidden = torch.zeros(shape, dtype=torch.bool)
            if module.causal:
                hidden = ~(~hidden).tril()
            if module.padding:
                hidden = hidden | (torch.arange(positions) >= given["lengths"].reshape(-1, 1, 1, 1))
            return added.masked_fill(hidden, -torch.inf).flatten(0, 1)

    return Reference(module.channels, module.heads)


def fused(module):
    """The same, where it does without the weights and so takes PyTorch's own attention in tiles."""
    return published(module, need_weights=False)


@pytest.mark.parametrize("form", [published, fused])
@given(case=cases(mhsa_modules()), seed=seeds)
@settings(max_examples=25)
def test_output_and_gradients_agree_with_pytorch(form, case, seed):
    module, params, inputs = case
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    # With a single position queries and keys have gradient 0.
    assert_parity(module, form(module), params, inputs["x"], dy, floor=0.1)


@given(case=cases(mhsa_modules(masked=True), batch=st.integers(1, 2)), seed=seeds, serves=st.sampled_from([1, None]))
@settings(max_examples=25)
def test_masks_biases_and_lengths_agree_with_pytorch(case, seed, serves):
    torch = pytest.importorskip("torch")
    module, params, inputs = case
    if module.bias:
        positions = inputs["bias"].shape[-1]
        shape = serves or len(inputs["x"]), module.heads, positions, positions
        inputs["bias"] = np.random.RandomState(seed).standard_normal(shape)
    reference = published(module).double()
    reference.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    leaves = [torch.tensor(a, requires_grad=name != "lengths") for name, a in inputs.items()]
    expected = reference(*leaves)
    dy = np.random.RandomState(seed).standard_normal(inputs["x"].shape)
    expected.backward(torch.tensor(dy))
    run = module(params, *inputs.values())
    dx, grads = run.backward(dy)
    found = [run.output, *as_tuple(dx), *grads.values()]
    theirs = [expected, *(leaf.grad for leaf in leaves), *(p.grad for p in reference.parameters())]
    largest = max(np.abs(g).max() for g in grads.values())
    for ours, tensor in zip(found, theirs, strict=True):
        assert (ours is None) == (tensor is None)
        if ours is not None:
            np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=0, atol=1e-12 * max(largest, 1))


def test_positions_that_are_padding_reach_no_other_whatever_stands_there():
    module = MultiHeadSelfAttention(channels=6, heads=2, padding=True)
    params, inputs = generic_values(module, batch=3, height=2, width=3)
    inputs["lengths"][:] = 4, 6, 0
    x, lengths = inputs.values()
    y = module(params, x, lengths).output
    spoilt = x.reshape(3, 6, 6).copy()
    spoilt[0, :, 4:] = np.nan
    again = module(params, spoilt.reshape(x.shape), lengths).output
    np.testing.assert_allclose(again.reshape(3, 6, 6)[0, :, :4], y.reshape(3, 6, 6)[0, :, :4], rtol=1e-13)
    np.testing.assert_array_equal(again[1:], y[1:])
    np.testing.assert_allclose(y[2], np.broadcast_to(params["out_proj.bias"][:, None, None], (6, 2, 3)), rtol=1e-15)


def test_attention_map_shows_what_is_hidden():
    module = MultiHeadSelfAttention(channels=4, heads=2, causal=True, bias=True, padding=True)
    params, inputs = generic_values(module, batch=2, height=2, width=3)
    inputs["lengths"][:] = 6, 4
    x, *others = inputs.values()
    s = module.attention_map(params, x, others=others)
    np.testing.assert_array_equal(s > 0, np.broadcast_to(np.tri(6) * (np.arange(6) < [[[[6]]], [[[4]]]]) > 0, s.shape))
    np.testing.assert_allclose(s.sum(axis=-1), 1, rtol=1e-14)
    np.testing.assert_allclose(module.attention_map(params, x, [5, 0], others=others), s[:, :, [5, 0]], rtol=1e-13)


def test_a_bias_of_another_shape_is_refused():
    module = MultiHeadSelfAttention(channels=4, heads=2, bias=True)
    params, inputs = generic_values(module, height=2, width=3)
    for shape in [(3, 1, 6, 6), (2, 4, 6, 6), (1, 1, 6, 5), (6, 6)]:
        with pytest.raises(ValueError, match=r"bias has shape .*; expected \("):
            module(params, inputs["x"], np.zeros(shape))


def test_a_published_state_dict_loads_unchanged():
    torch = pytest.importorskip("torch")
    module = MultiHeadSelfAttention(channels=24, heads=3)
    reference = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    params = module.from_state_dict(reference.state_dict())
    assert list(params) == list(reference.state_dict())
    assert all(params[name].dtype == np.float32 for name in params)
    x = np.random.RandomState(0).standard_normal((2, 24, 3, 5)).astype(np.float32)
    tokens = torch.tensor(x.reshape(2, 24, 15).swapaxes(1, 2))
    expected, weights = reference(tokens, tokens, tokens, average_attn_weights=False)
    output = module(params, x).output.reshape(2, 24, 15).swapaxes(1, 2)
    np.testing.assert_allclose(output, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(module.attention_map(params, x), weights.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_training_starts_where_pytorch_starts():
    torch = pytest.importorskip("torch")
    module = MultiHeadSelfAttention(channels=256, heads=8)
    assert_starts_as(module, lambda module: torch.nn.MultiheadAttention(module.channels, module.heads))


@given(st.integers(1, 300), st.integers(1, 40))
def test_heads_share_the_channels_equally_or_are_refused(channels, heads):
    if channels % heads:
        with pytest.raises(ValueError, match="expected a divisor") as caught:
            MultiHeadSelfAttention(channels, heads)
        message = str(caught.value)
        assert f"heads={heads}; expected a divisor of channels={channels}" in message
        suggested = [int(word) for word in message.partition("heads, ")[2].split() if word.isdigit()]
        assert suggested
        for fitting in suggested:
            assert abs(fitting - channels) < heads
            assert MultiHeadSelfAttention(fitting, heads).head_channels * heads == fitting
        return
    module = MultiHeadSelfAttention(channels, heads)
    assert module.head_channels * heads == channels
    assert module.scale == pytest.approx(1 / math.sqrt(channels / heads), rel=1e-15)
    assert module.parameter_shapes() == {
        "in_proj_weight": (3 * channels, channels),
        "in_proj_bias": (3 * channels,),
        "out_proj.weight": (channels, channels),
        "out_proj.bias": (channels,),
    }


def head_rows(module, order):
    """Rows of one of the three parts, with the heads in another order."""
    return np.arange(module.channels).reshape(module.heads, -1)[order].ravel()


@given(cases(mhsa_modules()), st.randoms(use_true_random=False))
def test_the_order_of_the_heads_does_not_matter(case, random):
    module, params, inputs = case
    order = list(range(module.heads))
    random.shuffle(order)
    rows = head_rows(module, order)
    threefold = np.concatenate([part * module.channels + rows for part in range(3)])
    reordered = params | {
        "in_proj_weight": params["in_proj_weight"][threefold],
        "in_proj_bias": params["in_proj_bias"][threefold],
        "out_proj.weight": params["out_proj.weight"][:, rows],
    }
    x = inputs["x"]
    np.testing.assert_allclose(module(reordered, x).output, module(params, x).output, rtol=1e-10, atol=1e-11)
    s = module.attention_map(params, x)
    np.testing.assert_allclose(module.attention_map(reordered, x), s[:, order], rtol=1e-12)


def test_a_head_sees_nothing_of_the_channels_of_another():
    module = MultiHeadSelfAttention(channels=16, heads=4)
    params, inputs = generic_values(module)
    before = module.attention_map(params, inputs["x"])
    changed = params | {"in_proj_bias": params["in_proj_bias"].copy()}
    changed["in_proj_bias"][4:8] += 1.0  # queries of the second head
    after = module.attention_map(changed, inputs["x"])
    np.testing.assert_array_equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert np.abs(after[:, 1] - before[:, 1]).max() > 1e-3


@given(cases(mhsa_modules()), st.randoms(use_true_random=False))
def test_positions_may_be_rearranged_and_the_output_is_rearranged_alike(case, random):
    module, params, inputs = case
    assert_rearranged_alike(module, params, inputs["x"], random)


@given(cases(mhsa_modules()), st.floats(-100, 100))
@settings(max_examples=25)
def test_the_keys_bias_has_no_effect_and_no_gradient_and_the_values_bias_passes_through(case, shift):
    module, params, inputs = case
    keys, values = (slice(part * module.channels, (part + 1) * module.channels) for part in (1, 2))
    x = inputs["x"]
    run = module(params, x)
    _, grads = run.backward(run.output)
    scale = max(np.abs(grad).max() for grad in grads.values())
    np.testing.assert_allclose(grads["in_proj_bias"][keys], 0, atol=1e-12 * scale)
    moved = params | {"in_proj_bias": params["in_proj_bias"].copy()}
    moved["in_proj_bias"][keys] += shift
    np.testing.assert_allclose(module(moved, x).output, run.output, rtol=1e-9, atol=1e-10)
    moved["in_proj_bias"][values] += shift
    through = shift * params["out_proj.weight"].sum(axis=1)[:, None, None]
    np.testing.assert_allclose(module(moved, x).output, run.output + through, rtol=1e-9, atol=1e-10)
    folded = params["out_proj.weight"].T @ grads["out_proj.bias"]
    np.testing.assert_allclose(grads["in_proj_bias"][values], folded, rtol=1e-9, atol=1e-12 * scale)


@given(cases(mhsa_modules()), st.data())
@settings(max_examples=25)
def test_attention_map_is_what_the_output_is_made_of(case, data):
    module, params, inputs = case
    x = inputs["x"]
    s = module.attention_map(params, x)
    positions = x.shape[2] * x.shape[3]
    assert s.shape == (len(x), module.heads, positions, positions)
    np.testing.assert_allclose(s.sum(axis=3), 1, rtol=1e-12)
    start = 2 * module.channels
    values = params["in_proj_weight"][start:] @ x.reshape(*x.shape[:2], -1) + params["in_proj_bias"][start:, None]
    gathered = np.einsum("bhji,bhdi->bhdj", s, values.reshape(len(x), module.heads, -1, positions))
    expected = params["out_proj.weight"] @ gathered.reshape(values.shape) + params["out_proj.bias"][:, None]
    np.testing.assert_allclose(module(params, x).output, expected.reshape(x.shape), rtol=1e-10, atol=1e-11)
    rows = data.draw(st.lists(st.integers(0, positions - 1), max_size=4))
    for chosen in (rows, tuple(rows), np.array(rows, int)):
        np.testing.assert_allclose(module.attention_map(params, x, chosen), s[:, :, rows], rtol=1e-12)


def test_one_head_of_all_channels_is_position_attention_with_scaled_queries():
    """Position attention adds the map and takes no 1/√d; the output layer here passes all on."""
    position = PositionAttention(channels=6, reduction=1)
    theirs, inputs = generic_values(position)
    theirs["gamma"][:] = 1
    layers = [
        (theirs[f"{name}_conv.weight"][:, :, 0, 0] * factor, theirs[f"{name}_conv.bias"] * factor)
        for name, factor in (("query", math.sqrt(6)), ("key", 1), ("value", 1))
    ]
    weights, biases = map(np.concatenate, zip(*layers, strict=True))
    params = {"in_proj_weight": weights, "in_proj_bias": biases}
    params |= {"out_proj.weight": np.eye(6), "out_proj.bias": np.zeros(6)}
    module, x = MultiHeadSelfAttention(channels=6, heads=1), inputs["x"]
    np.testing.assert_allclose(module(params, x).output + x, position(theirs, x).output, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(module.attention_map(params, x)[:, 0], position.attention_map(theirs, x), rtol=1e-11)


def test_attention_map_of_a_few_rows_never_makes_the_rest():
    module = MultiHeadSelfAttention(channels=8, heads=2)
    params, inputs = generic_values(module, batch=1, height=64, width=64)
    peak = peak_memory(lambda: module.attention_map(params, inputs["x"], rows=[7, 4000]))
    assert peak < 2 * 4096**2 * 8 / 100


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([35], ValueError, "rows holds 35; expected positions from 0 to 34: row r and column c of the map of 7 × 5"),
        ([-1], ValueError, "rows holds -1; expected positions from 0 to 34"),
        ([1.0], TypeError, "rows holds 1.0, a float; expected ints"),
        (3, TypeError, "rows=3 is an int; expected a sequence of positions: [3]"),
    ],
)
def test_bad_rows_are_refused_with_a_reason(rows, error, message):
    module = MultiHeadSelfAttention.example()
    params, inputs = generic_values(module, height=7, width=5)
    with pytest.raises(error) as caught:
        module.attention_map(params, inputs["x"], rows)
    assert str(caught.value).startswith(f"{module}.attention_map: {message}")


def test_attention_map_refuses_what_a_call_refuses():
    module = MultiHeadSelfAttention.example()
    params, inputs = generic_values(module)
    with pytest.raises(ValueError, match="the map has 15 channels, the module 16"):
        module.attention_map(params, inputs["x"][:, :15])
    with pytest.raises(ValueError, match=r"missing parameter 'out_proj\.bias'"):
        module.attention_map({name: params[name] for name in params if name != "out_proj.bias"}, inputs["x"])


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 3, 2), (1, 1, 40)])
def test_a_single_position_an_empty_batch_and_a_single_row_run(shape):
    batch, height, width = shape
    module = MultiHeadSelfAttention(channels=2, heads=2)
    params, x = assert_runs(module, batch, height, width)
    assert module.attention_map(params, x).shape == (batch, 2, height * width, height * width)


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_gradients_hold_across_many_blocks(queries, monkeypatch):
    from npattn.ops import attention

    module = MultiHeadSelfAttention(channels=6, heads=3)
    values = generic_values(module, height=3, width=3)
    dy = np.sin(np.arange(108.0)).reshape(values[1]["x"].shape)
    whole = module(values[0], values[1]["x"])
    dx, grads = whole.backward(dy)
    monkeypatch.setattr(attention, "BLOCK_QUERIES", queries)
    report = gradcheck(module, *values, method="adjoint")
    assert report.passed, report
    run = module(values[0], values[1]["x"])
    np.testing.assert_allclose(run.output, whole.output, rtol=1e-12, atol=1e-14)
    again, grads_again = run.backward(dy)
    for ours, reference in zip((again, *grads_again.values()), (dx, *grads.values()), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-13 * np.abs(dx).max())


def test_memory_grows_as_the_positions_and_not_as_their_square():
    small, large = (peak_of_pass(MultiHeadSelfAttention(channels=16, heads=4), side) for side in (32, 64))
    assert large < 4.5 * small  # 16 times, if the weights were held
    assert large < 4 * 4096**2 * 4 / 16
