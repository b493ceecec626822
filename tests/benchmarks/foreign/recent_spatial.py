"""Gates of positions and of whole planes, written as kernels by a third hand, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import (
    conv,
    conv_in_tiles,
    forward_alone,
    gate,
    kernel,
    mean,
    rows,
    sigmoid,
    stored,
    whole,
)
from tests.benchmarks.foreign.pieces import F, backwards, by_hand, mistake, norm, torch
from tests.benchmarks.foreign.recent_pieces import peak, readers, standard, standardised

AXES = {"cw": 2, "hc": 3, "hw": 1}
"""What each gate pools over."""


def pools(t, largest=peak, average=lambda t: mean(t, 1)):
    return torch.cat((largest(t), average(t)), 1)


def normed(z, p, name, training):
    return norm(z, p, name, training, momentum=0.01)


def plane(p, x, name, axis, *, training=False, pools=pools, conv=conv, norm=normed, squash=sigmoid):
    """One of the gates, before it multiplies."""
    z = conv(pools(x.transpose(1, axis)), p[f"{name}.conv.conv.weight"])
    return squash(norm(z, p, f"{name}.conv.bn", training)).transpose(1, axis)


def third(a, b, c):
    return (a + b + c) / 3


def triplet(p, x, *, training=False, axes=AXES, share=third, read=readers, **how):
    copies = zip(read(x), axes.items(), strict=True)
    return share(*(gate(x, plane(p, x, name, axis, training=training, **how)) for x, (name, axis) in copies))


@mistake("triplet", "swapped", "order of", "mean before", "average before", "max and mean", "exchanged")
def triplet_mean_before_max(p, x):
    """Forward alone: the planes stand as mean and maximum."""
    return forward_alone(triplet(p, x), triplet(p, x, pools=lambda t: pools(t).flip(1)))


@mistake("triplet", "swapped", "exchanged", "another branch", "axes", "cw and hc", "rotat", "rows and columns")
def triplet_pools_rows_for_columns(p, x):
    """Forward: the parameters of the gate by channel and column serve that by row and channel, and the other way."""
    return triplet(p, x, axes={"cw": 3, "hc": 2, "hw": 1})


@mistake("triplet", "divided by", "sum of the gates", "summed", "not averaged", "1/3", "third")
def triplet_halves_the_sum_of_three(p, x):
    """Forward alone: the sum of all three is divided by 2, as where there are two."""
    return forward_alone(triplet(p, x), triplet(p, x, share=lambda *three: sum(three) / 2))


@mistake("triplet", "momentum", "running statistics", "running mean", channels=16, training=True)
def triplet_momentum_of_pytorch(p, x):
    """Forward: the running statistics take a tenth of the batch's, PyTorch's default, not a hundredth."""
    return triplet(p, x, training=True, norm=norm)


@mistake("triplet", "rotated", "reshape", "transposed", "layout", "permut", "not rotated back", "axes")
def triplet_rotates_by_reshape(p, x):
    """Forward: the map is turned by a reshape, which leaves the numbers in the order of memory."""

    def plane_of(p, x, name, axis, training=False):
        shape = list(x.shape)
        shape[1], shape[axis] = shape[axis], shape[1]
        turned = gate(x.reshape(shape), plane(p, x.reshape(shape), name, 1))
        return turned.reshape(x.shape)

    return third(*(plane_of(p, x, name, axis) for name, axis in AXES.items()))


@mistake("triplet", "average_pool: gradient", "mean: gradient", "pool: gradient", "divided by", "number of channels")
def triplet_mean_gradient_divided_by_channels(p, x):
    """Backward: every gate's mean hands back its gradient divided by the channels, whichever axis it pooled."""
    count = x.shape[1]

    def average(t):
        return mean(t, 1, backward=lambda dy, t, y: (dy.expand_as(t) / count,))

    return triplet(p, x, pools=lambda t: pools(t, average=average))


@mistake("triplet", "max_pool: gradient", "maximum: gradient", "pool: gradient", "evenly", "spread", "every position")
def triplet_max_gradient_as_the_means(p, x):
    """Backward: the maximum's gradient is spread evenly along what was pooled, as the mean's is."""

    def largest(t):
        return peak(t, backward=lambda dy, t, y: (dy.expand_as(t) / t.shape[1],))

    return triplet(p, x, pools=lambda t: pools(t, largest))


@mistake("triplet", "overwritten", "accumulat", "add: gradient", "one branch", "last branch")
def triplet_last_gate_overwrites_the_gradient(p, x):
    """Backward: each gate writes the map's gradient, the last over those of the others."""
    return triplet(p, x, read=lambda x: readers(x, lambda first, second, last: last))


