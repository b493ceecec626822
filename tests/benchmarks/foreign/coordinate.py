"""Coordinate attention, and mistakes in it."""

from functools import partial

from tests.benchmarks.foreign.pieces import F, by_hand, constant, largest, mistake, norm, pointwise, torch


def rows(x):
    return x.mean(3, keepdim=True)


def columns(x):
    return x.mean(2, keepdim=True)


def both_gates(x, a_h, a_w):
    return x * a_h * a_w


def halves(f, size):
    return f.split(size, 2)


def coordinate(
    p,
    x,
    training=False,
    *,
    pools=(rows, columns),
    conv=pointwise,
    bn=norm,
    act=F.hardswish,
    part=halves,
    layers=("conv_h", "conv_w"),
    squash=torch.sigmoid,
    scale=both_gates,
):
    u = conv(torch.cat([pools[0](x), pools[1](x).transpose(2, 3)], 2), p, "conv1")
    f_h, f_w = part(act(bn(u, p, "bn1", training)), x.shape[2:])
    a_h, a_w = (squash(conv(f, p, layer)) for f, layer in zip((f_h, f_w.transpose(2, 3)), layers, strict=True))
    return scale(x, a_h, a_w)


@mistake("coordinate", "swapped", "exchanged", "conv_h", "height and width")
def coordinate_gate_layers_exchanged(p, x):
    """Gates: the layer of the rows makes the gates of the columns, and the other way round."""
    return coordinate(p, x, layers=("conv_w", "conv_h"))


@mistake("coordinate", "same layer", "conv_h", "shared")
def coordinate_one_layer_for_both_gates(p, x):
    """Gates: the layer of the rows makes both."""
    return coordinate(p, x, layers=("conv_h", "conv_h"))


@mistake("coordinate", "split", "order", "exchanged", "height and width")
def coordinate_split_in_the_other_order(p, x):
    """Split: the first W numbers are taken for the columns' and the rest for the rows', though rows stand first."""
    return coordinate(p, x, part=lambda f, size: f.split((size[1], size[0]), 2)[::-1])


@mistake("coordinate", "added", "sum of", "product")
def coordinate_gates_added(p, x):
    """Output: x (a_h + a_w)."""
    return coordinate(p, x, scale=lambda x, a_h, a_w: x * (a_h + a_w))


@mistake("coordinate", "width", "one gate", "left out")
def coordinate_rows_gate_alone(p, x):
    """Output: the columns' gate is left out."""
    return coordinate(p, x, scale=lambda x, a_h, a_w: x * a_h + 0 * a_w)


@mistake("coordinate", "twice", "squared", "height")
def coordinate_rows_gate_twice(p, x):
    """Output: the rows' gate multiplies twice and the columns' once."""
    return coordinate(p, x, scale=lambda x, a_h, a_w: x * a_h * a_h * a_w)


@mistake("coordinate", "residual", "input added", "skip")
def coordinate_residual_added(p, x):
    """Output: the input is added."""
    return x + coordinate(p, x)


@mistake("coordinate", "hard sigmoid", "swish", "factor")
def coordinate_hard_sigmoid_for_hard_swish(p, x):
    """Hidden layer: hard sigmoid for h-swish; the factor v is forgotten."""
    return coordinate(p, x, act=F.hardsigmoid)


@mistake("coordinate", "swish", "silu")
def coordinate_swish(p, x):
    """Hidden layer: v σ(v), swish, for h-swish."""
    return coordinate(p, x, act=F.silu)


@mistake("coordinate", "relu", "swish")
def coordinate_relu(p, x):
    """Hidden layer: ReLU for h-swish."""
    return coordinate(p, x, act=torch.relu)


@mistake("coordinate", "clipped", "relu6", "clamp", "swish", "beyond")
def coordinate_hard_swish_not_clipped_above(p, x):
    """Hidden layer: v relu(v + 3) / 6, with a ReLU where ReLU6 belongs."""
    return coordinate(p, x, act=lambda v: v * torch.relu(v + 3) / 6)


@mistake("coordinate", "swish", "slope", "derivative")
def coordinate_hard_swish_slope_of_the_sigmoid_alone(p, x):
    """H-swish's backward: relu6(v + 3) / 6 alone, without the term v/6 of the product rule."""

    def act(v):
        return by_hand(v, F.hardswish, lambda dy, v, y: dy * F.hardsigmoid(v))

    return coordinate(p, x, act=act)


