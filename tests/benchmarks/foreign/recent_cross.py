"""Attention along rows and columns, and polarised gates, written as kernels by a third hand, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, gate, kernel, mean, rows, sigmoid, stored, whole
from tests.benchmarks.foreign.pieces import by_hand, constant, linear, mistake, pointwise, torch
from tests.benchmarks.foreign.recent_pieces import in_tiles, softmax, without_sum


def in_row(a, b):
    """Products of every position with those of its row: (B, H, W, W)."""
    return torch.einsum("bchw,bchi->bhwi", a, b)


def in_column(a, b):
    """Products of every position with those of its column: (B, H, W, H)."""
    return torch.einsum("bchw,bciw->bhwi", a, b)


def itself(z):
    """Whether a position of its column is the query's own: (H, 1, H)."""
    return torch.eye(z.shape[1], dtype=torch.bool)[:, None]


def once(column):
    return column.masked_fill(itself(column), -torch.inf)


def together(row, column, weigh=lambda z: softmax(z, -1)):
    s = weigh(torch.cat((row, column), -1))
    return s[..., : row.shape[3]], s[..., row.shape[3] :]


def gathered(v, row, column):
    return torch.einsum("bhwi,bchi->bchw", row, v) + torch.einsum("bhwi,bciw->bchw", column, v)


def crossing(p, x, *, row=in_row, column=in_column, hide=once, weigh=together, gather=gathered, scale=torch.mul):
    q, k, v = (pointwise(x, p, f"{name}_conv") for name in ("query", "key", "value"))
    o = gather(v, *weigh(row(q, k), hide(column(q, k))))
    return x + scale(p["gamma"], o)


def criss_cross(p, x, *, recurrence=2, **how):
    for _ in range(recurrence):
        x = crossing(p, x, **how)
    return x


@mistake("criss-cross", "itself", "twice", "diagonal", "self", "own position", "counted")
def criss_cross_counts_itself_twice(p, x):
    """Forward: a position has weight in its row and once more in its column."""
    return criss_cross(p, x, hide=lambda column: column)


@mistake(
    "criss-cross",
    "apart",
    "separate",
    "each for itself",
    "softmax: over",
    "row and column",
    "rows alone",
    "two softmaxes",
)
def criss_cross_softmaxes_of_rows_and_columns_apart(p, x):
    """Forward: row and column have a softmax each."""
    return criss_cross(p, x, weigh=lambda row, column: (torch.softmax(row, -1), torch.softmax(column, -1)))


@mistake("criss-cross", "recurrence", "once", "one time", "times", "fewer")
def criss_cross_applied_once(p, x):
    """Forward: the module is applied once, not twice."""
    return criss_cross(p, x, recurrence=1)


@mistake("criss-cross", "permut", "transposed", "reshape", "layout", "columns", "order of")
def criss_cross_columns_read_without_a_permute(p, x):
    """Forward: the products within columns, made column by column, are read as if they lay row by row."""

    def column(a, b):
        z = torch.einsum("bchw,bciw->bwhi", a, b)
        return z.reshape(len(z), z.shape[2], z.shape[1], -1)

    return criss_cross(p, x, column=column)


@mistake("criss-cross", "accumulat", "overwritten", "recurrence", "last time", "first time", "one time", "times")
def criss_cross_parameters_learn_from_the_last_time(p, x):
    """Backward: each time writes the parameters' gradients over those of the other."""
    return crossing(p, crossing({name: constant(a) for name, a in p.items()}, x))


@mistake("criss-cross", "column", "criss_cross_attention: gradient", "row alone", "rows alone", "summand", "missing")
def criss_cross_keys_learn_from_rows_alone(p, x):
    """Backward: the keys' gradient is that of the rows; what queries of the same column owe them is left out."""
    return criss_cross(p, x, column=lambda q, k: in_column(q, constant(k)))


