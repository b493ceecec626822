"""Attention within windows, written as kernels by a third hand, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, kernel, stored
from tests.benchmarks.foreign.pieces import F, changed, mistake, torch
from tests.benchmarks.foreign.recent_pieces import softmax, without_sum


def turn(x, rows, columns):
    """Move a map up and to the left, round its edges."""
    return x.roll((-rows, -columns), (2, 3))


def whole_windows(size, side):
    return [-(-n // side) * side for n in size]


def cut(x, side):
    """Windows of a map that is filled up with zeros: (B, R, N, C)."""
    height, width = whole_windows(x.shape[2:], side)
    x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
    x = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def lay(o, side, size):
    """A map of windows, (B, R, N, C)."""
    height, width = whole_windows(size, side)
    o = o.reshape(len(o), height // side, width // side, side, side, -1).permute(0, 5, 1, 3, 2, 4)
    return o.flatten(4, 5).flatten(2, 3)[:, :, : size[0], : size[1]]


def steps(side):
    """Rows and columns from each position of a window to each, (N, N) both, as they are counted in the table."""
    at = torch.arange(side**2)
    row, column = at // side, at % side
    return row[:, None] - row + side - 1, column[:, None] - column + side - 1


def looked_up(table, index):
    return table[index].permute(2, 0, 1)


def from_table(table, side, look=looked_up):
    down, right = steps(side)
    return look(table, down * (2 * side - 1) + right)


def strangers(size, side, moved):
    """Pairs of a window's positions that the edge parts: (R, N, N)."""
    height, width = whole_windows(size, side)
    below, right = torch.arange(height) >= height - moved[0], torch.arange(width) >= width - moved[1]
    part = cut((2 * below[:, None] + right)[None, None].float(), side)[0, ..., 0]
    return part[:, :, None] != part[:, None, :]


def thirds(u, heads):
    """Queries, keys and values of heads, (B, R, heads, N, d) each."""
    return u.unflatten(3, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5)


def attend(q, k, v, *, bias, hidden, scale, weigh=softmax):
    z = scale * q @ k.mT + bias
    return weigh(z.masked_fill(hidden[:, None], -torch.inf), -1) @ v


def window(
    p,
    x,
    *,
    heads=2,
    window=4,
    shift=2,
    cut=cut,
    share=thirds,
    table=from_table,
    hide=strangers,
    attend=attend,
    back=turn,
    scale=None,
):
    size = tuple(x.shape[2:])
    moved = [shift if n > window else 0 for n in size]
    u = F.linear(cut(turn(x, *moved), window), p["qkv.weight"], p["qkv.bias"])
    q, k, v = share(u, heads)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bias, hidden = table(p["relative_position_bias_table"], window), hide(size, window, moved)
    o = attend(q, k, v, bias=bias, hidden=hidden, scale=scale)
    z = F.linear(o.transpose(2, 3).flatten(3), p["proj.weight"], p["proj.bias"])
    return back(lay(z, window, size), *(-n for n in moved))


@mistake(
    "window",
    "cyclic_shift",
    "moved back",
    "not undone",
    "other way",
    "wrong way",
    "shift: sign",
    "same direction",
    "twice",
)
def window_turns_on_where_it_should_turn_back(p, x):
    """Forward: behind the attention the map is moved by half a window once more, not back."""
    return window(p, x, back=lambda y, rows, columns: turn(y, -rows, -columns))


@mistake("window", "mask missing", "without mask", "unmasked", "not masked", "mask left out", "mask ignored", "mask")
def window_without_the_mask(p, x):
    """Forward: windows across the edge have no mask."""
    return window(p, x, hide=lambda *of: torch.zeros_like(strangers(*of)))


@mistake("window", "padded", "unpadded", "mask: shifted", "mask misaligned", "border of the mask", "mask", "off by")
def window_mask_counts_from_the_maps_edge(p, x):
    """Forward: the mask is made for the map's own size, and zeros that fill it up count as one more part."""

    def hide(size, side, moved):
        below, right = (torch.arange(n) >= n - m for n, m in zip(size, moved, strict=True))
        part = cut(1 + (2 * below[:, None] + right)[None, None].float(), side)[0, ..., 0]
        return part[:, :, None] != part[:, None, :]

    return window(p, x, hide=hide)


