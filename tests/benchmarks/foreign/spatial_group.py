"""Spatial group-wise enhance, and mistakes in it."""

from tests.benchmarks.foreign.pieces import as_nhwc, backwards, by_hand, changed, constant, from_nhwc, mistake, torch

GROUPS = 8


def cut(x):
    return x.reshape(x.shape[0] * GROUPS, -1, *x.shape[2:])


def mean(v):
    return v.mean((2, 3), keepdim=True)


def dot(v, p):
    return (v * p).sum(1)


def centre(s):
    return s - s.mean((1, 2), keepdim=True)


def deviation(d):
    return d.pow(2).sum((1, 2), keepdim=True).div(d[0].numel() - 1).sqrt()


def quotient(d, s):
    return d / (s + 1e-5)


def affine(n, p):
    return n * p["weight"] + p["bias"]


def weigh(v, a):
    return v * a


def sge(
    p,
    x,
    *,
    parts=cut,
    average=mean,
    match=dot,
    centred=centre,
    spread=deviation,
    divide=quotient,
    learnt=affine,
    squash=torch.sigmoid,
    scale=weigh,
):
    v = parts(x)
    d = centred(match(v, average(v)))
    n = divide(d, spread(d)).reshape(len(x), GROUPS, *x.shape[2:])
    return scale(v, squash(learnt(n, p)).reshape(-1, 1, *x.shape[2:])).reshape(x.shape)


@mistake("sge", "N - 1", "biased", "population")
def sge_population_deviation(p, x):
    """Deviation: of the squares' mean, over N and not N - 1."""
    return sge(p, x, spread=lambda d: d.pow(2).mean((1, 2), keepdim=True).sqrt())


@mistake("sge", "no root", "variance")
def sge_variance(p, x):
    """Deviation: its root is not taken."""
    return sge(p, x, spread=lambda d: deviation(d) ** 2)


@mistake("sge", "sum for variance", "not divided")
def sge_sum_of_squares(p, x):
    """Deviation: the sum of squares is never divided."""
    return sge(p, x, spread=lambda d: d.pow(2).sum((1, 2), keepdim=True).sqrt())


@mistake("sge", "mean not subtracted", "centred", "mean subtracted in the deviation alone")
def sge_not_centred(p, x):
    """Score: the mean is subtracted for the deviation alone."""
    return sge(p, x, centred=lambda s: s, spread=lambda s: deviation(centre(s)))


@mistake("sge", "mean subtracted alone", "not divided", "deviation left out")
def sge_not_scaled(p, x):
    """Score: centred, and never divided by the deviation."""
    return sge(p, x, divide=lambda d, s: d)


@mistake("sge", "left out", "not normal")
def sge_likeness_as_it_is(p, x):
    """Score: left out; the likeness itself is scaled and shifted."""
    return sge(p, x, centred=lambda s: s, divide=lambda d, s: d)


@mistake("sge", "epsilon", "1e-")
def sge_large_epsilon(p, x):
    """Score: an epsilon of 0.01."""
    return sge(p, x, divide=lambda d, s: d / (s + 1e-2))


@mistake("sge", "all rows", "whole image", "statistics")
def sge_statistics_of_the_image(p, x):
    """Mean and deviation: of all groups of all images together."""
    return sge(p, x, centred=lambda s: s - s.mean(), spread=lambda d: (d.pow(2).sum() / (d.numel() - 1)).sqrt())


@mistake("sge", "max", "average")
def sge_maximum(p, x):
    """Average: the maximum in its place."""
    return sge(p, x, average=lambda v: v.amax((2, 3), keepdim=True))


@mistake("sge", "interleaved", "strided", "transposed", "shuffle", "order")
def sge_groups_interleaved(p, x):
    """Groups: of channels that stand apart by their number."""
    order = torch.arange(x.shape[1]).reshape(-1, GROUPS).T.flatten()
    return sge(p, x[:, order])[:, torch.argsort(order)]


@mistake("sge", "weight lost", "left out", "weight")
def sge_weight_lost(p, x):
    """Scale: left out."""
    return sge(p, x, learnt=lambda n, p: n + 0 * p["weight"] + p["bias"])


@mistake("sge", "bias", "left out")
def sge_bias_lost(p, x):
    """Shift: left out."""
    return sge(p, x, learnt=lambda n, p: n * p["weight"] + 0 * p["bias"])


@mistake("sge", "exchanged", "confused", "weight", "bias")
def sge_weight_and_bias_exchanged(p, x):
    """Scale and shift: each in the other's place."""
    return sge(p, x, learnt=lambda n, p: n * p["bias"] + p["weight"])


@mistake("sge", "hard", "sigmoid")
def sge_hard_sigmoid(p, x):
    """Gate: hard sigmoid for the logistic one."""
    return sge(p, x, squash=torch.nn.functional.hardsigmoid)


@mistake("sge", "hyperbolic tangent", "tanh")
def sge_tanh(p, x):
    """Gate: tanh for the sigmoid."""
    return sge(p, x, squash=torch.tanh)


@mistake("sge", "residual", "1 +", "one added", "input added")
def sge_residual(p, x):
    """Gate: the input is added once more."""
    return sge(p, x, scale=lambda v, a: v + v * a)


@mistake("sge", "mean constant", "detach")
def sge_mean_constant(p, x):
    """Score's backward: no gradient through the mean."""
    return sge(p, x, centred=lambda s: s - constant(s.mean((1, 2), keepdim=True)))


@mistake("sge", "deviation constant", "detach", "variance constant")
def sge_deviation_constant(p, x):
    """Score's backward: no gradient through the deviation."""
    return sge(p, x, spread=lambda d: constant(deviation(d)))


@mistake("sge", "detach", "matmul", "average", "lost", "global_average_pool")
def sge_average_detached(p, x):
    """Likeness's backward: the average is taken for a constant."""
    return sge(p, x, average=lambda v: constant(mean(v)))


@mistake("sge", "detach", "map", "matmul", "lost")
def sge_map_detached_where_it_is_compared(p, x):
    """Likeness's backward: the map is taken for a constant, beside the average."""
    return sge(p, x, match=lambda v, p: dot(constant(v), p))


@mistake("sge", "detach", "gate", "constant")
def sge_gate_detached(p, x):
    """Gate's backward: the gates are taken for constants."""
    return sge(p, x, scale=lambda v, a: v * constant(a))


@mistake("sge", "divided", "number of positions", "mean", "global_average_pool", "sum")
def sge_averages_gradient_not_divided(p, x):
    """Average's backward: every position gets the average's whole gradient."""
    return sge(p, x, average=lambda v: backwards(mean(v), lambda g: g * v[0, 0].numel()))


@mistake("sge", "y (1 + y)", "slope", "sigmoid")
def sge_slope_of_the_sigmoid(p, x):
    """Sigmoid's backward: its slope has its sign wrong."""
    return sge(p, x, squash=lambda z: by_hand(z, torch.sigmoid, lambda dy, _, y: dy * y * (1 + y)))


@mistake("sge", "averaged over the batch", "batch")
def sge_parameter_gradients_averaged(p, x):
    """Parameters' gradients: averaged over the images of the batch, not added up."""
    return sge(changed(p, lambda g: g / len(x)), x)


@mistake("sge", "channels last", "NHWC", "layout")
def sge_channels_last(p, x):
    """The map is read as if its channels stood last."""
    return from_nhwc(sge(p, as_nhwc(x)), x.shape)