@mistake(
    "criss-cross",
    "softmax: gradient",
    "row alone",
    "rows alone",
    "columns alone",
    "part of the sum",
    "sum over",
    "row and column",
)
def criss_cross_softmax_sums_row_and_column_apart(p, x):
    """Backward: in the softmax's gradient the sum for a row is taken over the row alone, that for a column likewise."""
    width = x.shape[3]

    def backward(dy, z, y):
        parts = zip(
            (y * dy).tensor_split([width], -1), y.tensor_split([width], -1), dy.tensor_split([width], -1), strict=True
        )
        return torch.cat([s * (d - products.sum(-1, keepdim=True)) for products, s, d in parts], -1)

    def weigh(z):
        return by_hand(z, lambda z: torch.softmax(z, -1), backward)

    return criss_cross(p, x, weigh=lambda *of: together(*of, weigh=weigh))


@mistake("criss-cross", "scale: gradient", "gamma", "not scaled", "without the scale", "γ")
def criss_cross_gradient_without_gamma(p, x):
    """Backward: what the attention gets back is not multiplied by γ."""

    def scale(gamma, o):
        return kernel(torch.mul, lambda dy, gamma, o, y: ((dy * o).sum().reshape(1), dy), gamma, o)

    return criss_cross(p, x, scale=scale)


@mistake("criss-cross", "scale", "1/√d", "square root", "sqrt", "divided")
def criss_cross_forward_scales_products(p, x):
    """Forward alone: the products are divided by √d, as in other attention."""

    def scaled(product):
        return lambda q, k: product(q, k) * q.shape[1] ** -0.5

    return forward_alone(criss_cross(p, x), criss_cross(p, x, row=scaled(in_row), column=scaled(in_column)))


@mistake("criss-cross", "itself", "diagonal", "own position", "left out", "excluded", "masked")
def criss_cross_forward_never_sees_itself(p, x):
    """Forward alone: a position is hidden from itself in its row too."""

    def row(q, k):
        z = in_row(q, k)
        return z.masked_fill(torch.eye(z.shape[2], dtype=torch.bool), -torch.inf)

    return forward_alone(criss_cross(p, x), criss_cross(p, x, row=row))


@mistake("criss-cross", "rescal", "running maximum", "online", "tile", "block", "own maximum")
def criss_cross_rows_and_columns_not_rescaled(p, x):
    """Tiles: row and column take away their own maximum, and their sums are added without rescaling."""

    def weigh(row, column):
        parts = [(z - z.amax(-1, keepdim=True)).exp() for z in (row, column)]
        total = sum(e.sum(-1, keepdim=True) for e in parts)
        return tuple(forward_alone(s, e / total) for s, e in zip(together(row, column), parts, strict=True))

    return criss_cross(p, x, weigh=weigh)