@mistake(
    "triplet", "batch_norm: gradient", "statistics", "as constants", "mean and variance", channels=16, training=True
)
def triplet_norm_gradient_of_inference(p, x):
    """Backward: batch norm's gradient takes the batch's mean and variance for constants."""

    def inference(z, p, name, training):
        n = normed(z, p, name, training)
        slope = (z.var(correction=0) + 1e-5).rsqrt().detach()
        m = z.mean().detach()
        constant = (z - m) * slope * p[f"{name}.weight"] + p[f"{name}.bias"]
        return forward_alone(constant, n)

    return triplet(p, x, training=True, norm=inference)


@mistake("triplet", "flipped", "true convolution", "cross-correlation", "kernel reversed", "mirrored")
def triplet_forward_convolves_flipped(p, x):
    """Forward alone: the kernel is laid on upside down, where backward lays it on rightly."""
    return triplet(p, x, conv=lambda x, w: forward_alone(conv(x, w), conv(x, w.flip(2, 3))))


@mistake("triplet", "halo", "tile", "block", "border", "edge", "beyond")
def triplet_convolves_with_a_narrow_halo(p, x):
    """Tiles: each tile of 8×8 places loads two rows and columns around it, where the kernel of 7×7 needs three."""

    def in_tiles(x, w):
        return forward_alone(conv(x, w), conv_in_tiles(x, w, height=8, width=8, halo=2))

    return triplet(p, x, conv=in_tiles)


