"""Gates by a second map and by branches that weigh each other, written as kernels by a third hand; mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import (
    conv,
    conv_in_tiles,
    forward_alone,
    gate,
    gate_backward,
    kernel,
    mean,
    relu,
    rows,
    sigmoid,
    stored,
    whole,
)
from tests.benchmarks.foreign.pieces import F, constant, mistake, norm, torch
from tests.benchmarks.foreign.recent_pieces import softmax, standard, standardised


def layer(p, x, name, *, training=False, stride=1, **options):
    h = F.conv2d(x, p[f"{name}.0.weight"], p[f"{name}.0.bias"], stride=stride)
    return norm(h, p, f"{name}.1", training, **options)


def sum_rectified(a, b):
    return relu(a + b)


def fitted(a, size):
    return F.interpolate(a, size, mode="bilinear", align_corners=False)


def attention_gate(
    p,
    x,
    g,
    *,
    stride=1,
    training=False,
    of_x=layer,
    of_g=layer,
    join=sum_rectified,
    psi=layer,
    squash=sigmoid,
    fit=fitted,
    on=gate,
):
    a, b = of_x(p, x, "W_x", training=training, stride=stride), of_g(p, g, "W_g", training=training)
    m = squash(psi(p, join(a, b), "psi", training=training))
    return on(x, m if stride == 1 else fit(m, x.shape[2:]))


LEARNING = {"channels": 16, "gating_channels": 24, "training": True}


@mistake(
    "attention-gate", "relu: before", "before the sum", "each by itself", "relu before", "order of", "each summand"
)
def attention_gate_rectifies_before_the_sum(p, x, g):
    """Forward: each of the two maps is rectified, and then they are added."""
    return attention_gate(p, x, g, join=lambda a, b: relu(a) + relu(b))


@mistake(
    "attention-gate",
    "batch_norm: left out",
    "norm left out",
    "without norm",
    "no norm",
    "norm missing",
    "batch_norm: missing",
)
def attention_gate_psi_without_its_norm(p, x, g):
    """Forward: the last layer's norm is left out."""
    return attention_gate(p, x, g, psi=lambda p, r, name, training: F.conv2d(r, p["psi.0.weight"], p["psi.0.bias"]))


@mistake(
    "attention-gate",
    "swapped",
    "exchanged",
    "another norm",
    "other norm",
    "another's parameters",
    "wrong parameters",
    "wrong norm",
)
def attention_gate_norms_exchanged(p, x, g):
    """Forward: the norm of g's layer serves x, and the other way."""
    other = {
        name.replace("W_x.1", "W_y.1").replace("W_g.1", "W_x.1").replace("W_y.1", "W_g.1"): a for name, a in p.items()
    }
    return attention_gate(other, x, g)


@mistake("attention-gate", "residual", "1 + ", "added", "x + ", "identity")
def attention_gate_adds_the_map(p, x, g):
    """Forward alone: the gated map is added to the map."""
    return attention_gate(p, x, g, on=lambda x, m: forward_alone(gate(x, m), x + gate(x, m)))


@mistake(
    "attention-gate", "corners", "align_corners", "half a pixel", "grid", channels=16, gating_channels=24, stride=2
)
def attention_gate_resizes_with_aligned_corners(p, x, g):
    """Forward: the gates are resized with corner on corner, where edge on edge is meant."""

    def fit(a, size):
        return F.interpolate(a, size, mode="bilinear", align_corners=True)

    return attention_gate(p, x, g, stride=2, fit=fit)


@mistake("attention-gate", "momentum", "running statistics", "running mean", **LEARNING)
def attention_gate_momentum_of_the_old(p, x, g):
    """Forward: in psi's norm the old running statistics have the weight that the batch's should have."""

    def psi(p, r, name, training):
        return layer(p, r, name, training=training, momentum=0.9)

    return attention_gate(p, x, g, training=True, psi=psi)


@mistake("attention-gate", "detached", "add: gradient", "second input", "gating", "one summand", "not led back", "zero")
def attention_gate_second_map_gets_nothing(p, x, g):
    """Backward: the second map's gradient is 0: its layer learns, but hands nothing on."""
    return attention_gate(p, x, g, of_g=lambda p, g, name, training: layer(p, constant(g), name, training=training))


@mistake("attention-gate", "relu: gradient", "relu: wrong mask", "mask", "sign of", "before the sum")
def attention_gate_relu_gradient_by_the_first_map(p, x, g):
    """Backward: the rectifier passes gradients where the first summand is positive, not the sum."""

    def join(a, b):
        return kernel(sum_rectified, lambda dy, a, b, y: (dy * (a > 0), dy * (a > 0)), a, b)

    return attention_gate(p, x, g, join=join)


