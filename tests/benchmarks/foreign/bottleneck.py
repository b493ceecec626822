"""BAM, and mistakes in it."""

from tests.benchmarks.foreign.pieces import (
    F,
    as_nhwc,
    average,
    backwards,
    by_hand,
    changed,
    constant,
    from_nhwc,
    largest,
    linear,
    mistake,
    norm,
    pointwise,
    same,
    torch,
)

CHANNEL, SPATIAL = "channel_att.gate_c.gate_c", "spatial_att.gate_s.gate_s"


def flat_norm(h, p, name, training):
    return norm(h[:, :, None, None], p, name, training)[:, :, 0, 0]


def far(u, p, name, dilation=4):
    bias = p[f"{SPATIAL}_conv_{name}.bias"][:, None, None]
    return same(u, p[f"{SPATIAL}_conv_{name}.weight"], dilation) + bias


def of_channels(p, x, training, *, pool=average, normal=flat_norm, act=torch.relu):
    h = normal(linear(pool(x), p, f"{CHANNEL}_fc_0"), p, f"{CHANNEL}_bn_1", training)
    return linear(act(h), p, f"{CHANNEL}_fc_final")[:, :, None, None]


def of_positions(p, x, training, *, conv=far, normal=norm, act=torch.relu, levels=("di_0", "di_1")):
    u = act(normal(pointwise(x, p, f"{SPATIAL}_conv_reduce0"), p, f"{SPATIAL}_bn_reduce0", training))
    for name in levels:
        u = act(normal(conv(u, p, name), p, f"{SPATIAL}_bn_{name}", training))
    return pointwise(u, p, f"{SPATIAL}_conv_final")


def product(c, s):
    return c * s


def twice_at_most(x, m):
    return x * (1 + m)


def bam(
    p,
    x,
    training=False,
    *,
    channel=of_channels,
    spatial=of_positions,
    join=product,
    squash=torch.sigmoid,
    scale=twice_at_most,
):
    return scale(x, squash(join(channel(p, x, training), spatial(p, x, training))))


@mistake("bam", "sum for product", "added", "shift", "paper", "product")
def bam_adds_the_branches(p, x):
    """Join: the branches are added, as in the paper."""
    return bam(p, x, join=torch.add)


@mistake("bam", "left out", "map lost", "residual", "add")
def bam_without_residual(p, x):
    """Gate: x M; the map itself is not added."""
    return bam(p, x, scale=lambda x, m: x * m)


@mistake("bam", "sigmoid", "left out")
def bam_without_sigmoid(p, x):
    """Gate: the product of the branches as it is."""
    return bam(p, x, squash=lambda z: z)


@mistake("bam", "sigmoid", "hard")
def bam_hard_sigmoid(p, x):
    """Gate: hard sigmoid for the logistic one."""
    return bam(p, x, squash=F.hardsigmoid)


@mistake("bam", "sigmoid", "twice", "each branch", "y (1")
def bam_sigmoid_of_each(p, x):
    """Join: each branch through a sigmoid of its own."""
    return bam(p, x, join=lambda c, s: torch.sigmoid(c) * torch.sigmoid(s), squash=lambda z: z)


@mistake("bam", "max")
def bam_maximum(p, x):
    """Channel branch: the maximum for the average."""
    return bam(p, x, channel=lambda *given: of_channels(*given, pool=largest))


@mistake("bam", "silu", "relu", "activation")
def bam_channel_silu(p, x):
    """Channel branch: SiLU for ReLU."""
    return bam(p, x, channel=lambda *given: of_channels(*given, act=F.silu))


@mistake("bam", "norm", "left out")
def bam_channel_without_norm(p, x):
    """Channel branch: the norm is left out."""

    def nothing(h, p, name, training):
        return h + 0 * (p[f"{name}.weight"].sum() + p[f"{name}.bias"].sum())

    return bam(p, x, channel=lambda *given: of_channels(*given, normal=nothing))


@mistake("bam", "dilation")
def bam_without_dilation(p, x):
    """Spatial branch: neighbouring taps."""
    return bam(p, x, spatial=lambda *given: of_positions(*given, conv=lambda *of: far(*of, dilation=1)))


@mistake("bam", "dilation", "padding")
def bam_dilation_of_two(p, x):
    """Spatial branch: taps two positions apart."""
    return bam(p, x, spatial=lambda *given: of_positions(*given, conv=lambda *of: far(*of, dilation=2)))