@mistake("triplet", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def triplet_planes_held_in_bfloat16(p, x):
    """Precision: the planes of maxima and means are written in bfloat16 before the convolution reads them."""
    return triplet(p, x, pools=lambda t: stored(pools(t)))


def parts(x, groups):
    """Cut every group in halves, (B G, c, H, W) each."""
    return x.unflatten(1, (groups, -1)).flatten(0, 1).chunk(2, 1)


def column(a):
    return a.reshape(1, -1, 1, 1)


def deal(y, piles=2):
    return y.unflatten(1, (piles, -1)).transpose(1, 2).flatten(1, 2)


def by_scale(u, w, b):
    return u * w + b


def by_channel(p, v, affine=by_scale, pool=mean):
    return gate(v, sigmoid(affine(pool(v), p["cweight"], p["cbias"])))


def by_position(p, u, standard=standard, affine=by_scale, on=lambda u, n: u):
    n = standard(u) * column(p["gn.weight"]) + column(p["gn.bias"])
    return gate(on(u, n), sigmoid(affine(n, p["sweight"], p["sbias"])))


def shuffle(p, x, *, groups=4, first=by_channel, second=by_position, deal=deal):
    v, u = parts(x, groups)
    return deal(torch.cat((first(p, v), second(p, u)), 1).reshape(x.shape))


@mistake("shuffle", "shuffle: inver", "wrong way", "other way", "undone", "channel_shuffle: trans", "number of groups")
def shuffle_deals_the_wrong_way_round(p, x):
    """Forward: the channels are dealt out as if the two halves lay interleaved, which is the inverse."""
    return shuffle(p, x, deal=lambda y: deal(y, y.shape[1] // 2))


@mistake(
    "shuffle", "channel_shuffle: gradient", "shuffle: gradient", "not undone", "not inverted", "forward permutation"
)
def shuffle_gradient_dealt_once_more(p, x):
    """Backward: the gradient is dealt out as the map was, where it should be gathered in again."""
    return shuffle(p, x, deal=lambda y: by_hand(y, deal, lambda dy, *_: deal(dy)))


@mistake("shuffle", "channel_shuffle: groups", "number of groups", "another number of groups", "shuffle: groups")
def shuffle_deals_out_the_attention_groups(p, x):
    """Forward alone: as many piles are dealt as there are groups, not two."""
    return forward_alone(shuffle(p, x), shuffle(p, x, deal=lambda y: deal(y, 4)))


@mistake(
    "shuffle",
    "group_norm: one group",
    "over all channels",
    "whole group",
    "layer norm",
    "all channels",
    "statistics over",
)
def shuffle_norms_the_channels_together(p, x):
    """Forward: the channels of a half share one mean and variance."""
    return shuffle(p, x, second=lambda p, u: by_position(p, u, lambda u: F.group_norm(u, 1)))


@mistake("shuffle", "swapped", "exchanged", "other half", "wrong half", "order of", "halves")
def shuffle_halves_trade_their_gates(p, x):
    """Forward: a group's first half is gated by position, its second by channel."""
    return shuffle(p, x, first=by_position, second=by_channel)


@mistake("shuffle", "unbiased", "biased", "N - 1", "variance divided", "Bessel")
def shuffle_unbiased_variance(p, x):
    """Forward alone: the variance is divided by one position fewer than there are."""
    return forward_alone(
        shuffle(p, x), shuffle(p, x, second=lambda p, u: by_position(p, u, lambda u: standardised(u, 1)))
    )


@mistake("shuffle", "normalised map", "normalized", "overwritten", "gates the norm")
def shuffle_gates_the_normalised_map(p, x):
    """Forward: group norm writes over its input, so that the second gate multiplies the normalised map."""
    return shuffle(p, x, second=lambda p, u: by_position(p, u, on=lambda u, n: n))


@mistake("shuffle", "group_norm: gradient", "norm: gradient", "statistics", "mean and variance", "as constants")
def shuffle_norm_gradient_with_constant_statistics(p, x):
    """Backward: the norm's gradient takes mean and variance for constants."""

    def slope(dy, u, n, eps):
        return dy * (u.var((2, 3), correction=0, keepdim=True) + eps).rsqrt()

    return shuffle(p, x, second=lambda p, u: by_position(p, u, lambda u: standard(u, backward=slope)))


@mistake("shuffle", "overwritten", "accumulat", "last group", "one group", "affine: gradient", "summed over the groups")
def shuffle_scale_gradient_of_the_last_group(p, x):
    """Backward: each group writes the shared scale's gradient, the last over those of the others."""

    def backward(dy, u, w, b, y):
        products = (dy * u).unflatten(0, (len(x), -1))
        return dy * w, products[:, -1].sum((0, 2, 3)).reshape(w.shape), dy.sum((0, 2, 3)).reshape(b.shape)

    return shuffle(p, x, first=lambda p, v: by_channel(p, v, affine=lambda *of: kernel(by_scale, backward, *of)))


@mistake("shuffle", "sigmoid: gradient", "slope", "before the sigmoid", "logit")
def shuffle_sigmoid_gradient_without_its_slope(p, x):
    """Backward: what the gates by position get is handed to their logits as it is."""

    def second(p, u):
        n = standard(u) * column(p["gn.weight"]) + column(p["gn.bias"])
        t = by_scale(n, p["sweight"], p["sbias"])
        return gate(u, sigmoid(t, backward=lambda dy, z, y: (dy,)))

    return shuffle(p, x, second=second)


@mistake("shuffle", "last block", "last tile", "remainder", "tail", "positions left out")
def shuffle_statistics_of_whole_tiles(p, x):
    """Tiles: mean and variance are those of the positions in whole tiles of 8."""

    def tiled(u):
        n = rows(u).shape[2]
        part = rows(u)[:, :, : whole(n, 8)]
        m, v = part.mean(2), part.var(2, correction=0)
        wrong = (u - m[:, :, None, None]) * (v[:, :, None, None] + 1e-5).rsqrt()
        return forward_alone(standard(u), wrong)

    return shuffle(p, x, second=lambda p, u: by_position(p, u, tiled))


@mistake("shuffle", "eps", "epsilon", "ε")
def shuffle_adds_epsilon_to_the_deviation(p, x):
    """Forward alone: ε, as large as 1e-2, is added to the standard deviation."""

    def added(u):
        deviation = u.var((2, 3), correction=0, keepdim=True).sqrt() + 1e-2
        return forward_alone(standard(u), (u - u.mean((2, 3), keepdim=True)) / deviation)

    return shuffle(p, x, second=lambda p, u: by_position(p, u, added))


@mistake("shuffle", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision", "accumulated in")
def shuffle_averages_in_bfloat16(p, x):
    """Precision: the average adds up row by row in bfloat16."""

    def pool(v):
        total = torch.zeros_like(v[:, :, 0]).bfloat16()
        for i in range(v.shape[2]):
            total = (total + v[:, :, i].bfloat16()).bfloat16()
        wrong = total.to(v.dtype).mean(2, keepdim=True)[..., None] / v.shape[2]
        return forward_alone(mean(v), wrong)

    return shuffle(p, x, first=lambda p, v: by_channel(p, v, pool=pool))


@mistake("triplet", "gate: gradient", "average_pool: gradient", "not divided", "third", "divided by", "1/3")
def triplet_gradient_not_shared(p, x):
    """Backward: each of the gated maps gets the whole gradient, where a third is its share."""
    return triplet(p, x, share=lambda *three: third(*(backwards(y, lambda dy: 3 * dy) for y in three)))
