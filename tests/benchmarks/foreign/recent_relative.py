"""Attention by content and by distance, written as kernels by a third hand, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, kernel, stored, whole
from tests.benchmarks.foreign.pieces import F, backwards, constant, mistake, pointwise, torch
from tests.benchmarks.foreign.recent_pieces import softmax, without_sum


def vectors(table, n):
    """The vectors from each of n places to each: (n, n, d)."""
    at = torch.arange(n)
    return table[at - at[:, None] + n - 1]


def by_distance(q, height_rel, width_rel, vectors=vectors):
    """Products of queries, (B, h, d, H, W), with the vectors to all keys: (B, h, H, W, H, W)."""
    down = torch.einsum("bndij,ikd->bnijk", q, vectors(height_rel, q.shape[3]))
    right = torch.einsum("bndij,jld->bnijl", q, vectors(width_rel, q.shape[4]))
    return down[..., None] + right[..., None, :]


def paired(z):
    return z.flatten(4, 5).flatten(2, 3)


def weighed(z):
    return softmax(z, -1)


def bottleneck(
    p,
    x,
    *,
    heads=2,
    head_dim=4,
    scale=None,
    distance=by_distance,
    pair=paired,
    weigh=weighed,
    values=torch.matmul,
    join=None,
):
    u = pointwise(x, p, "qkv")
    q, k, v = (a.unflatten(1, (heads, -1)) for a in u.split((heads * head_dim, heads * head_dim, x.shape[1]), 1))
    r = pair(distance(q, p["pos_embed.height_rel"], p["pos_embed.width_rel"]))
    z = (head_dim**-0.5 if scale is None else scale) * q.flatten(3).mT @ k.flatten(3) + r
    o = values(weigh(z), v.flatten(3).mT)
    return (join or (lambda o: o.mT.flatten(1, 2)))(o).reshape(x.shape)


@mistake("bottleneck", "sign", "reversed", "opposite", "other way", "mirrored", "query and key", "swapped", "exchanged")
def bottleneck_distances_from_key_to_query(p, x):
    """Forward: the vectors are those of the way from key to query."""

    def opposite(table, n):
        return vectors(table, n).transpose(0, 1)

    return bottleneck(p, x, distance=lambda *of: by_distance(*of, vectors=opposite))


@mistake("bottleneck", "off by one", "shifted by one", "one off", "next offset", "one too far", "one place")
def bottleneck_distances_off_by_one(p, x):
    """Forward: each vector is that of the distance one less, and the least distance has the vector of the largest."""
    return bottleneck(p, x, distance=lambda *of: by_distance(*of, vectors=lambda t, n: vectors(t.roll(1, 0), n)))


@mistake("bottleneck", "scaled", "scale", "1/√d", "relative_logits: scale", "divided by")
def bottleneck_scales_the_distances_too(p, x):
    """Forward alone: the logits by distance are divided by √d, as the others are."""
    wrong = bottleneck(p, x, distance=lambda q, *of: by_distance(q * q.shape[2] ** -0.5, *of))
    return forward_alone(bottleneck(p, x), wrong)


@mistake(
    "bottleneck", "transposed", "rows and columns", "exchanged", "column by column", "layout", "reshape", "swapped"
)
def bottleneck_logits_column_by_column(p, x):
    """Forward: the keys of the logits by distance are laid out column by column."""
    return bottleneck(p, x, pair=lambda z: paired(z.transpose(4, 5).flatten(4, 5).unflatten(4, z.shape[4:])))


@mistake("bottleneck", "interleaved", "order of the heads", "heads innermost", "reshape", "layout", "heads")
def bottleneck_heads_side_by_side(p, x):
    """Forward: in the output the channels of the heads alternate."""
    return bottleneck(p, x, join=lambda o: o.permute(0, 3, 1, 2).flatten(1, 2))


@mistake("bottleneck", "relative_logits: gradient", "detached", "through the distances", "summand")
def bottleneck_queries_learn_nothing_by_distance(p, x):
    """Backward: the queries' gradient is that of the products with keys alone."""
    return bottleneck(p, x, distance=lambda q, *of: by_distance(constant(q), *of))


@mistake("bottleneck", "last head", "one head", "overwritten", "accumulat", "another head", "heads")
def bottleneck_distances_learn_from_the_last_head(p, x):
    """Backward: all heads write the gradient of the rows' vectors; the last head's stays."""

    def distance(q, height_rel, width_rel):
        others = by_distance(q[:, :-1], constant(height_rel), width_rel)
        return torch.cat((others, by_distance(q[:, -1:], height_rel, width_rel)), 1)

    return bottleneck(p, x, distance=distance)


@mistake("bottleneck", "reversed", "flipped", "sign", "mirrored", "opposite", "relative_logits: gradient", "transposed")
def bottleneck_column_gradient_reversed(p, x):
    """Backward: the gradient of the columns' vectors stands in the order of falling distance."""

    def distance(q, height_rel, width_rel):
        return by_distance(q, height_rel, backwards(width_rel, lambda d: d.flip(0)))

    return bottleneck(p, x, distance=distance)


@mistake("bottleneck", "softmax: gradient", "sum over the keys", "row sum", "rowsum", "without the sum")
def bottleneck_softmax_gradient_without_its_sum(p, x):
    """Backward: the softmax's gradient lacks the sum over the keys."""
    return bottleneck(p, x, weigh=lambda z: softmax(z, -1, backward=without_sum))


@mistake("bottleneck", "value: gradient", "of the values", "transposed", "not transposed")
def bottleneck_value_gradient_by_untransposed_weights(p, x):
    """Backward: the values' gradient is a product with the weights where their transpose is meant."""

    def values(s, v):
        return kernel(torch.matmul, lambda do, s, v, o: (do @ v.mT, s @ do), s, v)

    return bottleneck(p, x, values=values)


@mistake("bottleneck", "scale", "not scaled", "unscaled", "1/√d", "without the scale")
def bottleneck_forward_without_the_scale(p, x):
    """Forward alone: the products of queries and keys are not divided."""
    return forward_alone(bottleneck(p, x), bottleneck(p, x, scale=1.0))


@mistake("bottleneck", "last block", "last tile", "remainder", "tail", "denominator", "keys left out", "left out")
def bottleneck_gathers_whole_tiles_of_keys(p, x):
    """Tiles: behind the last whole tile of 8 no key is gathered from, though all are in the denominator."""

    def values(s, v):
        n = whole(v.shape[2], 8)
        return forward_alone(s @ v, s[..., :n] @ v[:, :, :n])

    return bottleneck(p, x, values=values)


@mistake("bottleneck", "padding", "padded", "last block", "last tile", "mask", "beyond the last key", "tail")
def bottleneck_padded_keys_count(p, x):
    """Tiles: the logits are padded with zeros to whole tiles of 16 keys, whose exponentials count."""

    def weigh(z):
        n = z.shape[-1]
        return forward_alone(weighed(z), torch.softmax(F.pad(z, (0, -n % 16)), -1)[..., :n])

    return bottleneck(p, x, weigh=weigh)


@mistake("bottleneck", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def bottleneck_distance_logits_in_bfloat16(p, x):
    """Precision: the logits by distance are written in bfloat16."""
    return bottleneck(p, x, distance=lambda *of: stored(by_distance(*of)))
