"""Scaled dot-product attention, and mistakes in how it weighs."""

from functools import partial

from tests.benchmarks.foreign.pieces import backwards, by_hand, constant, mistake, torch, weights, without_rowsum


def repeated(a, times):
    """A head of keys for each head of queries: 1 1 2 2."""
    return a.repeat_interleave(times, 1)


def capped(z, softcap):
    return softcap * torch.tanh(z / softcap)


def seen_by(queries, keys, causal=None, window=None):
    """Where query m sees key n."""
    m, n = torch.arange(queries)[:, None], torch.arange(keys)
    last = keys - queries
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen = n <= m + (0 if causal == "top-left" else last)
    if window:
        seen = seen & (n >= m + last - window[0]) & (n <= m + last + window[1])
    return seen


def with_sink(z, sink):
    """Softmax and logsumexp of logits beside which each head has one more, that gives no value."""
    if sink is not None:
        z = torch.cat([z, sink.reshape(-1, 1, 1).expand(*z.shape[:-1], 1)], -1)
    return weights(z)[..., : z.shape[-1] - (sink is not None)], z.logsumexp(-1)


def sdpa(
    p,
    query,
    key,
    value,
    *others,
    scale=None,
    causal=None,
    window=None,
    softcap=None,
    bias=False,
    mask=False,
    lengths=False,
    logsumexp=False,
    repeat=repeated,
    cap=capped,
    seen=seen_by,
    weigh=with_sink,
    hide=lambda z, hidden: z.masked_fill(hidden, -torch.inf),
):
    others, shared = list(others), query.shape[1] // key.shape[1]
    k, v = repeat(key, shared), repeat(value, shared)
    z = (query.shape[-1] ** -0.5 if scale is None else scale) * query @ k.transpose(-1, -2)
    z = z if softcap is None else cap(z, softcap)
    z = z + others.pop(0) if bias else z
    sees = seen(query.shape[2], key.shape[2], causal, window)
    sees = sees & (others.pop(0) != 0) if mask else sees
    sees = sees & (torch.arange(key.shape[2]) < others[0].reshape(-1, 1, 1, 1)) if lengths else sees
    alive = sees.any(-1, keepdim=True)
    s, log_sum = weigh(hide(z, ~sees & alive), p.get("sink"))
    o = s.masked_fill(~sees, 0) @ v
    return (o, log_sum.masked_fill(~alive[..., 0], -torch.inf)) if logsumexp else o


example = partial(sdpa, causal="top-left")


@mistake("sdpa", "scale", "square root")
def sdpa_without_scale(p, *qkv):
    """Logits: 1/√d is left out."""
    return example(p, *qkv, scale=1)


@mistake("sdpa", "scale", "all heads", "heads")
def sdpa_scaled_by_all_heads(p, query, *kv):
    """Logits: divided by √(H d)."""
    return example(p, query, *kv, scale=(query.shape[1] * query.shape[3]) ** -0.5)


@mistake("sdpa", "group", "key heads", "heads", "interleave", "repeat")
def sdpa_heads_grouped_by_remainder(p, *qkv):
    """Grouped queries: head h reads key head h mod G; keys are tiled 1 2 1 2, not repeated 1 1 2 2."""
    return example(p, *qkv, repeat=lambda a, times: a.repeat(1, times, 1, 1))


@mistake("sdpa", "group", "key heads", "first", "heads", "repeat")
def sdpa_first_key_head_for_all(p, *qkv):
    """Grouped queries: all heads read the first key head."""
    return example(p, *qkv, repeat=lambda a, times: a[:, :1].expand(-1, times * a.shape[1], -1, -1))


def of_last_in_group(a, times):
    """Repeat heads; the gradient is that of each group's last head."""

    def gradients(dy, a, y):
        return dy[:, times - 1 :: times]

    return by_hand(a, lambda a: repeated(a, times), gradients)


@mistake("sdpa", "group", "overwritten", "last", "one head", "sum", "repeat")
def sdpa_key_gradients_overwritten(p, *qkv):
    """Grouped queries' backward: dk and dv are those of a group's last head; the heads overwrite each other."""
    return example(p, *qkv, repeat=of_last_in_group)


@mistake("sdpa", "group", "average", "mean", "sum", "repeat")
def sdpa_key_gradients_averaged(p, *qkv):
    """Grouped queries' backward: dk and dv are averaged over a group, not added up."""
    return example(p, *qkv, repeat=lambda a, times: repeated(backwards(a, lambda g: g / times), times))


@mistake("sdpa", "off by one", "strict", "shift", "diagonal", "mask one key late")
def sdpa_sees_one_key_too_many(p, *qkv):
    """Causal mask: query m also sees key m + 1."""
    return example(p, *qkv, seen=lambda m, n, *of: torch.ones(m, n, dtype=torch.bool).tril(1))


@mistake("sdpa", "bottom-right", "bottom right", "align", "corner")
def sdpa_causal_from_the_bottom_right(p, *qkv):
    """Causal mask: aligned to the bottom right corner, where the top left is asked for."""
    return sdpa(p, *qkv, causal="bottom-right")