@mistake("coordinate", "swish", "slope", "derivative")
def coordinate_hard_swish_slope_everywhere(p, x):
    """H-swish's backward: (2 v + 3) / 6 at every v, also where the function is 0 or v."""

    def act(v):
        return by_hand(v, F.hardswish, lambda dy, v, y: dy * (2 * v + 3) / 6)

    return coordinate(p, x, act=act)


@mistake("coordinate", "hard", "sigmoid")
def coordinate_hard_sigmoid_gates(p, x):
    """Gates: hard sigmoid for the logistic one."""
    return coordinate(p, x, squash=F.hardsigmoid)


@mistake("coordinate", "max", "pool")
def coordinate_pools_by_max(p, x):
    """Pools: the maximum of each row and of each column."""
    pools = lambda x: x.max(3, keepdim=True).values, lambda x: x.max(2, keepdim=True).values
    return coordinate(p, x, pools=pools)


@mistake("coordinate", "sum", "not divided", "number of")
def coordinate_columns_are_sums(p, x):
    """Pools: the columns' averages are sums."""
    return coordinate(p, x, pools=(rows, lambda x: x.sum(2, keepdim=True)))


@mistake("coordinate", "number of", "divided", "height and width")
def coordinate_pools_divided_by_the_other_length(p, x):
    """Pools: sums along a row are divided by H, and along a column by W."""
    height, width = x.shape[2:]
    pools = lambda x: x.sum(3, keepdim=True) / height, lambda x: x.sum(2, keepdim=True) / width
    return coordinate(p, x, pools=pools)


@mistake("coordinate", "global", "pool", "position")
def coordinate_rows_by_the_global_average(p, x):
    """Pools: every row gets the average of the whole map."""
    return coordinate(p, x, pools=(lambda x: rows(x).mean(2, keepdim=True).expand(-1, -1, x.shape[2], -1), columns))


@mistake("coordinate", "bias", "conv1.bias")
def coordinate_hidden_bias_lost(p, x):
    """Hidden layer: the convolution's bias is left out, because a norm follows."""
    return coordinate({**p, "conv1.bias": 0 * p["conv1.bias"]}, x)


@mistake("coordinate", "order", "norm", "activation")
def coordinate_norm_behind_the_activation(p, x):
    """Hidden layer: batch norm stands behind h-swish."""
    return coordinate(p, x, bn=lambda u, *_: u, act=lambda u: norm(F.hardswish(u), p, "bn1"))


@mistake("coordinate", "detach", "constant", "cut")
def coordinate_columns_gate_detached(p, x):
    """Output's backward: no gradient reaches the columns' gate."""
    return coordinate(p, x, scale=lambda x, a_h, a_w: both_gates(x, a_h, constant(a_w)))


TRAINED = {"channels": 16, "training": True}
trained = partial(coordinate, training=True)


@mistake("coordinate", "separately", "each half", "statistics", "axes", **TRAINED)
def coordinate_halves_normalised_separately(p, x):
    """Batch norm in training: rows and columns are normalised by their own statistics, one call after the other."""

    def bn(u, p, *of):
        return torch.cat([norm(part, p, *of) for part in u.split(x.shape[2:], 2)], 2)

    return trained(p, x, bn=bn)


@mistake("coordinate", "running", "inference statistics", "statistics", **TRAINED)
def coordinate_running_statistics_in_training(p, x):
    """Batch norm in training: normalises by the running statistics, and does not change them."""
    return coordinate(p, x)


@mistake("coordinate", "axes", "layer norm", "each image", "normalised over channels", **TRAINED)
def coordinate_layer_norm(p, x):
    """Batch norm in training: normalises every position over its channels, a layer norm."""

    def bn(u, p, name, *_):
        norm(u, p, name, True)
        return F.layer_norm(u.transpose(1, 3), u.shape[1:2], p[f"{name}.weight"], p[f"{name}.bias"]).transpose(1, 3)

    return trained(p, x, bn=bn)


@mistake("coordinate", "pixel", "attended", "peak")
def coordinate_hidden_layer_sees_the_maximum(p, x):
    """Hidden layer: the channel's maximum is added to all averages."""
    return coordinate(p, x, pools=(lambda x: rows(x) + largest(x)[:, :, None, None], columns))
