"""Gates of channels written as kernels, by another hand than the first set, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import (
    affine,
    forward_alone,
    gate,
    maximum,
    mean,
    relu,
    rows,
    sigmoid,
    stored,
    whole,
)
from tests.benchmarks.foreign.pieces import F, backwards, mistake, torch


def as_map(a):
    return a[:, :, None, None]


def se(p, x, *, pool=mean, fc1=affine, act=relu, fc2=affine, squash=sigmoid, scale=gate):
    h = act(fc1(pool(x).flatten(1), p["fc1.weight"], p["fc1.bias"]))
    return scale(x, as_map(squash(fc2(h, p["fc2.weight"], p["fc2.bias"]))))


@mistake("se", "average_pool: gradient", "pool: gradient", "not divided", "number of positions")
def se_pool_gradient_not_divided(p, x):
    """Backward: what comes back from the average is handed to every position without division by their number."""
    return se(p, x, pool=lambda x: mean(x, backward=lambda dy, x, y: (dy.expand_as(x),)))


@mistake("se", "last block", "last tile", "remainder", "tail", "sum over the positions", "gate: gradient")
def se_gate_gradient_in_whole_tiles(p, x):
    """Backward: the gate's gradient adds up whole tiles of 8 positions; what is left over is not added."""

    def backward(dy, x, a, y):
        products = rows(dy * x)
        return dy * a, as_map(products[:, :, : whole(products.shape[2], 8)].sum(2))

    return se(p, x, scale=lambda x, a: gate(x, a, backward=backward))


@mistake("se", "last block", "last tile", "remainder", "tail", "positions left out")
def se_pools_whole_tiles(p, x):
    """Tiles: the average adds up whole tiles of 8 positions, and divides by all positions."""

    def pool(x):
        n = rows(x).shape[2]
        return rows(x)[:, :, : whole(n, 8)].sum(2) / n

    return se(p, x, pool=pool)


@mistake("se", "transposed", "transpose", "column-major", "row-major", "layout", "reshaped")
def se_reads_fc2_column_major(p, x):
    """Forward: the second layer's weight, (C, C/r), is read as if it lay in memory as (C/r, C)."""
    w = p["fc2.weight"]
    return se(p | {"fc2.weight": w.reshape(w.shape[1], w.shape[0]).T}, x)


@mistake("se", "bias", "after the", "before the bias")
def se_adds_the_hidden_bias_after_relu(p, x):
    """Forward: the hidden layer's bias is added behind the ReLU."""
    zeros = torch.zeros_like(p["fc1.bias"])
    return se(p, x, fc1=lambda u, w, b: affine(u, w, zeros), act=lambda h: relu(h) + p["fc1.bias"])


@mistake("se", "sigmoid: gradient", "slope of the sigmoid", "before the sigmoid", "logit")
def se_sigmoid_slope_of_the_logit(p, x):
    """Backward: the sigmoid's slope is computed as z (1 - z), from its input where its output is meant."""
    return se(p, x, squash=lambda z: sigmoid(z, backward=lambda dy, z, y: (dy * z * (1 - z),)))


@mistake("se", "bias", "missing", "left out", "without")
def se_forward_without_the_second_bias(p, x):
    """Forward alone: the gates' logits lack the second layer's bias, which has its gradient all the same."""

    def fc2(h, w, b):
        y = affine(h, w, b)
        return forward_alone(y, y - b)

    return se(p, x, fc2=fc2)