@mistake("window", "transposed", "sign", "reversed", "query and key", "swapped", "other way", "exchanged", "opposite")
def window_table_read_from_query_to_key(p, x):
    """Forward: the table is read for the way from query to key, where it holds that from key to query."""
    return window(p, x, table=lambda table, side: from_table(table, side).mT)


@mistake("window", "interleaved", "order of", "layout", "heads before", "reshape", "heads innermost", "head by head")
def window_thirds_inside_of_heads(p, x):
    """Forward: the rows of the first layer are read as heads, each with queries, keys and values."""
    return window(p, x, share=lambda u, heads: u.unflatten(3, (heads, 3, -1)).permute(4, 0, 1, 3, 2, 5))


@mistake("window", "scale", "1/√d", "square root", "sqrt", "number of heads", "all channels")
def window_forward_scales_by_all_channels(p, x):
    """Forward alone: the products are divided by the square root of all channels, not of a head's."""
    return forward_alone(window(p, x), window(p, x, scale=x.shape[1] ** -0.5))


@mistake(
    "window", "overwritten", "accumulat", "scatter", "last pair", "gather_relative: gradient", "one pair", "assigned"
)
def window_table_gradient_written_not_added(p, x):
    """Backward: pairs equally far apart write their gradients to one place of the table; the last stays."""

    def look(table, index):
        def backward(dg, table, g):
            dtable = torch.zeros_like(table)
            for i, at in enumerate(index.flatten()):
                dtable[at] = dg.flatten(1)[:, i]
            return (dtable,)

        return kernel(lambda table: looked_up(table, index), backward, table)

    return window(p, x, table=lambda table, side: from_table(table, side, look))


@mistake(
    "window",
    "number of windows",
    "averaged",
    "mean over the windows",
    "divided by",
    "gather_relative: gradient",
    "batch",
)
def window_table_gradient_averaged(p, x):
    """Backward: the table's gradient is the average over images and windows, not the sum."""
    count = len(x) * cut(x, 4).shape[1]
    return window(changed(p, lambda d: d / count, ("relative_position_bias_table",)), x)


@mistake("window", "softmax: gradient", "sum over the keys", "row sum", "rowsum", "without the sum")
def window_softmax_gradient_without_its_sum(p, x):
    """Backward: the softmax's gradient lacks the sum over the window."""

    def weigh(z, axis):
        return softmax(z, axis, backward=without_sum)

    return window(p, x, attend=lambda *of, **how: attend(*of, **how, weigh=weigh))


@mistake("window", "mask", "unmasked", "masked pairs", "not masked", "recomputed", "leak")
def window_backward_recomputes_without_the_mask(p, x):
    """Backward: the weights are made once more for backward, without the mask."""

    def unmasked(*of, hidden, **how):
        without = attend(*of, **how, hidden=torch.zeros_like(hidden))
        return forward_alone(without, attend(*of, **how, hidden=hidden))

    return window(p, x, attend=unmasked)


@mistake("window", "scale", "not scaled", "key: gradient", "without the scale", "1/√d", "scaled twice", "twice")
def window_query_gradient_scaled_twice(p, x):
    """Backward: the queries' gradient has the scale of the products twice: queries were scaled, and saved so."""

    def twice(q, *of, scale, **how):
        return attend(kernel(torch.clone, lambda dq, q, y: (scale * dq,), q), *of, scale=scale, **how)

    return window(p, x, attend=twice)


@mistake("window", "padding", "padded", "beyond the map", "zeros", "edge", "last window", "filled")
def window_hides_what_fills_it_up(p, x):
    """Forward alone: positions beyond the map are taken out of the softmax, where they should take their weight."""

    def hide(size, side, moved):
        beyond = cut(torch.ones(1, 1, *size), side)[0, ..., 0] == 0
        hidden = strangers(size, side, moved) | beyond[:, None, :]
        return hidden & ~beyond[:, :, None]  # positions beyond the map don't matter themselves

    return forward_alone(window(p, x), window(p, x, hide=hide))


@mistake("window", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def window_weights_in_bfloat16(p, x):
    """Precision: the weights of pairs are rounded to bfloat16 before they meet the values."""

    def weigh(z, axis):
        return stored(softmax(z, axis))

    return window(p, x, attend=lambda *of, **how: attend(*of, **how, weigh=weigh))
