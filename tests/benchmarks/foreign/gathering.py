"""Gather-excite, and mistakes in it."""

from tests.benchmarks.foreign.pieces import (
    F,
    as_nhwc,
    backwards,
    by_hand,
    changed,
    constant,
    from_nhwc,
    mistake,
    norm,
    pointwise,
    torch,
)

AVERAGES = {"channels": 32, "extent": 2, "reduction": 8}
"""What most mistakes are in: neighbourhoods that are averaged."""


def averages(x):
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


def nearest(a, size):
    return F.interpolate(a, size)


def weigh(x, e):
    return x * e


def ge(p, x, *, extra_params=False, gather=averages, act=torch.relu, squash=torch.sigmoid, resize=nearest, scale=weigh):
    if extra_params:
        return ge_by_kernels(p, x)
    z = pointwise(act(pointwise(gather(x), p, "mlp.fc1")), p, "mlp.fc2")
    return scale(x, squash(resize(z, x.shape[2:])))


@mistake("ge", "padding counted", "edge", "count_include_pad", **AVERAGES)
def ge_padding_counted(p, x):
    """Gather: zeros beyond the edges are counted."""
    return ge(p, x, gather=lambda x: F.avg_pool2d(x, 3, 2, 1))


@mistake("ge", "don't overlap", "neighbourhood", "window", **AVERAGES)
def ge_blocks_apart(p, x):
    """Gather: averages of 2×2 blocks that do not overlap."""
    return ge(p, x, gather=lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True))


@mistake("ge", "max", "average", **AVERAGES)
def ge_maxima(p, x):
    """Gather: maxima for averages."""
    return ge(p, x, gather=lambda x: F.max_pool2d(x, 3, 2, 1))


@mistake("ge", "sum for average", "not divided", "sum", **AVERAGES)
def ge_sums(p, x):
    """Gather: sums that are not divided."""
    return ge(p, x, gather=lambda x: 9 * F.avg_pool2d(x, 3, 2, 1))


@mistake("ge", "every e-th", "read", "subsampl", "left out", **AVERAGES)
def ge_subsampled(p, x):
    """Gather: every second position as it is."""
    return ge(p, x, gather=lambda x: x[:, :, ::2, ::2])


@mistake("ge", "whole map", "global", "extent", **AVERAGES)
def ge_whole_map(p, x):
    """Gather: the average of the whole map."""
    return ge(p, x, gather=lambda x: x.mean((2, 3), keepdim=True))


@mistake("ge", "bilinear", **AVERAGES)
def ge_bilinear(p, x):
    """Resize: bilinear for nearest."""
    return ge(p, x, resize=lambda a, size: F.interpolate(a, size, mode="bilinear"))


@mistake("ge", "repeated", "tiled", "order", **AVERAGES)
def ge_tiled(p, x):
    """Resize: the small map is laid out again and again."""
    return ge(p, x, resize=lambda a, size: a.repeat(1, 1, 2, 2)[:, :, : size[0], : size[1]])


@mistake("ge", "relu", "activation", **AVERAGES)
def ge_without_relu(p, x):
    """Excite: no ReLU."""
    return ge(p, x, act=lambda h: h)


@mistake("ge", "bias", **AVERAGES)
def ge_last_bias_lost(p, x):
    """Excite: the last bias is left out."""
    return ge({**p, "mlp.fc2.bias": 0 * p["mlp.fc2.bias"]}, x)


@mistake("ge", "hard", "sigmoid", **AVERAGES)
def ge_hard_sigmoid(p, x):
    """Gate: hard sigmoid for the logistic one."""
    return ge(p, x, squash=F.hardsigmoid)


@mistake("ge", "sigmoid", "left out", **AVERAGES)
def ge_without_sigmoid(p, x):
    """Gate: the logits multiply the map."""
    return ge(p, x, squash=lambda z: z)


@mistake("ge", "one added", "residual", "1 +", **AVERAGES)
def ge_residual(p, x):
    """Gate: x (1 + e)."""
    return ge(p, x, scale=lambda x, e: x * (1 + e))


