import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from npattn import ScaledDotProductAttention
from npattn.module import as_tuple
from npattn.ops import attention
from npattn.oracle import generic_values, gradcheck
from tests.naming import for_each
from tests.strategies import cases, sdpa_modules, seeds, sizes

SHAPES = [(2, 5, 7), (3, 7, 4), (1, 1, 6), (2, 6, 1), (1, 4, 4)]
"""Images, queries, keys."""


def seen_pairs(module, inputs):
    """Which keys each query sees, pair by pair, as it is written: (B, 1, M, N)."""
    batch, _, queries, _ = inputs["query"].shape
    keys = inputs["key"].shape[2]
    seen = np.ones((batch, module.heads, queries, keys), bool)
    for b, h, m, n in np.ndindex(seen.shape):
        aligned = n - (m + keys - queries)
        seen[b, h, m, n] = all(
            [
                module.causal != "top-left" or n <= m,
                module.causal != "bottom-right" or aligned <= 0,
                module.window is None or -module.window[0] <= aligned <= module.window[1],
                not module.lengths or n < inputs["lengths"][b],
                not module.mask or np.broadcast_to(inputs["mask"], seen.shape)[b, h, m, n] != 0,
            ]
        )
    return seen


def published(module):
    """The same in PyTorch by hand, with all weights at once."""
    torch = pytest.importorskip("torch")

    class Reference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if module.sink:
                self.sink = torch.nn.Parameter(torch.zeros(module.heads))

        def forward(self, *inputs):
            given = dict(zip(module.input_shapes(1, 1, 1), inputs, strict=True))
            seen = self.seen(given)
            shared = module.heads // module.groups
            k, v = (given[name].repeat_interleave(shared, dim=1) for name in ("key", "value"))
            z = module.factor * given["query"] @ k.transpose(-1, -2)
            if module.softcap:
                z = module.softcap * torch.tanh(z / module.softcap)
            if module.bias:
                z = z + given["bias"]
            alive = seen.any(dim=-1, keepdim=True)
            z = z.masked_fill(~seen, -torch.inf).masked_fill(~alive, 0)  # a row of nothing but -inf has no softmax
            logits = torch.cat([z, self.sink.reshape(-1, 1, 1).expand(*z.shape[:-1], 1)], -1) if module.sink else z
            weights = torch.softmax(logits, -1)[..., : z.shape[-1]].masked_fill(~seen, 0)
            output = weights @ v
            log_sum = torch.logsumexp(logits, -1).masked_fill(~alive[..., 0], -torch.inf)
            return (output, log_sum) if module.logsumexp else output

        def seen(self, given):
            batch, heads, queries, _ = given["query"].shape
            keys = given["key"].shape[2]
            m, n = torch.arange(queries)[:, None], torch.arange(keys)
            seen = torch.ones(batch, heads, queries, keys, dtype=torch.bool)
            if module.causal:
                seen = seen.tril(0 if module.causal == "top-left" else keys - queries)
            if module.window:
                left, right = module.window
                seen = seen & (n >= m + keys - queries - left) & (n <= m + keys - queries + right)
            if module.lengths:
                seen = seen & (n < given["lengths"].reshape(-1, 1, 1, 1))
            return seen & given["mask"].bool() if module.mask else seen

    return Reference()


def fused(module):
    """The same by PyTorch's own function, where it has all that is asked for; else by hand."""
    torch = pytest.importorskip("torch")
    lacking = module.window, module.lengths, module.softcap, module.sink, module.logsumexp, module.mask and module.bias
    if any(lacking) or module.causal == "bottom-right":
        return published(module)

    class Reference(torch.nn.Module):
        def forward(self, query, key, value, other=None):
            return torch.nn.functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=other.bool() if module.mask else other,
                is_causal=module.causal is not None,
                scale=module.scale,
                enable_gqa=True,
            )

    return Reference()


def upstream(run, seed=0):
    """A random gradient, shaped as the output."""
    random = np.random.RandomState([seed, 2])
    dy = tuple(random.standard_normal(y.shape) for y in as_tuple(run.output))
    return dy if isinstance(run.output, tuple) else dy[0]


