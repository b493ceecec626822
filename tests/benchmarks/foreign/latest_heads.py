"""Heads side by side as a fourth hand wrote them, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import attend, attend_backward, forward_alone, stored, whole
from tests.benchmarks.foreign.latest_pieces import backward_alone, joined
from tests.benchmarks.foreign.pieces import mistake, pointwise, torch


def shared(u, heads):
    return [part.unflatten(1, (heads, -1)).mT for part in u.flatten(2).chunk(3, 1)]


def merged(o):
    return o.mT.flatten(1, 2)


def before(n, further=0):
    return torch.ones(n, n, dtype=torch.bool).tril(further)


def look(q, k, v, scale, seen=None):
    z = scale * q @ k.mT
    return joined(z if seen is None else z.masked_fill(~seen, -torch.inf), v)


def mhsa(p, x, *, heads=2, causal=False, share=shared, merge=merged, attend=look):
    u = pointwise(x, {"in.weight": p["in_proj_weight"], "in.bias": p["in_proj_bias"]}, "in")
    q, k, v = share(u, heads)
    seen = (before(q.shape[-2]),) if causal else ()
    o = merge(attend(q, k, v, q.shape[-1] ** -0.5, *seen))
    return pointwise(o.reshape(x.shape), p, "out_proj")


CAUSAL = {"channels": 16, "heads": 2, "causal": True}


@mistake(
    "mhsa",
    *("√C", "all channels", "model dimension", "embedding", "number of channels", "channels of all", "1/√C"),
    *("total channels",),
)
def mhsa_scale_of_all_channels(p, x):
    """Forward: products are divided by √C, not by the root of a head's channels."""
    return mhsa(p, x, attend=lambda q, k, v, scale: look(q, k, v, x.shape[1] ** -0.5))


@mistake(
    "mhsa",
    *("interleaved", "head by head", "layout", "reshape", "heads first", "head-major", "order"),
    *("heads before",),
)
def mhsa_parts_within_heads(p, x):
    """Forward: the projection's rows are read as heads of queries, keys and values each."""
    return mhsa(p, x, share=lambda u, heads: u.flatten(2).unflatten(1, (heads, 3, -1)).mT.unbind(2))


@mistake(
    "mhsa",
    *("merged", "reshape", "transpose", "layout", "heads beside", "innermost", "interleaved", "order of"),
)
def mhsa_heads_are_merged_inside_out(p, x):
    """Forward: heads are merged with a channel's heads side by side."""
    return mhsa(p, x, merge=lambda o: o.permute(0, 3, 1, 2).flatten(1, 2))


@mistake(
    "mhsa",
    *("not masked", "without the mask", "unmasked", "mask left out", "no mask", "mask forgotten"),
    *("ignores the mask",),
    **CAUSAL,
)
def mhsa_backward_forgets_the_mask(p, x):
    """Backward: weights are made again without the causal mask."""

    def attend(q, k, v, scale, seen):
        return backward_alone(look(q, k, v, scale, seen), look(q, k, v, scale))

    return mhsa(p, x, causal=True, attend=attend)


def unscaled(do, q, k, v, o, *, scale):
    dq, dk, dv = attend_backward(do, q, k, v, o, scale=scale)
    return dq, dk / scale, dv


@mistake(
    "mhsa",
    *("unscaled", "without the scale", "1/√d", "not scaled", "scale left out", "scale forgotten", "no scale"),
)
def mhsa_key_gradient_is_not_scaled(p, x):
    """Backward: dk lacks the factor 1/√d."""
    return mhsa(p, x, attend=lambda q, k, v, scale: kernel_of(q, k, v, scale, unscaled))


def kernel_of(q, k, v, scale, backward):
    return attend(q, k, v, scale, backward=backward)


def delta_of_all(do, q, k, v, o, *, scale):
    s = torch.softmax(scale * q @ k.mT, -1)
    dz = s * (do @ v.mT - (do * o).sum((1, 3), keepdim=True))
    return scale * dz @ k, scale * dz.mT @ q, s.mT @ do


@mistake(
    "mhsa",
    *("all heads", "over the heads", "summed over the heads", "rowsum", "row sum", "other heads", "δ over"),
    *("delta over", "over all channels", "rowsum over"),
)
def mhsa_delta_of_all_heads(p, x):
    """Backward: δ = Σ do o is taken over all the channels, not over a head's."""
    return mhsa(p, x, attend=lambda q, k, v, scale: kernel_of(q, k, v, scale, delta_of_all))


@mistake(
    "mhsa",
    *("end of the tile", "within a tile", "diagonal", "block causal", "block-causal", "causal by tiles"),
    *("diagonal tile", "mask by tiles"),
    **CAUSAL,
)
def mhsa_diagonal_tile_is_not_masked(p, x):
    """Tiles: tiles of 4 × 4 on the diagonal are not masked: a query sees the keys to its tile's end."""

    def attend(q, k, v, scale, seen):
        tile = torch.arange(q.shape[-2]) // 4
        return forward_alone(look(q, k, v, scale, seen), look(q, k, v, scale, tile[:, None] >= tile))

    return mhsa(p, x, causal=True, attend=attend)


@mistake(
    "mhsa",
    *("last tile", "tail", "not written", "remainder", "last queries", "whole tiles", "stays 0", "left at 0"),
    *("left unwritten",),
)
def mhsa_last_queries_are_not_written(p, x):
    """Tiles: the grid has whole tiles of 8 queries; what is left over stays 0."""

    def attend(q, k, v, scale):
        o = look(q, k, v, scale)
        return forward_alone(o, o * (torch.arange(o.shape[-2]) < whole(o.shape[-2], 8))[:, None])

    return mhsa(p, x, attend=attend)


@mistake(
    "mhsa",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def mhsa_logits_in_bfloat16(p, x):
    """Precision: logits are rounded to bfloat16 before the softmax."""
    return mhsa(p, x, attend=lambda q, k, v, scale: joined(stored(scale * q @ k.mT), v))
