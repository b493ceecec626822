"""Attention in windows as a fourth hand wrote it, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, kernel
from tests.benchmarks.foreign.latest_pieces import joined, narrowed
from tests.benchmarks.foreign.pieces import F, backwards, by_hand, mistake, torch


def cut(x, side):
    """Cut into windows that lie side by side: (B, C, H, W) to (B, R, N, C)."""
    x = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
    parts = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def lay(t, side, size, *, turned=False):
    """Lay windows side by side again."""
    height, width = size
    down, across = -(-height // side), -(-width // side)
    parts = t.unflatten(2, (side, side)).unflatten(1, (down, across))
    parts = parts.permute(0, 5, 1, 4, 2, 3) if turned else parts.permute(0, 5, 1, 3, 2, 4)
    return parts.reshape(len(t), -1, down * side, across * side)[:, :, :height, :width]


def offsets(side):
    """Say for query and key where their offset stands in the table."""
    at = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    down, across = (at[:, None] - at + side - 1).unbind(-1)
    return down * (2 * side - 1) + across


def look_up(table, side, *, index=offsets):
    return table[index(side)].permute(2, 0, 1)


def alike(size, side, moved):
    """Tell which pairs of a window lay together before the shift."""
    lengths = [-(-n // side) * side for n in size]
    down, across = (torch.arange(n) >= n - s for n, s in zip(lengths, moved, strict=True))
    part = cut((2 * down[:, None] + across)[None, None].double(), side)[0, :, :, 0]
    return part[:, None, :, None] == part[:, None, None, :]


def shift_by(x, moved):
    return x.roll([-s for s in moved], (2, 3))


def back_by(x, moved):
    return x.roll(moved, (2, 3))


def windowed(
    p, x, *, heads=2, window=4, shift=2, go=shift_by, back=back_by, lay=lay, look_up=look_up, mask=alike, join=joined
):
    size = x.shape[2:]
    moved = [shift if n > window else 0 for n in size]
    w = cut(go(x, moved), window)
    u = F.linear(w, p["qkv.weight"], p["qkv.bias"])
    q, k, v = u.unflatten(3, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5)
    z = q.shape[-1] ** -0.5 * q @ k.mT + look_up(p["relative_position_bias_table"], window)
    if any(moved):
        z = z.masked_fill(~mask(size, window, moved), -torch.inf)
    o = join(z, v).transpose(2, 3).flatten(3)
    return back(lay(F.linear(o, p["proj.weight"], p["proj.bias"]), window, size), moved)


@mistake(
    "window",
    *("sign", "transposed", "reversed", "key minus query", "flipped", "wrong direction", "mirrored"),
    *("transpose", "query and key exchanged", "m - n"),
)
def window_offsets_the_other_way(p, x):
    """Forward: the table is read at the key's offset from the query, not the query's from the key."""
    return windowed(p, x, look_up=lambda t, side: look_up(t, side, index=lambda side: offsets(side).T))


@mistake(
    "window",
    *("not undone", "shifted back", "same direction", "shifted again", "moved back", "not moved back"),
    *("wrong way", "twice", "shifted twice", "forward shift again"),
)
def window_shifts_on(p, x):
    """Forward: behind the attention the map is shifted once more in the same direction."""
    return windowed(p, x, back=shift_by)


@mistake(
    "window",
    *("without the mask", "not masked", "unmasked", "across the edge", "mask left out", "no mask"),
    *("mask forgotten", "ignores the mask"),
)
def window_sees_across_the_edge(p, x):
    """Forward: windows that the shift put together of several parts are not masked."""
    return windowed(p, x, mask=lambda *of: torch.ones_like(alike(*of)))


def scattered(table, side):
    index = offsets(side).flatten()
    last = torch.zeros(len(table), dtype=torch.long)
    for pair, place in enumerate(index):
        last[place] = pair

    def gradient(dg, table, _):
        return (dg.flatten(1)[:, last].T,)

    return kernel(lambda table: look_up(table, side), gradient, table)


@mistake(
    "window",
    *("accumulat", "overwritten", "atomic", "scatter", "last pair", "one pair", "not summed"),
    *("sum over all pairs", "index_put", "not added up"),
)
def window_table_gradient_is_overwritten(p, x):
    """Backward: pairs of the same offset overwrite each other's gradient of the table; the last one's stays."""
    return windowed(p, x, look_up=scattered)


@mistake(
    "window",
    *("mean over the windows", "averaged", "number of windows", "mean in place", "mean instead"),
)
def window_table_gradient_is_averaged(p, x):
    """Backward: the table's gradient is the mean over images and windows, not the sum."""
    count = len(x) * cut(x, 4).shape[1]
    return windowed(p, x, look_up=lambda t, side: look_up(backwards(t, lambda dt: dt / count), side))


@mistake(
    "window",
    *("wrong way", "not rolled", "shifted the same way", "shifted on", "not shifted back", "wrong sign"),
)
def window_gradient_is_shifted_on(p, x):
    """Backward: through the first shift the gradient goes the way of the map, not back."""
    return windowed(
        p, x, go=lambda x, moved: kernel(lambda x: shift_by(x, moved), lambda dy, *_: (shift_by(dy, moved),), x)
    )


@mistake(
    "window",
    *("columns first", "column by column", "transposed", "permute", "order", "rows and columns", "transpose"),
    *("column-major", "layout"),
)
def window_positions_are_written_by_columns(p, x):
    """Forward alone: positions of a window are written back column by column."""
    return windowed(p, x, lay=lambda *of: forward_alone(lay(*of), lay(*of, turned=True)))


def without_padding(size, side, moved):
    given = cut(shift_by(torch.ones(1, 1, *size), moved), side)[0, :, :, 0] > 0
    return alike(size, side, moved) & given[:, None, None, :] | torch.eye(side * side, dtype=torch.bool)


@mistake(
    "window",
    *("padded", "beyond the map", "filled up", "padding hidden", "excluded", "padding masked"),
    *("zeros hidden", "padding not seen", "masked out", "padding unseen"),
)
def window_hides_the_padding(p, x):
    """Forward: zeros that fill up the map are hidden, where they are seen by definition."""
    return windowed(p, x, mask=without_padding)


@mistake(
    "window",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def window_logits_in_bfloat16(p, x):
    """Precision: logits are rounded to bfloat16 before the softmax."""
    return windowed(p, x, join=lambda z, v: joined(by_hand(z, narrowed, lambda dz, *_: dz), v))