def results(module, params, inputs, dy=None):
    """Outputs and gradients by name; those that are None are left out."""
    run = module(params, *inputs.values())
    dx, grads = run.backward(upstream(run) if dy is None else dy)
    outputs = {f"output.{i}": y for i, y in enumerate(as_tuple(run.output))}
    found = outputs | {f"{name}.grad": g for name, g in (dict(zip(inputs, dx, strict=True)) | grads).items()}
    return {name: a for name, a in found.items() if a is not None}


def assert_agrees_with_pytorch(reference, module, params, inputs):
    """Hold outputs and all gradients to 1e-11 of the largest gradient."""
    import torch

    reference = reference.double()
    reference.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    leaves = {name: torch.tensor(a, requires_grad=name not in ("mask", "lengths")) for name, a in inputs.items()}
    outputs = as_tuple(reference(*leaves.values()))
    run = module(params, *inputs.values())
    dy = upstream(run)
    torch.autograd.backward(outputs, [torch.tensor(a) for a in as_tuple(dy)])
    expected = {f"output.{i}": y for i, y in enumerate(outputs)}
    expected |= {f"{name}.grad": leaf.grad for name, leaf in (leaves | dict(reference.named_parameters())).items()}
    expected = {name: a.detach().numpy() for name, a in expected.items() if a is not None}
    found = results(module, params, inputs, dy)
    assert found.keys() == expected.keys()
    largest = max(np.abs(a[np.isfinite(a)]).max(initial=0) for a in expected.values())
    for name, theirs in expected.items():
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=1e-12 * max(1, largest), err_msg=name)


@settings(max_examples=50)
@given(cases(sdpa_modules()), st.sampled_from([1, 2, 256]))
def test_outputs_and_gradients_agree_with_pytorch_by_hand(case, queries):
    module, params, inputs = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK_QUERIES", queries)
        assert_agrees_with_pytorch(published(module), module, params, inputs)


@for_each("option", [{}, {"causal": "top-left"}, {"mask": True}, {"bias": True}, {"scale": 0.3}])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_agree_with_pytorchs_own_function(option, groups, shape):
    pytest.importorskip("torch")
    module = ScaledDotProductAttention(heads=6, key_heads=groups, head_dim=5, value_dim=3, **option)
    batch, height, width = shape
    params, inputs = generic_values(module, batch=batch, height=height, width=width)
    if module.mask:
        inputs["mask"][..., 0] = 1  # what PyTorch makes of a query without keys depends on its version
    assert_agrees_with_pytorch(fused(module), module, params, inputs)


@pytest.mark.parametrize("axes", [(2, 4), (2, 1), (1, 4), (1, 1)])
@pytest.mark.parametrize("queries", [2, 256])
def test_bias_and_mask_serve_all_images_and_heads_where_these_axes_are_1(axes, queries, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_QUERIES", queries)
    module = ScaledDotProductAttention(heads=4, key_heads=2, head_dim=3, bias=True, mask=True)
    params, inputs = generic_values(module, height=5, width=6)
    random = np.random.RandomState(1)
    inputs["bias"] = random.standard_normal((*axes, 5, 6))
    inputs["mask"] = random.randint(0, 2, (*axes[::-1], 5, 6)).astype(float).reshape(axes[0], axes[1], 5, 6)
    assert_agrees_with_pytorch(published(module), module, params, inputs)


@for_each(
    ("option", "expected"),
    [
        ({"causal": "top-left"}, ["x....", "xx...", "xxx.."]),
        ({"causal": "bottom-right"}, ["xxx..", "xxxx.", "xxxxx"]),
        ({"window": (1, 0)}, [".xx..", "..xx.", "...xx"]),
        ({"window": (0, 1)}, ["..xx.", "...xx", "....x"]),
        ({"window": (0, 5), "causal": "bottom-right"}, ["..x..", "...x.", "....x"]),
        ({"window": (9, 9)}, ["xxxxx", "xxxxx", "xxxxx"]),
        ({"window": (1, 1), "causal": "top-left"}, [".....", ".....", "....."]),
        ({"window": (3, 1), "causal": "top-left"}, ["x....", "xx...", ".xx.."]),
    ],
)
def test_three_queries_see_of_five_keys(option, expected):
    module = ScaledDotProductAttention(heads=1, head_dim=2, **option)
    params, inputs = generic_values(module, batch=1, height=3, width=5)
    expected = np.array([[mark == "x" for mark in row] for row in expected])
    weights = module.attention_map(params, inputs["query"], inputs["key"])
    np.testing.assert_array_equal(weights[0, 0] > 0, expected)
    dy = np.ones((1, 1, 3, 2))
    moved = results(module, params, inputs, dy)["value.grad"][0, 0, :, 0]
    np.testing.assert_array_equal(moved > 0, expected.any(axis=0))


def spoil(module, inputs, junk, random):
    """Put junk wherever nothing sees it: keys and values, biases, queries without keys."""
    seen = seen_pairs(module, inputs)
    shared = module.heads // module.groups
    spoilt = {name: a.copy() for name, a in inputs.items()}
    dead = ~seen.any(axis=3)
    spoilt["query"][dead] = junk
    used = seen.any(axis=2).reshape(len(seen), module.groups, shared, -1).any(axis=2)
    spoilt["key"][~used] = junk
    spoilt["value"][~used] = -junk
    if module.bias:
        spoilt["bias"][~seen.any(axis=1, keepdims=True)] = junk
    return spoilt, dead


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e308])
@settings(max_examples=20)
@given(case=cases(sdpa_modules()), seed=seeds)
def test_what_is_masked_is_without_effect_whatever_stands_there(junk, case, seed):
    module, params, inputs = case
    spoilt, dead = spoil(module, inputs, junk, np.random.RandomState(seed))
    dy = as_tuple(upstream(module(params, *inputs.values())))
    for a in dy:
        a[dead] = 0
    expected = results(module, params, inputs, dy if module.logsumexp else dy[0])
    for a in dy:
        a[dead] = junk
    found = results(module, params, spoilt, dy if module.logsumexp else dy[0])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(("which", "junk"), [("key", np.nan), ("value", np.nan), ("value", np.inf)])
