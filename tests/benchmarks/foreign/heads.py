"""Multi-head self-attention, and mistakes in it."""

from functools import partial

from tests.benchmarks.foreign.pieces import F, backwards, mistake, pointwise, torch, weights, without_rowsum


def split_heads(u, heads):
    """(B, 3C, N) to queries, keys and values (B, heads, N, d)."""
    return u.reshape(len(u), 3, heads, -1, u.shape[2]).transpose(3, 4).unbind(1)


def merge_heads(o):
    """(B, heads, N, d) to (B, C, N)."""
    return o.transpose(2, 3).flatten(1, 2)


def attend(q, k, v, seen, bias, *, scale=None, weigh=weights):
    """Attention of heads; `seen` is None or where keys are seen, and a query that sees none gets 0."""
    z = (q.shape[-1] ** -0.5 if scale is None else scale) * q @ k.transpose(-1, -2)
    z = z if bias is None else z + bias
    if seen is None:
        return weigh(z) @ v
    alive = seen.any(-1, keepdim=True)
    return weigh(z.masked_fill(~seen & alive, -torch.inf)).masked_fill(~seen, 0) @ v


def keys_within(lengths, n):
    return torch.arange(n) < lengths[:, None, None, None]


def seen_causally(n, shift=0):
    return torch.ones(n, n, dtype=torch.bool).tril(shift)


def mhsa(
    p,
    x,
    *others,
    heads=2,
    causal=False,
    bias=False,
    padding=False,
    split=split_heads,
    attention=attend,
    merge=merge_heads,
    triangle=seen_causally,
    within=keys_within,
):
    others, n = list(others), x.shape[2] * x.shape[3]
    added = others.pop(0) if bias else None
    seen = triangle(n) if causal else None
    if padding:
        seen = within(others[0], n) & (True if seen is None else seen)
    u = F.linear(x.flatten(2).transpose(1, 2), p["in_proj_weight"], p["in_proj_bias"]).transpose(1, 2)
    o = merge(attention(*split(u, heads), seen, added)).reshape(x.shape)
    return pointwise(o, p, "out_proj")


@mistake("mhsa", "scale", "square root")
def mhsa_without_scale(p, x):
    """Logits: 1/√d is left out."""
    return mhsa(p, x, attention=partial(attend, scale=1))


@mistake("mhsa", "scale", "twice", "1/d")
def mhsa_scaled_twice(p, x):
    """Logits: divided by √d twice, by the caller and by the kernel."""
    return mhsa(p, x, attention=lambda q, *of: attend(q, *of, scale=1 / q.shape[-1]))


@mistake("mhsa", "scale", "channels", "all heads")
def mhsa_scaled_by_all_channels(p, x):
    """Logits: divided by √C, the width of all heads together."""
    return mhsa(p, x, attention=partial(attend, scale=x.shape[1] ** -0.5))


@mistake("mhsa", "interleave", "heads", "split")
def mhsa_heads_interleaved(p, x):
    """Split: channel c belongs to head c mod heads."""

    def split(u, heads):
        return u.reshape(len(u), 3, -1, heads, u.shape[2]).permute(1, 0, 3, 4, 2)

    return mhsa(p, x, split=split)


@mistake("mhsa", "packed", "head by head", "interleave", "split", "heads")
def mhsa_projection_packed_head_by_head(p, x):
    """Split: the projection's rows are read as query, key and value of head 1, then those of head 2."""

    def split(u, heads):
        return u.reshape(len(u), heads, 3, -1, u.shape[2]).permute(2, 0, 1, 4, 3)

    return mhsa(p, x, split=split)


@mistake("mhsa", "query and key", "queries and keys", "q and k", "swapped", "exchanged")
def mhsa_queries_and_keys_exchanged(p, x):
    """Split: the projection's rows are read as keys, queries, values."""
    return mhsa(p, x, attention=lambda q, k, *of: attend(k, q, *of))


@mistake("mhsa", "key and value", "keys and values", "k and v", "swapped", "exchanged")
def mhsa_keys_and_values_exchanged(p, x):
    """Split: the projection's rows are read as queries, values, keys."""
    return mhsa(p, x, attention=lambda q, k, v, *of: attend(q, v, k, *of))