@mistake("attention-gate", "gate: gradient", "averaged", "divided by", "number of channels", "mean over", "not summed")
def attention_gate_gradient_averaged_over_channels(p, x, g):
    """Backward: the gate's gradient is the average over the channels, not the sum."""

    def backward(dy, x, m, y):
        return dy * m, (dy * x).mean(1, keepdim=True)

    return attention_gate(p, x, g, on=lambda x, m: gate(x, m, backward=backward))


@mistake(
    "attention-gate", "detached", "gate: gradient", "through the gate", "overwritten", "accumulat", "one path", "lost"
)
def attention_gate_map_learns_by_the_product_alone(p, x, g):
    """Backward: the map's gradient is that of the product; its layer's is written elsewhere and never added."""

    def of_x(p, x, name, **options):
        return layer(p, constant(x), name, **options)

    return attention_gate(p, x, g, of_x=of_x)


@mistake("attention-gate", "batch_norm: gradient", "statistics", "as constants", "mean and variance", **LEARNING)
def attention_gate_norm_gradient_of_inference(p, x, g):
    """Backward: the gradient of psi's norm takes the batch's mean and variance for constants."""

    def psi(p, r, name, training):
        n = layer(p, r, name, training=training)
        h = F.conv2d(r, p["psi.0.weight"], p["psi.0.bias"])
        m, slope = h.mean().detach(), (h.var(correction=0) + 1e-5).rsqrt().detach()
        return forward_alone((h - m) * slope * p["psi.1.weight"] + p["psi.1.bias"], n)

    return attention_gate(p, x, g, training=True, psi=psi)


@mistake("attention-gate", "last block", "last tile", "remainder", "tail", "positions left out")
def attention_gate_writes_whole_tiles(p, x, g):
    """Tiles: positions behind the last whole tile of 8 keep the ungated map."""

    def on(x, m):
        n = rows(x).shape[2]
        gated = (torch.arange(n) < whole(n, 8)).reshape(x.shape[2:])
        return forward_alone(gate(x, m), torch.where(gated, x * m, x))

    return attention_gate(p, x, g, on=on)


@mistake("attention-gate", "sigmoid", "hard_sigmoid", "approximat", "hard sigmoid")
def attention_gate_forward_with_a_hard_sigmoid(p, x, g):
    """Forward alone: the sigmoid is the piecewise linear one."""
    return attention_gate(p, x, g, squash=lambda z: forward_alone(sigmoid(z), F.hardsigmoid(z)))


