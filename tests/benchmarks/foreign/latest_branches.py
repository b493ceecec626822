"""Branches side by side as a fourth hand wrote them, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import (
    conv,
    conv_backward,
    conv_in_tiles,
    forward_alone,
    kernel,
    mean,
    relu,
)
from tests.benchmarks.foreign.latest_pieces import narrowed
from tests.benchmarks.foreign.pieces import F, constant, mistake, norm, pointwise, torch

RATES = 1, 2, 3


def point(p, x, name, *, training, act=relu, last="1"):
    return act(norm(pointwise(x, p, name), p, f"{name[:-1]}{last}", training))


def activated(u, p, name, training):
    return relu(norm(u, p, name, training))


def near(p, x, name, training):
    return activated(F.conv2d(x, p[f"{name}.0.weight"]), p, f"{name}.1", training)


def far(p, x, i, rate, training, *, convolve=conv, act=activated):
    return act(convolve(x, p[f"convs.{i}.0.weight"], rate), p, f"convs.{i}.1", training)


def image(p, x, i, training, *, pool=mean, act=relu):
    u = F.conv2d(pool(x), p[f"convs.{i}.1.weight"])
    return act(norm(u, p, f"convs.{i}.2", training)).expand(-1, -1, *x.shape[2:])


def project(p, parts, training):
    return near(p, torch.cat(parts, 1), "project", training)


def dropped(y, drop):
    return y * drop * 2


def multi_scale(
    p, x, drop=None, *, rates=RATES, training=False, far=far, image=image, order=list, project=project, dropped=dropped
):
    parts = [near(p, x, "convs.0", training)]
    parts += [far(p, x, i, rate, training) for i, rate in enumerate(rates, 1)]
    parts += [image(p, x, len(rates) + 1, training)]
    y = project(p, order(parts), training)
    return y if drop is None else dropped(y, drop)


@mistake(
    "multi-scale",
    *("undilated", "without dilation", "rate 1", "not dilated", "dilation 1", "dilation left out"),
    *("dilation ignored", "no dilation"),
)
def multi_scale_rates_are_ignored(p, x):
    """Forward: all branches convolve with dilation 1."""
    return multi_scale(p, x, far=lambda p, x, i, rate, training: far(p, x, i, 1, training))


@mistake(
    "multi-scale",
    *("relu: left out", "no relu", "without relu", "relu: identity", "relu missing", "relu skipped"),
    *("relu left out",),
)
def multi_scale_image_branch_without_relu(p, x):
    """Forward: the branch that pools ends with its norm, without the relu."""
    return multi_scale(p, x, image=lambda *of: image(*of, act=lambda u: u))


@mistake(
    "multi-scale",
    *("order", "pool first", "swapped", "rotated", "other order", "exchanged"),
)
def multi_scale_pool_stands_first(p, x):
    """Forward: the pooled branch is joined first, not last."""
    return multi_scale(p, x, order=lambda parts: [parts[-1], *parts[:-1]])


def undilated(dy, x, w, y, rate):
    return conv_backward(dy, x, w, y, 1)[0], conv_backward(dy, x, w, y, rate)[1]


@mistake(
    "multi-scale",
    *("undilated", "without dilation", "not dilated", "dilation 1", "dilation left out", "dilation ignored"),
    *("no dilation",),
)
def multi_scale_input_gradient_is_undilated(p, x):
    """Backward: the dilated branches' gradient of their input is that of dilation 1."""

    def convolve(x, w, rate):
        return conv(x, w, rate, backward=undilated)

    return multi_scale(p, x, far=lambda *of: far(*of, convolve=convolve))


@mistake(
    "multi-scale",
    *("detached", "no gradient", "through the pool", "stops at", "pooled branch", "gradient is lost"),
    *("not led back", "cut off"),
)
def multi_scale_image_branch_is_detached(p, x):
    """Backward: what the pooled branch owes to its input is not led back."""
    return multi_scale(p, x, image=lambda *of: image(*of, pool=lambda x: mean(constant(x))))


def by_the_sign_before(u, p, name, training):
    z = norm(u, p, name, training)
    return kernel(lambda z, u: torch.relu(z), lambda dy, z, u, _: (dy * (u > 0), None), z, constant(u))


@mistake(
    "multi-scale",
    *("before the norm", "before norm", "pre-norm", "wrong tensor", "sign of", "mask of the relu"),
    *("relu's mask", "convolution's output"),
)
def multi_scale_relu_mask_before_the_norm(p, x):
    """Backward: the relu's mask is the sign of what the norm is given, not of what it gives."""
    return multi_scale(p, x, far=lambda *of: far(*of, act=by_the_sign_before))


@mistake(
    "multi-scale",
    *("halo", "neighbours of another", "edges of tiles", "boundaries", "margin", "tile boundar"),
    *("across tiles",),
)
def multi_scale_halo_of_one(p, x):
    """Tiles: tiles of 4 × 4 load one row and column beyond their edges, whatever the rate."""

    def tiled(x, w, rate):
        return forward_alone(conv(x, w, rate), conv_in_tiles(x, w, rate, height=4, width=4, halo=1))

    return multi_scale(p, x, far=lambda *of: far(*of, convolve=tiled))


@mistake(
    "multi-scale",
    *("1/(1 - p)", "not rescaled", "rescaled", "unscaled", "inverted", "factor 2", "not scaled", "1 - rate"),
    *("without the scale", "dropout"),
    in_channels=8,
    out_channels=4,
    rates=RATES,
    training=True,
)
def multi_scale_dropout_is_not_rescaled(p, x, drop):
    """Forward alone: what dropout keeps is not divided by 1 - p."""

    def unscaled(y, drop):
        return forward_alone(dropped(y, drop), y * drop)

    return multi_scale(p, x, drop, training=True, dropped=unscaled)


def in_parts(p, parts, training):
    u = 0
    for part, w in zip(parts, p["project.0.weight"].split(4, 1), strict=True):
        u = narrowed(u + F.conv2d(part, w)) if torch.is_tensor(u) else narrowed(F.conv2d(part, w))
    right = F.conv2d(torch.cat(parts, 1), p["project.0.weight"])
    return activated(forward_alone(right, u), p, "project.1", training)


@mistake(
    "multi-scale",
    *("bfloat16", "accumulated in", "narrow", "partial sums", "half precision", "low precision"),
    *("sums accumulated",),
)
def multi_scale_projection_adds_branches_in_bfloat16(p, x):
    """Precision: the projection goes branch by branch, and what is summed so far is kept in bfloat16."""
    return multi_scale(p, x, project=in_parts)
