"""Attention of blocks to their surroundings, written as kernels by a third hand, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, kernel, stored
from tests.benchmarks.foreign.pieces import F, by_hand, constant, mistake, pointwise, torch
from tests.benchmarks.foreign.recent_pieces import softmax, without_sum


def blocks(x, side):
    """(B, C, H, W) to (B, R, C, h, w)."""
    x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def laid(o, size):
    """Blocks, (B, R, C, h, w), as a map."""
    o = o.unflatten(1, (size[0] // o.shape[3], -1)).permute(0, 3, 1, 4, 2, 5)
    return o.flatten(4, 5).flatten(2, 3)


def surroundings(x, side, margin, before=None):
    """Blocks with so many rows and columns around them, zeros beyond the map: (B, R, C, K, L)."""
    before = margin if before is None else before
    after = 2 * margin - before
    x = F.pad(x, (before, after, before, after))
    span = side + 2 * margin
    return x.unfold(2, span, side).unfold(3, span, side).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def offsets(places, span, margin):
    """Where in the table the vector of each key stands for each query."""
    return torch.arange(span) - torch.arange(places)[:, None] + span - 1


def by_offset(q, height_rel, width_rel, span, *, at=offsets, margin=0):
    """Products of queries, (B, R, n, d, h, w), with the vectors to all keys: (B, R, n, h w, K L)."""
    rows, columns = (
        table[at(side, span, margin)] for table, side in ((height_rel, q.shape[4]), (width_rel, q.shape[5]))
    )
    down, right = torch.einsum("brndij,ikd->brnijk", q, rows), torch.einsum("brndij,jld->brnijl", q, columns)
    return (down[..., None] + right[..., None, :]).flatten(5, 6).flatten(3, 4)


def by_head(kv, heads, head_dim):
    """Keys and values, of each head one behind the other."""
    kv = kv.unflatten(2, (heads, -1))
    return kv[:, :, :, :head_dim], kv[:, :, :, head_dim:]


def halo(
    p,
    x,
    *,
    heads=2,
    head_dim=4,
    block_size=2,
    halo_size=1,
    around=surroundings,
    distance=by_offset,
    share=by_head,
    weigh=lambda z: softmax(z, -1),
    hide=None,
    scale=None,
):
    q = blocks(pointwise(x, p, "q"), block_size).unflatten(2, (heads, -1))
    kv = around(pointwise(x, p, "kv"), block_size, halo_size)
    k, v = (a.flatten(4).mT for a in share(kv, heads, head_dim))
    r = distance(q, p["pos_embed.height_rel"], p["pos_embed.width_rel"], kv.shape[-1])
    z = (head_dim**-0.5 if scale is None else scale) * q.flatten(4).mT @ k.mT + r
    if hide is not None:
        z = z.masked_fill(hide(x, block_size, halo_size), -torch.inf)
    o = (weigh(z) @ v).mT.flatten(2, 3).unflatten(3, (block_size, block_size))
    return laid(o, x.shape[2:])


@mistake("halo", "padding", "before", "to the right", "shifted", "halo", "one side", "off by")
def halo_reaches_down_and_right_alone(p, x):
    """Forward: the whole margin is added below and to the right of a block, none above and to the left."""
    return halo(p, x, around=lambda *of: surroundings(*of, before=0))


@mistake("halo", "padding", "padded", "masked", "beyond the map", "zeros", "edge", "beyond the edge", "mask")
def halo_hides_what_lies_beyond_the_map(p, x):
    """Forward alone: keys beyond the map have no weight, where they count as zeros."""

    def hide(x, *of):
        return surroundings(torch.ones_like(x[:1, :1]), *of).flatten(3)[:, :, :, None] == 0

    return forward_alone(halo(p, x), halo(p, x, hide=hide))


@mistake("halo", "sign", "reversed", "opposite", "other way", "mirrored", "swapped", "query and key")
def halo_offsets_reversed(p, x):
    """Forward: the tables are read from their other ends, as if offsets were from key to query."""

    def at(places, span, margin):
        return 2 * span - 2 - offsets(places, span, margin)

    return halo(p, x, distance=lambda *of: by_offset(*of, at=at))


@mistake("halo", "interleaved", "order of", "keys and values", "head by head", "layout", "heads", "split")
def halo_keys_of_all_heads_first(p, x):
    """Forward: the layer's rows are read as all heads' keys and then all values, not head by head."""

    def share(kv, heads, head_dim):
        parts = kv.split((heads * head_dim, kv.shape[2] - heads * head_dim), 2)
        return tuple(a.unflatten(2, (heads, -1)) for a in parts)

    return halo(p, x, share=share)


@mistake("halo", "off by", "shifted", "halo", "offset", "counted from")
def halo_offsets_counted_from_the_surroundings(p, x):
    """Forward: a query's place is counted from the surroundings' corner, so that all offsets are too small."""

    def at(places, span, margin):
        return offsets(places, span, margin) - (span - places) // 2

    return halo(p, x, distance=lambda *of: by_offset(*of, at=at))


@mistake(
    "halo", "overlap", "overwritten", "accumulat", "fold", "inner", "gradient of the halo", "block alone", "margin"
)
def halo_gradient_stays_in_the_block(p, x):
    """Backward: keys and values get the gradient of their own block's queries; what other blocks owe them is lost."""

    def around(x, side, margin):
        def backward(dw, x, w):
            return (laid(dw[..., margin:-margin, margin:-margin], x.shape[2:]),)

        return kernel(lambda x: surroundings(x, side, margin), backward, x)

    return halo(p, x, around=around)


