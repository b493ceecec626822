"""Channel attention of DANet, and mistakes in it."""

from functools import partial

from tests.benchmarks.foreign.pieces import (
    as_nhwc,
    constant,
    from_nhwc,
    mistake,
    scaled_residual,
    torch,
    weights,
    without_rowsum,
)


def gram(v):
    return v @ v.transpose(1, 2)


def turned(g):
    return weights(g.amax(-1, keepdim=True) - g)


WEIGHTS = {"paper": weights, "code": turned}


def cam(p, x, variant="paper", *, compare=gram, weigh=None, gather=lambda v, s: s @ v, add=scaled_residual):
    v = x.flatten(2)
    s = (weigh or WEIGHTS[variant])(compare(v))
    return add(x, gather(v, s).reshape(x.shape), p["gamma"])


@mistake("cam", "max", "softmin", "dissimilar", "code")
def cam_maximum_less_energy(p, x):
    """Softmax: of the maximum less the affinity, as in the released code, where the paper's form is asked for."""
    return cam(p, x, weigh=turned)


@mistake("cam", "axis", "columns", "softmax over")
def cam_softmax_over_the_rows(p, x):
    """Softmax: along the first axis of the affinities."""
    return cam(p, x, weigh=lambda g: torch.softmax(g, 1))


@mistake("cam", "transpose", "map")
def cam_map_transposed(p, x):
    """Mixture: the transposed map multiplies the rows."""
    return cam(p, x, gather=lambda v, s: s.transpose(1, 2) @ v)


@mistake("cam", "scale", "number of positions", "square root", "divided")
def cam_affinities_scaled(p, x):
    """Affinities: divided by √N."""
    return cam(p, x, compare=lambda v: gram(v) / v.shape[2] ** 0.5)


@mistake("cam", "cosine", "normalis", "norm")
def cam_affinities_of_unit_rows(p, x):
    """Affinities: cosines; the rows are divided by their length."""
    return cam(p, x, compare=lambda v: gram(torch.nn.functional.normalize(v, dim=2)))


@mistake("cam", "centred", "covariance", "mean")
def cam_affinities_of_centred_rows(p, x):
    """Affinities: of rows less their mean, a covariance."""
    return cam(p, x, compare=lambda v: gram(v - v.mean(2, keepdim=True)))


@mistake("cam", "gamma", "residual")
def cam_gamma_on_the_residual_too(p, x):
    """Output: γ (x + e)."""
    return cam(p, x, add=lambda x, e, gamma: gamma * (x + e))


@mistake("cam", "residual", "skip", "input")
def cam_residual_lost(p, x):
    """Output: γ e alone."""
    return cam(p, x, add=lambda x, e, gamma: gamma * e)


@mistake("cam", "gram", "one factor", "half", "detach", "once")
def cam_gram_backward_through_one_factor(p, x):
    """Affinities' backward: the gradient through one of the two factors is left out: dg v, not (dg + dgᵀ) v."""
    return cam(p, x, compare=lambda v: v @ constant(v).transpose(1, 2))


@mistake("cam", "gram", "twice", "symmetric", "doubled")
def cam_gram_backward_twice_one_factor(p, x):
    """Affinities' backward: 2 dg v, as if dg were symmetric."""

    def compare(v):
        g = v @ constant(v).transpose(1, 2)
        return 2 * g - constant(g)

    return cam(p, x, compare=compare)


@mistake("cam", "detach", "map", "constant", "affinit")
def cam_map_detached(p, x):
    """Mixture's backward: no gradient reaches the affinities."""
    return cam(p, x, gather=lambda v, s: constant(s) @ v)


@mistake("cam", "detach", "mixture", "rows", "value")
def cam_rows_detached_in_the_mixture(p, x):
    """Mixture's backward: the rows that are mixed get no gradient."""
    return cam(p, x, gather=lambda v, s: s @ constant(v))


@mistake("cam", "rowsum", "row sum", "delta", "softmax")
def cam_softmax_backward_without_the_rowsum(p, x):
    """Softmax's backward: without the sum over the row."""
    return cam(p, x, weigh=without_rowsum)


@mistake("cam", "channels last", "NHWC", "layout")
def cam_map_read_as_nhwc(p, x):
    """Layout: the map's memory, NCHW, is read and written as NHWC."""
    return from_nhwc(cam(p, as_nhwc(x)), x.shape)


@mistake("cam", "positions", "axis", "layout", "heads")
def cam_position_by_position(p, x):
    """Affinities: of positions, as in position attention, by which the positions are mixed."""
    return cam(p, x, compare=lambda v: v.transpose(1, 2) @ v, gather=lambda v, s: v @ s.transpose(1, 2))


@mistake("cam", "batch", "first image", "averaged over the batch")
def cam_affinities_of_the_whole_batch(p, x):
    """Affinities: averaged over the images."""
    return cam(p, x, compare=lambda v: gram(v).mean(0, keepdim=True))


CODE = {"channels": 16, "variant": "code"}
in_code = partial(cam, variant="code")


@mistake("cam", "max", "softmin", "similar", "paper", **CODE)
def cam_energy_as_in_the_paper(p, x):
    """Softmax: of the affinity itself, where the released code turns it round."""
    return in_code(p, x, weigh=weights)


@mistake("cam", "max", "whole", "axis", **CODE)
def cam_turned_by_the_column(p, x):
    """Softmax: the maximum that the affinity is taken from goes along the column, so that it does not cancel."""
    return in_code(p, x, weigh=lambda g: weights(g.amax(1, keepdim=True) - g))


@mistake("cam", "sign", "backward", "softmin", **CODE)
def cam_sign_lost_in_backward(p, x):
    """Turning's backward: the minus before the affinity is forgotten."""

    def weigh(g):
        return weights(constant(g.amax(-1, keepdim=True) - 2 * g) + g)

    return in_code(p, x, weigh=weigh)