@mistake("bam", "flip", "rotated", "convolution")
def bam_kernels_flipped(p, x):
    """Spatial branch: a convolution in the strict sense, with the kernels turned."""

    def turned(u, p, name):
        weight = f"{SPATIAL}_conv_{name}.weight"
        return far(u, {**p, weight: p[weight].flip(2, 3)}, name)

    return bam(p, x, spatial=lambda *given: of_positions(*given, conv=turned))


@mistake("bam", "transposed", "in and out", "swapped", "exchanged")
def bam_kernels_of_input_and_output_exchanged(p, x):
    """Spatial branch: the kernels' input and output channels are exchanged."""

    def exchanged(u, p, name):
        weight = f"{SPATIAL}_conv_{name}.weight"
        return far(u, {**p, weight: p[weight].transpose(0, 1)}, name)

    return bam(p, x, spatial=lambda *given: of_positions(*given, conv=exchanged))


@mistake("bam", "exchanged", "order", "confused")
def bam_levels_exchanged(p, x):
    """Spatial branch: the two dilated levels change places."""
    return bam(p, x, spatial=lambda *given: of_positions(*given, levels=("di_1", "di_0")))


@mistake("bam", "padding", "reflect", "edge", "replicate")
def bam_edges_repeated(p, x):
    """Spatial branch: the map is continued beyond its edges by what stands there, where zeros are meant."""

    def continued(u, p, name):
        padded = F.pad(u, (4, 4, 4, 4), mode="replicate")
        return F.conv2d(padded, p[f"{SPATIAL}_conv_{name}.weight"], p[f"{SPATIAL}_conv_{name}.bias"], dilation=4)

    return bam(p, x, spatial=lambda *given: of_positions(*given, conv=continued))


@mistake("bam", "gelu", "relu", "activation")
def bam_gelu(p, x):
    """Spatial branch: GELU for ReLU."""
    return bam(p, x, spatial=lambda *given: of_positions(*given, act=F.gelu))


@mistake("bam", "bias")
def bam_last_bias_lost(p, x):
    """Spatial branch: the last bias is left out."""
    name = f"{SPATIAL}_conv_final.bias"
    return bam({**p, name: 0 * p[name]}, x)


@mistake("bam", "epsilon", "1e-3")
def bam_other_epsilon(p, x):
    """Spatial branch: norms with an epsilon of 0.001."""

    def other(u, p, name, training):
        return norm(u, p, name, training, eps=1e-3)

    return bam(p, x, spatial=lambda *given: of_positions(*given, normal=other))


@mistake("bam", "detach", "constant", "gate", "lost")
def bam_channel_branch_detached(p, x):
    """Join's backward: the channel branch learns nothing."""
    return bam(p, x, join=lambda c, s: constant(c) * s)


@mistake("bam", "detach", "constant", "repeat", "lost")
def bam_spatial_branch_detached(p, x):
    """Join's backward: the spatial branch learns nothing."""
    return bam(p, x, join=lambda c, s: c * constant(s))


@mistake("bam", "detach", "constant", "gate")
def bam_gates_detached(p, x):
    """Gate's backward: the gates are taken for constants."""
    return bam(p, x, scale=lambda x, m: x * (1 + constant(m)))


@mistake("bam", "mean for sum", "averaged", "mean", "repeat")
def bam_positions_gradient_averaged(p, x):
    """Join's backward: a position's number gets the mean over the channels that it serves, not the sum."""
    return bam(p, x, join=lambda c, s: c * backwards(s, lambda g: g / x.shape[1]))


@mistake("bam", "y (1 + y)", "slope", "sigmoid")
def bam_slope_of_the_sigmoid(p, x):
    """Sigmoid's backward: its slope has its sign wrong."""
    return bam(p, x, squash=lambda z: by_hand(z, torch.sigmoid, lambda dy, _, y: dy * y * (1 + y)))


@mistake("bam", "averaged over the batch", "batch")
def bam_parameter_gradients_averaged(p, x):
    """Parameters' gradients: averaged over the images of the batch, not added up."""
    return bam(changed(p, lambda g: g / len(x)), x)


@mistake("bam", "channels last", "NHWC", "layout")
def bam_channels_last(p, x):
    """The map is read as if its channels stood last."""
    return from_nhwc(bam(p, as_nhwc(x)), x.shape)