@mistake("sdpa", "sink", "left out", "ignored")
def sdpa_without_sink(p, *qkv):
    """Sink: ignored."""
    return example(p, *qkv, weigh=lambda z, sink: with_sink(z, None))


@mistake("sdpa", "sink", "maximum", "denominator", "exp")
def sdpa_sink_without_the_maximum(p, *qkv):
    """Sink: exp(sink) joins a denominator of exponentials from which the row's maximum has been taken."""

    def weigh(z, sink):
        e = (z - constant(z.amax(-1, keepdim=True))).exp()
        return e / (e.sum(-1, keepdim=True) + sink.exp()[:, None, None]), z.logsumexp(-1)

    return example(p, *qkv, weigh=weigh)


@mistake("sdpa", "sink", "zero", "one is added", "+ 1", "off by one")
def sdpa_sink_of_zero(p, *qkv):
    """Sink: 1 is added to the denominator, a sink of 0, whatever has been learnt."""
    return example(p, *qkv, weigh=lambda z, sink: with_sink(z, 0 * sink))


@mistake("sdpa", "sink", "scale")
def sdpa_sink_scaled(p, query, *kv):
    """Sink: multiplied by 1/√d as the logits are."""
    return example({"sink": p["sink"] * query.shape[-1] ** -0.5}, query, *kv)


@mistake("sdpa", "sink", "sign", "negat")
def sdpa_sink_gradient_of_the_wrong_sign(p, *qkv):
    """Sink's gradient: its sign is turned round."""
    return example({"sink": backwards(p["sink"], torch.neg)}, *qkv)


@mistake("sdpa", "sink", "batch", "average", "mean")
def sdpa_sink_gradient_averaged(p, query, *kv):
    """Sink's gradient: averaged over the images."""
    return example({"sink": backwards(p["sink"], lambda g: g / len(query))}, query, *kv)


@mistake("sdpa", "sink", "heads", "order", "reversed")
def sdpa_sinks_of_the_wrong_heads(p, *qkv):
    """Sink: heads read the sinks in the order of key heads first, 1 3 2 4."""
    return example({"sink": p["sink"].reshape(2, 2).T.flatten()}, *qkv)


@mistake("sdpa", "rowsum", "row sum", "delta", "softmax", "δ left out")
def sdpa_without_the_rowsum(p, *qkv):
    """Softmax's backward: δ = rowsum(dO ∘ O) is left out."""

    def sinks(z, sink):
        return torch.cat([z, sink.reshape(-1, 1, 1).expand(*z.shape[:-1], 1)], -1)

    return example(p, *qkv, weigh=lambda z, sink: (without_rowsum(sinks(z, sink))[..., :-1], z.logsumexp(-1)))


@mistake("sdpa", "sink", "denominator", "logsumexp", "backward", "recompute")
def sdpa_sink_forgotten_in_backward(p, *qkv):
    """Softmax's backward: the weights are made again by a logsumexp that lacks the sink."""
    wrong = example(p, *qkv, weigh=lambda z, sink: with_sink(z, None))
    return wrong + constant(example(p, *qkv) - wrong)


@mistake("sdpa", "layout", "heads", "transpose", "BSHD", "axis")
def sdpa_queries_laid_out_heads_third(p, query, *kv):
    """Layout: the queries' memory, (H, M, d), is read as (M, H, d)."""
    batch, heads, queries, d = query.shape
    return example(p, query.reshape(batch, queries, heads, d).transpose(1, 2), *kv)


@mistake("sdpa", "last key", "tail", "tile", "dropped", "off by one")
def sdpa_last_key_left_out(p, query, key, value):
    """Tiles: the keys' count is rounded down to a multiple of the tile, so that the last key is never read."""
    return example(p, query, key[:, :, :-1], value[:, :, :-1])


@mistake("sdpa", "base", "exp2", "log2", "power of two")
def sdpa_exponentials_to_the_base_of_two(p, *qkv):
    """Softmax: made with exp2, without log₂ e in the logits."""
    ln2 = torch.tensor(2.0).log()
    return example(p, *qkv, weigh=lambda z, sink: with_sink(z * ln2, sink * ln2))


@mistake("sdpa", "scale", "twice", "dq", "backward")
def sdpa_scale_twice_in_dq(p, query, *kv):
    """Logits' backward: dq is multiplied by 1/√d twice."""
    return example(p, backwards(query, lambda g: g * query.shape[-1] ** -0.5), *kv)


@mistake("sdpa", "atomic", "twice", "doubled", "dv", "accumulated")
def sdpa_value_gradients_of_the_first_key_twice(p, query, key, value):
    """Values' backward: the first key's gradient is added twice, by two blocks that overlap there."""
    first = torch.cat([torch.ones(1), torch.zeros(value.shape[2] - 1)]).to(value)[:, None]
    return example(p, query, key, backwards(value, lambda g: g * (1 + first)))