def test_a_key_spoils_the_queries_that_see_it_and_no_other(which, junk):
    module = ScaledDotProductAttention(heads=2, key_heads=1, head_dim=3, causal="top-left", logsumexp=True)
    params, inputs = generic_values(module, batch=1, height=6, width=6)
    clean = results(module, params, inputs)
    inputs[which][0, 0, 3] = junk
    with np.errstate(all="ignore"):
        found = results(module, params, inputs)
    np.testing.assert_allclose(found["output.0"][:, :, :3], clean["output.0"][:, :, :3], rtol=1e-14)
    assert np.isnan(found["output.0"][:, :, 3:]).all()
    np.testing.assert_allclose(found["query.grad"][:, :, :3], clean["query.grad"][:, :, :3], rtol=1e-13)
    if which == "value":
        np.testing.assert_array_equal(found["output.1"], clean["output.1"])


@pytest.mark.parametrize("junk", [np.nan, np.inf])
@settings(max_examples=20)
@given(case=cases(sdpa_modules()), seed=seeds)
def test_a_query_spoils_what_it_sees_and_nothing_else(junk, case, seed):
    module, params, inputs = case
    seen = seen_pairs(module, inputs)
    image, head, row = np.unravel_index(seed % seen[..., 0].size, seen.shape[:3])
    clean = results(module, params, inputs)
    spoilt = inputs | {"query": inputs["query"].copy()}
    spoilt["query"][image, head, row] = junk
    query, key, _, *others = spoilt.values()
    with np.errstate(all="ignore"):
        found = results(module, params, spoilt)
        weights = module.attention_map(params, query, key, *others, rows=[row])
    kept = ~seen[image, head, row]
    of_key = image, head * module.groups // module.heads
    for name in ("key.grad", "value.grad"):
        unseen = np.ones(clean[name].shape[:3], bool)
        unseen[of_key] = kept
        np.testing.assert_allclose(found[name][unseen], clean[name][unseen], rtol=1e-13, atol=1e-14, err_msg=name)
    assert not weights[image, head, 0][kept].any()


@settings(max_examples=20)
@given(cases(sdpa_modules()))
def test_queries_without_keys_give_0_and_minus_infinity_and_pass_no_gradient(case):
    module, params, inputs = case
    assume(module.lengths)
    inputs["lengths"][:] = 0
    run = module(params, *inputs.values())
    output, *log_sum = as_tuple(run.output)
    np.testing.assert_array_equal(output, np.zeros_like(output))
    for one in log_sum:
        np.testing.assert_array_equal(one, np.full_like(one, -np.inf))
    dx, grads = run.backward(upstream(run))
    for gradient in (*dx[: 3 + module.bias], *grads.values()):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    assert dx[3 + module.bias :] == (None,) * (module.mask + module.lengths)