@mistake("attention-gate", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def attention_gate_gates_in_bfloat16(p, x, g):
    """Precision: the gates are written in bfloat16."""
    return attention_gate(p, x, g, squash=lambda z: stored(sigmoid(z)))


def averages(v):
    """Of rows and of columns, one below the other: (B G, c, H + W, 1)."""
    return torch.cat((mean(v, 3), mean(v, 2).mT), 2)


def apart(a, size):
    """Gates of rows and of columns."""
    return a.split(tuple(size), 2)


def first_branch(p, v, *, pool=averages, split=apart, norm=standard):
    a_h, a_w = split(sigmoid(F.conv2d(pool(v), p["conv1x1.weight"], p["conv1x1.bias"])), v.shape[2:])
    n = norm(gate(gate(v, a_h), a_w.mT))
    return n * p["gn.weight"][:, None, None] + p["gn.bias"][:, None, None]


def second_branch(p, v, conv=conv):
    return conv(v, p["conv3x3.weight"]) + p["conv3x3.bias"][:, None, None]


def weights_of(m, pool=mean):
    return softmax(pool(m).flatten(1), 1)[:, None]


def crossed(w_m, w_n, m, n):
    return w_m @ rows(n) + w_n @ rows(m)


def ema(
    p,
    x,
    *,
    groups=8,
    first=first_branch,
    second=second_branch,
    weigh=weights_of,
    cross=crossed,
    squash=sigmoid,
    on=gate,
):
    v = x.unflatten(1, (groups, -1)).flatten(0, 1)
    m, n = first(p, v), second(p, v)
    u = cross(weigh(m), weigh(n), m, n)
    return on(v, squash(u).reshape(len(v), 1, *x.shape[2:])).reshape(x.shape)


@mistake("ema", "swapped", "own branch", "exchanged", "not crossed", "same branch", "other branch", "each branch")
def ema_branches_weigh_themselves(p, x):
    """Forward: each branch's averages weigh its own channels."""
    return ema(p, x, cross=lambda w_m, w_n, m, n: crossed(w_n, w_m, m, n))


@mistake(
    "ema", "group_norm: one group", "over all channels", "whole group", "layer norm", "all channels", "statistics over"
)
def ema_norms_the_channels_together(p, x):
    """Forward: a group's channels share one mean and variance."""
    return ema(p, x, first=lambda p, v: first_branch(p, v, norm=lambda t: F.group_norm(t, 1)))


@mistake("ema", "swapped", "order of", "columns before", "rows and columns", "exchanged", "concatenate")
def ema_columns_before_rows(p, x):
    """Forward: the columns' averages stand before the rows', and the gates are split as if behind."""
    return ema(p, x, first=lambda p, v: first_branch(p, v, pool=lambda v: torch.cat((mean(v, 2).mT, mean(v, 3)), 2)))


@mistake(
    "ema",
    "softmax: axis",
    "softmax: over",
    "another axis",
    "wrong axis",
    "over the groups",
    "other axis",
    "over the images",
)
def ema_softmax_over_images_and_groups(p, x):
    """Forward: the softmax runs over the groups of all images, the first axis, not over a group's channels."""
    return ema(p, x, weigh=lambda m: softmax(mean(m).flatten(1), 0)[:, None])


@mistake("ema", "unbiased", "biased", "N - 1", "variance divided", "Bessel")
def ema_unbiased_variance(p, x):
    """Forward alone: the norm's variance is divided by one position fewer than there are."""
    wrong = ema(p, x, first=lambda p, v: first_branch(p, v, norm=lambda t: standardised(t, 1)))
    return forward_alone(ema(p, x), wrong)


@mistake("ema", "group_norm: gradient", "norm: gradient", "statistics", "mean and variance", "as constants")
def ema_norm_gradient_with_constant_statistics(p, x):
    """Backward: the norm's gradient takes mean and variance for constants."""

    def slope(dy, t, n, eps):
        return dy * (t.var((2, 3), correction=0, keepdim=True) + eps).rsqrt()

    return ema(p, x, first=lambda p, v: first_branch(p, v, norm=lambda t: standard(t, backward=slope)))


@mistake("ema", "average_pool: gradient", "pool: gradient", "not divided", "number of positions", "divided by")
def ema_average_gradient_not_divided(p, x):
    """Backward: what the averages get is handed to every position without division by their number."""

    def pool(m):
        return mean(m, backward=lambda dy, m, y: (dy.expand_as(m),))

    return ema(p, x, weigh=lambda m: weights_of(m, pool))


@mistake("ema", "last group", "one group", "overwritten", "accumulat", "summed over the groups", "conv2d: gradient")
def ema_kernel_learns_from_the_last_group(p, x):
    """Backward: each group writes the gradient of the shared 3×3 kernel, the last over those of the others."""
    w = p["conv3x3.weight"]

    def convolve(v, _):
        last = (torch.arange(len(v)) % 8 == 7).reshape(-1, 1, 1, 1)
        return torch.where(last, conv(v, w), conv(v, constant(w)))

    return ema(p, x, second=lambda p, v: second_branch(p, v, convolve))


@mistake("ema", "accumulat", "overwritten", "detached", "one path", "conv2d: gradient", "lost", "summand")
def ema_map_learns_nothing_by_the_kernel(p, x):
    """Backward: what the 3×3 convolution hands back to the map is written over."""
    return ema(p, x, second=lambda p, v: second_branch(p, constant(v)))


@mistake("ema", "gate: gradient", "one channel", "not summed", "first channel", "last channel", "sum over the channels")
def ema_gate_gradient_of_the_first_channel(p, x):
    """Backward: the gate's gradient is the first channel's, not the sum over those that it multiplies."""

    def backward(dy, v, e, y):
        return gate_backward(dy, v, e, y)[0], (dy * v)[:, :1]

    return ema(p, x, on=lambda v, e: gate(v, e, backward=backward))


@mistake("ema", "averaged", "halved", "divided by", "half", "mean of the branches")
def ema_forward_averages_the_two(p, x):
    """Forward alone: the sigmoid is of the two maps' average."""
    return ema(p, x, squash=lambda u: forward_alone(sigmoid(u), sigmoid(u / 2)))


@mistake("ema", "halo", "tile", "block", "border", "edge", "beyond")
def ema_convolves_without_a_halo(p, x):
    """Tiles: each tile of 4×4 positions is convolved as if there were zeros around it."""

    def tiled(v, w):
        return forward_alone(conv(v, w), conv_in_tiles(v, w, height=4, width=4, halo=0))

    return ema(p, x, second=lambda p, v: second_branch(p, v, tiled))


@mistake("ema", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def ema_branches_in_bfloat16(p, x):
    """Precision: the first branch is written in bfloat16."""
    return ema(p, x, first=lambda p, v: stored(first_branch(p, v)))