@mistake("halo", "scale", "not scaled", "unscaled", "without the scale", "1/√d")
def halo_gradients_of_products_unscaled(p, x):
    """Backward: queries' and keys' gradients by content lack the scale of the products."""

    def share(kv, heads, head_dim):
        k, v = by_head(kv, heads, head_dim)
        return by_hand(k, torch.clone, lambda dk, *_: dk * head_dim**0.5), v

    return halo(p, x, share=share)


@mistake("halo", "last block", "one block", "overwritten", "accumulat", "relative_logits: gradient", "blocks")
def halo_distances_learn_from_the_last_block(p, x):
    """Backward: all blocks write the gradients of the vectors; the last block's stay."""

    def distance(q, height_rel, width_rel, span):
        others = by_offset(q[:, :-1], constant(height_rel), constant(width_rel), span)
        return torch.cat((others, by_offset(q[:, -1:], height_rel, width_rel, span)), 1)

    return halo(p, x, distance=distance)


@mistake("halo", "softmax: gradient", "sum over the keys", "row sum", "rowsum", "without the sum")
def halo_softmax_gradient_without_its_sum(p, x):
    """Backward: the softmax's gradient lacks the sum over the keys."""
    return halo(p, x, weigh=lambda z: softmax(z, -1, backward=without_sum))


@mistake("halo", "scale", "not scaled", "unscaled", "1/√d", "without the scale", "square root")
def halo_forward_without_the_scale(p, x):
    """Forward alone: the products of queries and keys are not divided."""
    return forward_alone(halo(p, x), halo(p, x, scale=1.0))


@mistake("halo", "edge", "last row", "last column", "border", "tile", "halo", "left out")
def halo_last_row_and_column_not_loaded(p, x):
    """Tiles: of the surroundings the last row and column are not loaded, and count as zeros."""

    def around(*of):
        w = surroundings(*of)
        return forward_alone(w, F.pad(w[..., :-1, :-1], (0, 1, 0, 1)))

    return halo(p, x, around=around)


@mistake("halo", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def halo_weights_in_bfloat16(p, x):
    """Precision: the weights are rounded to bfloat16 before they meet the values."""
    return halo(p, x, weigh=lambda z: stored(softmax(z, -1)))