def test_heads_of_queries_share_heads_of_keys_in_turn_and_their_gradients_add_up():
    module = ScaledDotProductAttention(heads=6, key_heads=2, head_dim=3)
    params, inputs = generic_values(module, height=4, width=5)
    alone = ScaledDotProductAttention(heads=6, head_dim=3)
    repeated = {name: a[:, [0, 0, 0, 1, 1, 1]] if name != "query" else a for name, a in inputs.items()}
    found, expected = results(module, params, inputs), results(alone, params, repeated)
    np.testing.assert_array_equal(found["output.0"], expected["output.0"])
    for name in ("key.grad", "value.grad"):
        np.testing.assert_allclose(found[name], expected[name].reshape(2, 2, 3, 5, 3).sum(axis=2), rtol=1e-13)


def test_the_logsumexps_gradient_alone_moves_queries_and_keys_by_the_weights():
    module = ScaledDotProductAttention(heads=1, head_dim=3, logsumexp=True, sink=True)
    params, inputs = generic_values(module, batch=1, height=4, width=5)
    weights = module.attention_map(params, inputs["query"], inputs["key"])
    found = results(module, params, inputs, (np.zeros((1, 1, 4, 3)), np.ones((1, 1, 4))))
    np.testing.assert_allclose(found["query.grad"], module.factor * weights @ inputs["key"], rtol=1e-13)
    np.testing.assert_array_equal(found["value.grad"], np.zeros((1, 1, 5, 3)))
    np.testing.assert_allclose(found["sink.grad"], [(1 - weights.sum(axis=-1)).sum()], rtol=1e-13)
    assert weights.sum(axis=-1).max() < 1