@mistake("mhsa", "merge", "interleave", "heads", "transpose", "layout")
def mhsa_merged_without_a_transpose(p, x):
    """Merge: what the heads gather, (heads, N, d) in memory, is viewed as (N, C)."""
    return mhsa(p, x, merge=lambda o: o.reshape(len(o), o.shape[2], -1).transpose(1, 2))


@mistake("mhsa", "axis", "over queries", "over the queries", "columns")
def mhsa_softmax_over_queries(p, x):
    """Softmax: along the queries."""
    return mhsa(p, x, attention=partial(attend, weigh=lambda z: torch.softmax(z, -2)))


@mistake("mhsa", "axis", "over heads", "over the heads")
def mhsa_softmax_over_heads(p, x):
    """Softmax: along the heads."""
    return mhsa(p, x, attention=partial(attend, weigh=lambda z: torch.softmax(z, 1)))


@mistake("mhsa", "transpose", "map")
def mhsa_map_transposed(p, x):
    """Mixture: the transposed map multiplies the values."""
    return mhsa(p, x, attention=partial(attend, weigh=lambda z: weights(z).transpose(-1, -2)))


@mistake("mhsa", "rowsum", "row sum", "delta", "softmax", "sum left out")
def mhsa_softmax_backward_without_the_rowsum(p, x):
    """Softmax's backward: δ = rowsum(dO ∘ O) is left out."""
    return mhsa(p, x, attention=partial(attend, weigh=without_rowsum))


@mistake("mhsa", "bias", "out_proj.bias")
def mhsa_output_bias_lost(p, x):
    """Output layer: no bias."""
    return mhsa({**p, "out_proj.bias": 0 * p["out_proj.bias"]}, x)


@mistake("mhsa", "bias", "in_proj_bias")
def mhsa_input_bias_lost(p, x):
    """Input layer: no bias, as a ViT with `qkv_bias=False`."""
    return mhsa({**p, "in_proj_bias": 0 * p["in_proj_bias"]}, x)


@mistake("mhsa", "transpose", "out_proj.weight", "layout")
def mhsa_output_weight_transposed(p, x):
    """Output layer: x W for x Wᵀ, as a weight from JAX or TensorFlow is laid out."""
    return mhsa({**p, "out_proj.weight": p["out_proj.weight"].T}, x)


@mistake("mhsa", "output layer left out", "projection", "left out")
def mhsa_without_output_layer(p, x):
    """Output layer: left out; the heads stand side by side."""
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    return mhsa({"out_proj.weight": eye, "out_proj.bias": 0 * eye[0], **{n: p[n] for n in p if n[0] == "i"}}, x)


@mistake("mhsa", "residual", "input added", "skip")
def mhsa_residual_added(p, x):
    """Output: the input is added, as the block around the layer does."""
    return x + mhsa(p, x)


@mistake("mhsa", "shared", "first head", "heads", "multi-query", "broadcast")
def mhsa_keys_of_the_first_head_for_all(p, x):
    """Heads: all read the keys and values of the first, as in multi-query attention."""

    def shared(q, k, v, *of):
        return attend(q, k[:, :1].expand_as(k), v[:, :1].expand_as(v), *of)

    return mhsa(p, x, attention=shared)


@mistake("mhsa", "scale", "backward", "dk")
def mhsa_scale_forgotten_in_dk(p, x):
    """Logits' backward: dk lacks the factor 1/√d."""
    return mhsa(p, x, attention=lambda q, k, *of: attend(q, backwards(k, lambda g: g * k.shape[-1] ** 0.5), *of))


@mistake("mhsa", "height and width", "H and W", "order of positions", "layout", "transpose")
def mhsa_output_written_by_columns(p, x):
    """Layout: positions of the result are written column by column."""
    size = x.shape[2], x.shape[3]

    def merge(o):
        return merge_heads(o).unflatten(2, size[::-1]).transpose(2, 3).flatten(2)

    return mhsa(p, x, merge=merge)


@mistake("mhsa", "cosine", "normalis", "norm", "unit length")
def mhsa_queries_and_keys_normalised(p, x):
    """Logits: queries and keys are first divided by their lengths, as with QK-norm."""
    unit = partial(F.normalize, dim=-1)
    return mhsa(p, x, attention=lambda q, k, *of: attend(unit(q), unit(k), *of))