def across(u, w):
    return F.conv1d(u[:, None], w, padding=w.shape[2] // 2)[:, 0]


def eca(p, x, *, pool=mean, conv=across, squash=sigmoid, scale=gate):
    return scale(x, as_map(squash(conv(pool(x).flatten(1), p["conv.weight"]))))


@mistake("eca", "circular", "wrap", "padding", "periodic", "cyclic")
def eca_wraps_around(p, x):
    """Forward: the first and the last channel are neighbours, where zeros should be padded."""

    def conv(u, w):
        k = w.shape[2] // 2
        return F.conv1d(torch.cat([u[:, -k:], u, u[:, :k]], 1)[:, None], w)[:, 0]

    return eca(p, x, conv=conv)


@mistake("eca", "shift", "off by one", "causal", "padding", "one side", "next channel")
def eca_pads_on_the_left_alone(p, x):
    """Forward: all zeros are padded before the first channel, so that every gate looks one channel too far down."""
    return eca(p, x, conv=lambda u, w: F.conv1d(F.pad(u, (w.shape[2] - 1, 0))[:, None], w)[:, 0])


@mistake("eca", "over the batch", "one image", "last image", "batch", "accumulat")
def eca_weight_gradient_of_the_last_image(p, x):
    """Backward: every image writes the kernel's gradient over that of the image before, where they should add up."""

    def conv(u, w):
        return torch.cat([across(u[:-1], w.detach()), across(u[-1:], w)])

    return eca(p, x, conv=conv)


@mistake("eca", "conv1d: gradient", "not flipped", "unflipped", "flip", "reversed")
def eca_input_gradient_not_flipped(p, x):
    """Backward: the averages' gradient is correlated with the kernel as it stands, where it should be reversed."""

    def conv(u, w):
        through_input = across(u, w.detach().flip(2))
        return forward_alone(through_input + across(u.detach(), w), across(u, w))

    return eca(p, x, conv=conv)


@mistake("eca", "tile", "block", "halo", "border")
def eca_blocks_without_halo(p, x):
    """Tiles: blocks of 16 channels are convolved each by itself, with zeros at their borders."""
    return eca(p, x, conv=lambda u, w: torch.cat([across(part, w) for part in u.split(16, 1)], 1))


@mistake("eca", "hard sigmoid", "hard_sigmoid", "approximat", "piecewise")
def eca_fast_sigmoid(p, x):
    """Forward alone: the gates are min(max(z / 6 + 1/2, 0), 1), a cheap sigmoid; backward is the real one's."""
    return eca(p, x, squash=lambda z: forward_alone(sigmoid(z), F.relu6(z + 3) / 6))


def added(u, v):
    return u + v


def two_pools(p, x, names, *, average=mean, largest=maximum, mlp=None, join=added, squash=sigmoid, scale=gate):
    mlp = mlp or perceptron
    u, v = (mlp(a.flatten(1), p, names) for a in (average(x), largest(x)))
    return scale(x, as_map(squash(join(u, v))))


def perceptron(u, p, names, *, first=affine, act=relu, second=affine):
    w1, b1, w2, b2 = (p[f"{name}.{kind}"] for name in names for kind in ("weight", "bias"))
    return second(act(first(u, w1, b1)), w2, b2)


def flexible(p, x, **steps):
    return two_pools(p, x, ("fc1", "fc2"), **steps)


@mistake("flexible", "half", "averaged", "mean of", "instead of the sum", "instead of sum")
def flexible_averages_the_two_scores(p, x):
    """Forward: the scores of the two pools are averaged where they should be added."""
    return flexible(p, x, join=lambda u, v: (u + v) / 2)


@mistake(
    "flexible", "argmax", "position of the maximum", "wrong position", "max: gradient", "maximum", "column by column"
)
def flexible_max_index_column_by_column(p, x):
    """Backward: the maximum's place was counted column by column, and its gradient goes to that place row by row."""

    def backward(dy, x, y):
        index = rows(x.mT).argmax(2, keepdim=True)
        return (torch.zeros_like(rows(x)).scatter(2, index, rows(dy)).reshape(x.shape),)

    return flexible(p, x, largest=lambda x: maximum(x, backward=backward))


@mistake("flexible", "last column", "off by one", "edge", "left out", "border")
def flexible_max_without_the_last_column(p, x):
    """Tiles: the maximum's loop over the columns ends one too early."""
    return flexible(p, x, largest=lambda x: maximum(x[..., :-1]))


@mistake("flexible", "shared", "one pool", "second pool", "one path", "max", "accumulat")
def flexible_first_layer_learns_from_averages_alone(p, x):
    """Backward: the shared first layer's gradient is written by the averages; what the maxima add to it is lost."""
    fixed = p | {name: p[name].detach() for name in ("fc1.weight", "fc1.bias")}
    u, v = (perceptron(a.flatten(1), q, ("fc1", "fc2")) for a, q in ((mean(x), p), (maximum(x), fixed)))
    return gate(x, as_map(sigmoid(u + v)))


@mistake("flexible", "overwrit", "maximum twice", "average pool", "twice", "max")
def flexible_hidden_units_overwritten(p, x):
    """Forward alone: the buffer of the averages' hidden units is overwritten by the maxima's before it is read."""
    return flexible(p, x, join=lambda u, v: forward_alone(u + v, v + v))


@mistake("flexible", "both pools", "concatenat", "before the layers", "before the", "sum of the pools")
def flexible_adds_the_pools_first(p, x):
    """Forward: averages and maxima are added before the two layers, not behind them."""
    return gate(x, as_map(sigmoid(perceptron((mean(x) + maximum(x)).flatten(1), p, ("fc1", "fc2")))))


def cbam_channel(p, x, **steps):
    return two_pools(p, x, ("mlp.1", "mlp.3"), **steps)


@mistake("cbam-channel", "sigmoid", "each pool", "before the sum", "sum of sigmoids", "squashed")
def cbam_channel_squashes_each_pool(p, x):
    """Forward: each pool's scores pass the sigmoid, then the two gates are added."""
    return cbam_channel(p, x, join=lambda u, v: sigmoid(u) + sigmoid(v), squash=lambda z: z)


@mistake("cbam-channel", "bias once", "bias", "once")
def cbam_channel_adds_the_bias_once(p, x):
    """Forward: hidden units of both pools are added before the second layer, whose bias so counts once."""
    return cbam_channel(p, x, join=lambda u, v: u + v - p["mlp.3.bias"])


@mistake("cbam-channel", "gate: gradient", "output instead", "saved", "overwritten")
def cbam_channel_gate_gradient_of_the_output(p, x):
    """Backward: the gate's gradient is the sum of dy y, of the output, which was written over the input."""

    def backward(dy, x, a, y):
        return dy * a, (dy * y).sum((2, 3), keepdim=True)

    return cbam_channel(p, x, scale=lambda x, a: gate(x, a, backward=backward))


@mistake("cbam-channel", "average_pool", "average pool", "pool: gradient", "avg", "detached")
def cbam_channel_without_the_averages_gradient(p, x):
    """Backward: the map receives what comes through the maximum and the gate; the averages' part is missing."""
    return cbam_channel(p, x, average=lambda x: mean(x.detach()))


@mistake("cbam-channel", "bfloat16", "precision", "accumulat", "narrow", "rounded")
def cbam_channel_adds_up_in_bfloat16(p, x):
    """Precision: the average is accumulated in bfloat16, row after row."""

    def average(x):
        total = torch.zeros_like(x[:, :, 0, :1])
        for row in x.unbind(2):
            for a in row.split(1, 2):
                total = stored(total + a)
        return total / rows(x).shape[2]

    return cbam_channel(p, x, average=average)


@mistake("cbam-channel", "last block", "last channels", "not gated", "ungated", "tile", "remainder", "some channels")
def cbam_channel_leaves_the_last_channels(p, x):
    """Tiles: whole blocks of 24 channels are multiplied by their gates; the channels behind them are copied."""

    def scale(x, a):
        n = whole(x.shape[1], 24)
        return torch.cat([gate(x[:, :n], a[:, :n]), x[:, n:]], 1)

    return cbam_channel(p, x, scale=scale)


@mistake("cbam-channel", "relu: gradient", "relu", "upstream", "mask", "guided")
def cbam_channel_relu_gradient_where_it_is_positive(p, x):
    """Backward: the ReLU lets its gradient pass where the gradient is positive, where the input should be."""

    def act(h):
        return relu(h, backward=lambda dy, h, y: (dy * (dy > 0),))

    return cbam_channel(p, x, mlp=lambda u, p, names: perceptron(u, p, names, act=act))


@mistake("flexible", "bias", "over the batch", "batch", "mean over", "averaged")
def flexible_bias_gradient_averaged_over_the_batch(p, x):
    """Backward: the hidden bias receives the mean over the images, where it should receive their sum."""
    return flexible(p | {"fc1.bias": backwards(p["fc1.bias"], lambda d: d / len(x))}, x)