@given(sizes, sizes, st.sampled_from([0.5, 3.0]))
def test_no_logit_is_beyond_the_softcap(queries, keys, softcap):
    module = ScaledDotProductAttention(heads=1, head_dim=2, softcap=softcap, logsumexp=True, scale=1e3)
    params, inputs = generic_values(module, height=queries, width=keys)
    _, log_sum = module(params, *inputs.values()).output
    assert (np.abs(log_sum - math.log(keys)) <= softcap * (1 + 1e-12)).all()


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_gradients_hold_across_many_blocks(queries, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK_QUERIES", queries)
    module = ScaledDotProductAttention(
        heads=2,
        key_heads=1,
        head_dim=3,
        value_dim=2,
        causal="bottom-right",
        softcap=2.0,
        bias=True,
        sink=True,
        logsumexp=True,
    )
    report = gradcheck(module, *generic_values(module, height=7, width=6))
    assert report.passed, report
    assert report.method == "jacobian"


@given(cases(sdpa_modules()), st.data())
@settings(max_examples=25)
def test_attention_map_is_what_the_output_is_made_of(case, data):
    module, params, inputs = case
    query, key, value, *others = inputs.values()
    weights = module.attention_map(params, query, key, *others)
    output = as_tuple(module(params, *inputs.values()).output)[0]
    values = value.repeat(module.heads // module.groups, axis=1)
    np.testing.assert_allclose(weights @ values, output, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(weights[~seen_pairs(module, inputs)], 0)
    rows = data.draw(st.lists(st.integers(0, query.shape[2] - 1), min_size=1, max_size=4))
    some = module.attention_map(params, query, key, *others, rows=rows)
    np.testing.assert_allclose(some, weights[:, :, rows], rtol=1e-12, atol=1e-300)


def arguments(module, **changes):
    """Zeros of the shapes that a module expects, but for some."""
    shapes = module.input_shapes(2, 3, 5) | changes
    return [np.zeros(shape) for shape in shapes.values()]


GROUPED = ScaledDotProductAttention(heads=4, key_heads=2, head_dim=8, bias=True, mask=True, lengths=True)


@for_each(
    ("changes", "message"),
    [
        ({"query": (4, 3, 8)}, "query has shape (4, 3, 8); expected 4 axes, (batch, heads, queries, head_dim); a"),
        ({"query": (2, 3, 4, 8)}, "query has shape (2, 3, 4, 8); expected (2, 4, 4, 8)"),
        ({"key": (2, 5, 2, 8)}, "key has shape (2, 5, 2, 8); expected (2, 2, 2, 8)"),
        ({"key": (2, 4, 5, 8)}, "key has shape (2, 4, 5, 8); expected (2, 2, 5, 8): (batch, key_heads, keys, head"),
        ({"value": (2, 5, 2, 8)}, "value has shape (2, 5, 2, 8); expected (2, 2, 5, 8): (batch, key_heads, keys, v"),
        ({"value": (2, 5, 2, 8)}, "; the heads stand third: value.swapaxes(1, 2)"),
        ({"query": (2, 3, 4, 8)}, "; the heads stand third: query.swapaxes(1, 2)"),
        ({"mask": (3, 5)}, "(batch or 1, heads or 1, queries, keys); what serves all has axes of 1: mask[None, None]"),
        ({"value": (1, 2, 5, 8)}, "value has shape (1, 2, 5, 8); expected (2, 2, 5, 8)"),
        ({"bias": (3, 1, 3, 5)}, "bias has shape (3, 1, 3, 5); expected (2, 1, 3, 5): (batch or 1, heads or 1, quer"),
        ({"mask": (2, 4, 3, 1)}, "mask has shape (2, 4, 3, 1); expected (2, 4, 3, 5)"),
        ({"lengths": (2, 1)}, "lengths has shape (2, 1); expected 1 axes, (batch)"),
        ({"lengths": (1,)}, "lengths has shape (1,); expected (2,): (batch)"),
        ({"key": (2, 2, 0, 8), "value": (2, 2, 0, 8), "bias": (1, 1, 3, 0), "mask": (1, 1, 3, 0)}, "at least one key"),
    ],
)  # fmt: skip
def test_inputs_of_other_shapes_are_refused_by_name(changes, message):
    with pytest.raises(ValueError) as caught:
        GROUPED({}, *arguments(GROUPED, **changes))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{GROUPED}: ")


@for_each(
    ("options", "error", "message"),
    [
        ({"heads": 4}, TypeError, "missing hyperparameter 'head_dim' (expected heads, key_heads, head_dim, "),
        ({"heads": 4, "key_heads": 3}, ValueError, "key_heads=3; expected a divisor of heads=4"),
        ({"heads": 4, "causal": "left"}, ValueError, "causal='left'"),
        (
            {"heads": 4, "causal": True},
            TypeError,
            "expected 'top-left' or 'bottom-right', or None",
        ),
        ({"heads": 4, "window": 3}, ValueError, "window=3; expected None or a pair (left, right)"),
        ({"heads": 4, "window": (3, -1)}, ValueError, "window[1]=-1; expected an integer of at least 0"),
        ({"heads": 4, "softcap": 0}, ValueError, "softcap=0; expected a number above 0, or None"),
        ({"heads": 4, "scale": np.inf}, ValueError, "scale=inf; expected a finite number"),
    ],
)
def test_impossible_hyperparameters_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        ScaledDotProductAttention(**options | ({"head_dim": 8} if len(options) > 1 else {}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], "rows holds 3; expected queries from 0 to 2"),
        ([-1], "rows holds -1; expected queries from 0 to 2"),
        (1, "rows=1 is an int; expected a sequence of queries: [1]"),
    ],
)
def test_attention_map_refuses_rows_that_are_no_queries(rows, message):
    module = ScaledDotProductAttention(heads=1, head_dim=2)
    with pytest.raises((TypeError, ValueError)) as caught:
        module.attention_map({}, np.ones((1, 1, 3, 2)), np.ones((1, 1, 4, 2)), rows=rows)
    assert message in str(caught.value)


def test_attention_map_refuses_keys_that_are_no_array():
    module = ScaledDotProductAttention(heads=1, head_dim=2)
    with pytest.raises(TypeError, match="key is a list; expected an array"):
        module.attention_map({}, np.ones((1, 1, 3, 2)), [1.0])


def test_a_window_may_be_given_as_a_list_and_is_counted_from_the_last_key():
    module = ScaledDotProductAttention(heads=1, head_dim=2, window=[2, 0])
    assert module.window == (2, 0)
    assert module.band(3, 7) == (2, 4)