@mistake("ge", "detach", "gate", "constant", **AVERAGES)
def ge_gates_detached(p, x):
    """Gate's backward: the gates are taken for constants."""
    return ge(p, x, scale=lambda x, e: x * constant(e))


@mistake("ge", "mean for sum", "mean", "averaged", **AVERAGES)
def ge_gradient_of_a_block_averaged(p, x):
    """Resize's backward: the mean over a block, not the sum."""
    return ge(p, x, resize=lambda a, size: nearest(backwards(a, lambda g: g / 4), size))


@mistake("ge", "padding counted", "divided", "edge", **AVERAGES)
def ge_gradient_divided_by_nine_everywhere(p, x):
    """Gather's backward: every average is taken for one of nine positions, at the edges too."""

    def gather(x):
        count = 9 * F.avg_pool2d(torch.ones_like(x), 3, 2, 1)
        return backwards(averages(x), lambda g: g * count / 9)

    return ge(p, x, gather=gather)


@mistake("ge", "detach", "gather", "dropped", "lost", **AVERAGES)
def ge_gather_detached(p, x):
    """Gather's backward: the map is taken for a constant where it is averaged."""
    return ge(p, x, gather=lambda x: averages(constant(x)))


@mistake("ge", "y (1 + y)", "slope", "sigmoid", **AVERAGES)
def ge_slope_of_the_sigmoid(p, x):
    """Sigmoid's backward: its slope has its sign wrong."""
    return ge(p, x, squash=lambda z: by_hand(z, torch.sigmoid, lambda dy, _, y: dy * y * (1 + y)))


@mistake("ge", "averaged over the batch", "batch", **AVERAGES)
def ge_parameter_gradients_averaged(p, x):
    """Parameters' gradients: averaged over the images of the batch, not added up."""
    return ge(changed(p, lambda g: g / len(x)), x)


@mistake("ge", "channels last", "NHWC", "layout", **AVERAGES)
def ge_channels_last(p, x):
    """The map is read as if its channels stood last."""
    return from_nhwc(ge(p, as_nhwc(x)), x.shape)


def kernels(p, x, *, stride=2, act=torch.relu, conv=F.conv2d):
    for i in (1, 2):
        x = conv(x, p[f"gather.conv{i}.weight"], None, stride, 1, 1, x.shape[1])
        x = norm(x, p, f"gather.norm{i}")
        x = act(x) if i == 1 else x
    return x


def ge_by_kernels(p, x, gather=kernels):
    return ge(p, x, gather=lambda x: gather(p, x))


@mistake("ge", "flip", "rotated", "convolution")
def ge_kernels_flipped(p, x):
    """Gather: the kernels are turned."""
    turned = {n: a.flip(2, 3) if "conv" in n else a for n, a in p.items()}
    return ge_by_kernels(turned, x)


@mistake("ge", "stride", "extent")
def ge_stride_one(p, x):
    """Gather: kernels of stride 1, so that every position has a gate of its own."""
    return ge_by_kernels(p, x, gather=lambda p, x: kernels(p, x, stride=1))


@mistake("ge", "relu", "activation")
def ge_kernels_without_relu(p, x):
    """Gather: no ReLU between the kernels."""
    return ge_by_kernels(p, x, gather=lambda p, x: kernels(p, x, act=lambda u: u))


@mistake("ge", "relu", "activation", "followed by a ReLU")
def ge_relu_behind_the_last_kernel(p, x):
    """Gather: a ReLU behind the last kernel as well."""
    return ge_by_kernels(p, x, gather=lambda p, x: torch.relu(kernels(p, x)))


@mistake("ge", "channels", "exchanged", "shifted", "groups", "transposed")
def ge_kernels_of_the_next_channel(p, x):
    """Gather: each channel is read with the next one's kernel."""
    return ge_by_kernels({n: a.roll(1, 0) if "conv" in n else a for n, a in p.items()}, x)


@mistake("ge", "detach", "gather", "dropped", "lost")
def ge_kernels_see_a_constant(p, x):
    """Gather's backward: the map is taken for a constant."""
    return ge_by_kernels(p, x, gather=lambda p, x: kernels(p, constant(x)))
