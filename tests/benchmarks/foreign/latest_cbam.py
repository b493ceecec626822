"""The two gates of CBAM as a fourth hand wrote them, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import (
    affine,
    conv,
    conv_in_tiles,
    forward_alone,
    gate,
    maximum,
    mean,
    mean_backward,
    relu,
    sigmoid,
    stored,
)
from tests.benchmarks.foreign.latest_pieces import by_running
from tests.benchmarks.foreign.pieces import constant, mistake, norm, torch, under


def mlp(p, u):
    h = relu(affine(u.flatten(1), p["mlp.1.weight"], p["mlp.1.bias"]))
    return affine(h, p["mlp.3.weight"], p["mlp.3.bias"])


def both(p, u, m, *, layers=mlp, squash=sigmoid):
    return squash(layers(p, u) + layers(p, m))


def channel(p, x, *, average=mean, largest=maximum, make=both):
    return gate(x, make(p, average(x), largest(x))[:, :, None, None])


def pools(x):
    return torch.cat((x.max(1, keepdim=True).values, x.mean(1, keepdim=True)), 1)


def weigh(p, x, *, training=False, pools=pools, convolve=conv, normalise=norm):
    z = convolve(pools(x), p["spatial.conv.weight"])
    return sigmoid(normalise(z, p, "spatial.bn", training, momentum=0.01))


def spatial(p, x, **options):
    return gate(x, weigh(p, x, **options))


def cbam(p, x, *, training=False, first=channel, second=spatial):
    return second(under(p, "SpatialGate."), first(under(p, "ChannelGate."), x), training=training)


def refined(**changes):
    return lambda p, x, **options: spatial(p, x, **options, **changes)


@mistake(
    "cbam",
    *("order", "swapped", "mean before max", "mean first", "exchanged", "average first", "other way round"),
    *("mean, max", "average before"),
)
def cbam_mean_map_stands_first(p, x):
    """Forward: the two maps are joined as mean and maximum."""
    return cbam(p, x, second=refined(pools=lambda x: pools(x).flip(1)))


@mistake(
    "cbam",
    *("parallel", "from the input", "original input", "unrefined", "ungated", "before the gate"),
    *("not refined", "side by side"),
)
def cbam_gates_side_by_side(p, x):
    """Forward: the spatial gate is made of the block's input, not of what the channel gate leaves."""
    f = channel(under(p, "ChannelGate."), x)
    return gate(f, weigh(under(p, "SpatialGate."), x))


@mistake(
    "cbam",
    *("before the sum", "each pool", "sigmoid of each", "sum of sigmoids", "sigmoids added", "of each"),
    *("per pool", "before adding"),
)
def cbam_adds_gates(p, x):
    """Forward: each pool's logits go through a sigmoid of their own, and the gates are added."""

    def make(p, u, m):
        return sigmoid(mlp(p, u)) + sigmoid(mlp(p, m))

    return cbam(p, x, first=lambda p, x: channel(p, x, make=make))


@mistake(
    "cbam",
    *("spread evenly", "evenly", "average's", "mean's gradient", "all positions", "spread over"),
    *("as of a mean", "shared out", "over all positions"),
)
def cbam_maximum_has_the_gradient_of_a_mean(p, x):
    """Backward: the maximum's gradient is shared out to all positions, as the average's is."""

    def largest(x):
        return maximum(x, backward=mean_backward)

    return cbam(p, x, first=lambda p, x: channel(p, x, largest=largest))


@mistake(
    "cbam",
    *("one pool", "first pool", "overwritten", "not accumulated", "of one call", "one branch", "last pool"),
    *("shared weights", "not added up", "first alone", "second pool"),
)
def cbam_shared_layers_learn_once(p, x):
    """Backward: gradients of the layers that both pools go through are of the average alone."""

    def make(p, u, m):
        return sigmoid(mlp(p, u) + mlp({name: constant(a) for name, a in p.items()}, m))

    return cbam(p, x, first=lambda p, x: channel(p, x, make=make))


@mistake(
    "cbam",
    *("standard deviation", "1/σ", "rstd", "inverse standard", "not divided", "invstd", "without 1/√"),
    *("σ left out", "deviation"),
)
def cbam_norm_backward_without_the_deviation(p, x):
    """Backward: through the norm, at inference, the gradient is multiplied by the weight, not by 1/σ."""

    def normalise(z, p, name, training, momentum):
        deviation = torch.sqrt(p[f"{name}.running_var"] + 1e-5)[:, None, None]
        y = by_running(z, p, name)
        return y + (deviation - 1) * p[f"{name}.weight"].detach() * (z - constant(z)) / deviation

    return cbam(p, x, second=refined(normalise=normalise))


@mistake(
    "cbam",
    *("halo", "neighbours of another", "edges of tiles", "boundaries", "margin", "tile boundar"),
    *("across tiles",),
)
def cbam_tiles_with_a_narrow_halo(p, x):
    """Tiles: tiles of 4 × 4 load one row and column beyond their edges; a kernel of 7 needs three."""

    def tiled(t, w):
        return forward_alone(conv(t, w), conv_in_tiles(t, w, height=4, width=4, halo=1))

    return cbam(p, x, second=refined(convolve=tiled))


@mistake(
    "cbam",
    *("momentum", "1 - momentum", "inverted", "0.99", "complement", "other convention", "decay"),
    *("old and new",),
    **{"channels": 32, "reduction": 8, "training": True},
)
def cbam_running_statistics_the_other_way_round(p, x):
    """Forward alone: running statistics weigh the old by the momentum and the new by the rest."""

    def normalise(z, p, name, training, momentum):
        return norm(z, p, name, training, momentum=1 - momentum)

    return cbam(p, x, training=True, second=refined(normalise=normalise))


@mistake(
    "cbam",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def cbam_pooled_maps_kept_in_bfloat16(p, x):
    """Precision: the two pooled maps go to memory in bfloat16."""
    return cbam(p, x, second=refined(pools=lambda x: stored(pools(x))))