@mistake("criss-cross", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def criss_cross_weights_in_bfloat16(p, x):
    """Precision: the weights are written in bfloat16."""
    return criss_cross(p, x, weigh=lambda *of: tuple(stored(s) for s in together(*of)))


def over_positions(u):
    return softmax(rows(u), 2)


def channel_gate(p, x, *, weigh=over_positions, gather=None, squash=sigmoid):
    v = rows(pointwise(x, p, "conv_v_right"))
    t = (gather or (lambda v, w: (v @ w.mT)[..., 0]))(v, weigh(pointwise(x, p, "conv_q_right")))
    return squash(linear(t, p, "conv_up"))[:, :, None, None]


def position_gate(
    p, x, *, pool=mean, names=("conv_q_left", "conv_v_left"), share=lambda c: softmax(c, 2), squash=sigmoid
):
    q, k = (pointwise(x, p, name) for name in names)
    c = share(pool(q)[:, :, 0].mT @ rows(k))
    return squash(c).reshape(len(x), 1, *x.shape[2:])


def polarized(p, x, *, of_channels=channel_gate, of_positions=position_gate):
    return gate(x, of_channels(p, x)) + gate(x, of_positions(p, x))


@mistake("polarized", "sequential", "one behind the other", "one after the other", "product", "order of", "multiplied")
def polarized_gates_one_behind_the_other(p, x):
    """Forward: the position's gate multiplies what the channels' gate has left, with the parallel form's layers."""
    y = gate(x, channel_gate(p, x))
    return gate(y, position_gate(p, y))


@mistake("polarized", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the channels", "other axis")
def polarized_softmax_over_the_single_channel(p, x):
    """Forward: the query's softmax runs over its one channel, so that all positions weigh 1."""
    return polarized(p, x, of_channels=lambda p, x: channel_gate(p, x, weigh=lambda u: softmax(rows(u), 1)))


@mistake(
    "polarized",
    "softmax: missing",
    "softmax left out",
    "without softmax",
    "softmax: left out",
    "not normalised",
    "softmax",
)
def polarized_positions_without_softmax(p, x):
    """Forward: the products of mean query and values go to the sigmoid as they are."""
    return polarized(p, x, of_positions=lambda p, x: position_gate(p, x, share=lambda c: c))


@mistake("polarized", "queries and values", "swapped", "exchanged", "query and value", "interchanged")
def polarized_averages_the_values(p, x):
    """Forward: the layer of values makes the mean, and that of queries is kept for each position."""
    names = "conv_v_left", "conv_q_left"
    return polarized(p, x, of_positions=lambda p, x: position_gate(p, x, names=names))


@mistake("polarized", "gate: gradient", "detached", "through the gate", "constant")
def polarized_position_gate_learns_nothing_of_the_map(p, x):
    """Backward: of the positions' gate, gradients go to its layers, but not through them to the map."""
    return polarized(p, x, of_positions=lambda p, x: position_gate(p, constant(x)))


@mistake("polarized", "softmax: gradient", "sum over the positions", "row sum", "rowsum", "without the sum")
def polarized_softmax_gradient_without_its_sum(p, x):
    """Backward: the gradient of the products' softmax lacks the sum over the positions."""

    def share(c):
        return softmax(c, 2, backward=without_sum)

    return polarized(p, x, of_positions=lambda p, x: position_gate(p, x, share=share))


@mistake(
    "polarized", "average_pool: gradient", "pool: gradient", "mean: gradient", "not divided", "number of positions"
)
def polarized_mean_gradient_not_divided(p, x):
    """Backward: what the mean query gets is handed to every position without division by their number."""

    def pool(q):
        return mean(q, backward=lambda dy, q, y: (dy.expand_as(q),))

    return polarized(p, x, of_positions=lambda p, x: position_gate(p, x, pool=pool))


@mistake("polarized", "sigmoid: gradient", "slope", "twice", "1 - ", "sigmoid")
def polarized_channel_sigmoid_slope_of_the_slope(p, x):
    """Backward: the slope of the channels' sigmoid is made of σ(a), a being the gate that is saved, not the logit."""

    def squash(z):
        return sigmoid(z, backward=lambda dy, z, y: (dy * torch.sigmoid(y) * (1 - torch.sigmoid(y)),))

    return polarized(p, x, of_channels=lambda p, x: channel_gate(p, x, squash=squash))


@mistake("polarized", "add: ", "averaged", "halved", "divided by", "half")
def polarized_forward_averages_the_two(p, x):
    """Forward alone: the output is the average of the two gated maps."""
    y = polarized(p, x)
    return forward_alone(y, y / 2)


@mistake("polarized", "last block", "last tile", "remainder", "tail", "positions left out")
def polarized_gathers_whole_tiles(p, x):
    """Tiles: the values of whole tiles of 8 positions are gathered; the weights are those among all."""

    def gather(v, w):
        n = whole(v.shape[2], 8)
        return forward_alone((v @ w.mT)[..., 0], (v[..., :n] @ w[..., :n].mT)[..., 0])

    return polarized(p, x, of_channels=lambda p, x: channel_gate(p, x, gather=gather))


@mistake("polarized", "each block", "own softmax", "tile", "block", "rescal", "not combined")
def polarized_softmax_tile_by_tile(p, x):
    """Tiles: the query's softmax is made in each tile of 16 positions, and divided by the number of tiles."""

    def weigh(u):
        parts = in_tiles(rows(u).shape[2], 16)
        wrong = torch.cat([torch.softmax(rows(u)[..., part], -1) for part in parts], -1) / len(parts)
        return forward_alone(over_positions(u), wrong)

    return polarized(p, x, of_channels=lambda p, x: channel_gate(p, x, weigh=weigh))


@mistake("polarized", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def polarized_gates_in_bfloat16(p, x):
    """Precision: the channels' gates are written in bfloat16."""
    return polarized(p, x, of_channels=lambda p, x: stored(channel_gate(p, x)))
