"""Attention by relative positions as a fourth hand wrote it, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, whole
from tests.benchmarks.foreign.latest_pieces import backward_alone, joined
from tests.benchmarks.foreign.pieces import constant, mistake, pointwise, torch


def vectors(table, n):
    """Give for place and key the vector of their distance."""
    return table[torch.arange(n) - torch.arange(n)[:, None] + n - 1]


def by_rows(q, table):
    return torch.einsum("bnijd,ikd->bnijk", q, vectors(table, q.shape[2]))[..., None]


def by_columns(q, table):
    return torch.einsum("bnijd,jld->bnijl", q, vectors(table, q.shape[3]))[..., None, :]


def distances(q, height, width, *, by_rows=by_rows, by_columns=by_columns):
    z = by_rows(q, height) + by_columns(q, width)
    return z.flatten(4).flatten(2, 3)


def parted(u, inner):
    return u.split((inner, inner, u.shape[1] - 2 * inner), 1)


def bottleneck(p, x, *, heads=2, split=parted, relative=distances, join=joined):
    u = pointwise(x, p, "qkv")
    inner = (len(u[0]) - x.shape[1]) // 2
    q, k, v = (part.unflatten(1, (heads, -1)) for part in split(u, inner))
    r = relative(q.movedim(2, -1), p["pos_embed.height_rel"], p["pos_embed.width_rel"])
    q, k, v = (part.flatten(3).mT for part in (q, k, v))
    o = join(q.shape[-1] ** -0.5 * q @ k.mT + r, v)
    return o.mT.reshape(x.shape)


@mistake(
    "bottleneck",
    *("1/√d", "scale_pos_embed", "√d", "distances are divided", "scaled distances", "position logits scaled"),
    *("relative logits scaled",),
)
def bottleneck_distances_are_scaled(p, x):
    """Forward: logits of distances are divided by √d as those of the content."""
    return bottleneck(p, x, relative=lambda q, *of: q.shape[-1] ** -0.5 * distances(q, *of))


@mistake(
    "bottleneck",
    *("sign", "reversed", "flipped", "query minus key", "wrong direction", "mirrored", "back to front"),
)
def bottleneck_distances_the_other_way(p, x):
    """Forward: distances are the query's from the key, so that both tables are read back to front."""
    return bottleneck(p, x, relative=lambda q, h, w: distances(q, h.flip(0), w.flip(0)))


@mistake(
    "bottleneck",
    *("rows", "height", "vertical", "columns alone", "width alone", "without the row", "rows left out"),
    *("height left out", "height_rel"),
)
def bottleneck_distances_in_columns_alone(p, x):
    """Forward: what rows say of distance is not added."""
    return bottleneck(p, x, relative=lambda q, h, w: distances(q, 0 * h, w))


@mistake(
    "bottleneck",
    *("missing term", "content alone", "without the relative", "without the distance"),
    *("without the position", "relative term", "relative logits"),
)
def bottleneck_query_gradient_of_content_alone(p, x):
    """Backward: dq lacks what comes through the logits of distances."""
    return bottleneck(p, x, relative=lambda q, *of: distances(constant(q), *of))


def rows_of_one_head(q, table):
    kept = (torch.arange(q.shape[1]) == 0).to(q.dtype)[:, None, None, None, None]
    wrong = by_rows(q, constant(table)) + by_rows(constant(q), table) * kept
    return backward_alone(by_rows(q, table), wrong)


@mistake(
    "bottleneck",
    *("first head", "one head", "over the heads", "not summed", "head alone", "last head"),
)
def bottleneck_row_vectors_learn_from_one_head(p, x):
    """Backward: the gradient of the vectors for rows, which heads share, is the first head's alone."""
    return bottleneck(p, x, relative=lambda q, h, w: distances(q, h, w, by_rows=rows_of_one_head))


@mistake(
    "bottleneck",
    *("not transposed", "transposed", "transpose", "without transpos", "P in place of"),
)
def bottleneck_value_gradient_by_rows(p, x):
    """Backward: dv is P do, where P has to be transposed."""

    def join(z, v):
        s = constant(torch.softmax(z, -1))
        return backward_alone(joined(z, v), joined(z, constant(v)) + s.mT @ (v - constant(v)))

    return bottleneck(p, x, join=join)


def one_further(q, table):
    return by_rows(q, torch.cat((table[1:], table[-1:])))


@mistake(
    "bottleneck",
    *("off by one", "one too far", "shifted by one", "one row", "one further", "index off"),
    *("shifted by one place",),
)
def bottleneck_row_index_is_off_by_one(p, x):
    """Forward alone: the vector for rows is read one place further on in the table."""

    def shifted(q, h):
        return forward_alone(by_rows(q, h), one_further(q, h))

    return bottleneck(p, x, relative=lambda q, h, w: distances(q, h, w, by_rows=shifted))


@mistake(
    "bottleneck",
    *("keys' channels", "where the keys", "channels of the keys", "wrong channels", "overlap"),
    *("read from the keys", "read too early", "wrong offset", "values overlap"),
)
def bottleneck_values_begin_among_the_keys(p, x):
    """Forward alone: values are read from where the keys begin: the pointer moves on by one part, not by two."""

    def split(u, inner):
        q, k, v = parted(u, inner)
        return q, k, forward_alone(v, u[:, inner : inner + v.shape[1]])

    return bottleneck(p, x, split=split)


@mistake(
    "bottleneck",
    *("tail", "last keys", "remainder", "skipped", "last tile", "whole tiles", "incomplete"),
)
def bottleneck_keys_in_whole_tiles(p, x):
    """Tiles: keys are read in whole tiles of 8; what is left over is skipped."""

    def join(z, v):
        n = whole(v.shape[-2], 8)
        return forward_alone(joined(z, v), joined(z[..., :n], v[..., :n, :]))

    return bottleneck(p, x, join=join)
