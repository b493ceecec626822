"""Gates by rows and columns as a fourth hand wrote them, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, gate, gate_backward, sigmoid, stored, whole
from tests.benchmarks.foreign.latest_pieces import FLAT, backward_alone, standardised
from tests.benchmarks.foreign.pieces import F, by_hand, mistake, norm, pointwise, torch

CODE = {"channels": 16, "training": True}


def directions(x):
    return x.mean(3, keepdim=True), x.mean(2, keepdim=True)


def join(p_h, p_w):
    return torch.cat((p_h, p_w.mT), 2)


def product(x, a_h, a_w):
    return gate(gate(x, a_h), a_w)


def coordinate(
    p,
    x,
    *,
    training=False,
    pool=directions,
    join=join,
    normalise=norm,
    act=F.hardswish,
    names=("h", "w"),
    weigh=product,
):
    f = act(normalise(pointwise(join(*pool(x)), p, "conv1"), p, "bn1", training))
    parts = f[:, :, : x.shape[2]], f[:, :, x.shape[2] :].mT
    return weigh(x, *(sigmoid(pointwise(part, p, f"conv_{name}")) for part, name in zip(parts, names, strict=True)))


@mistake(
    "coordinate",
    *("silu", "x sigmoid", "x σ(x)", "logistic sigmoid", "smooth swish", "hard_swish: swish"),
    *("swish in place", "logistic"),
)
def coordinate_by_the_smooth_swish(p, x):
    """Forward: x σ(x) stands for the hard swish."""
    return coordinate(p, x, act=F.silu)


@mistake(
    "coordinate",
    *("order", "swapped", "exchanged", "columns first", "width first", "other way round", "mixed up"),
    *("columns before rows",),
)
def coordinate_joins_columns_first(p, x):
    """Forward: columns are laid before rows, and split as if rows stood first."""
    return coordinate(p, x, join=lambda p_h, p_w: torch.cat((p_w.mT, p_h), 2))


@mistake(
    "coordinate",
    *("swapped", "exchanged", "each other's", "conv_w for conv_h", "other's weights", "wrong weights"),
    *("other branch", "other layer", "weights of the other"),
)
def coordinate_layers_change_places(p, x):
    """Forward: conv_w makes the rows' gate and conv_h the columns'."""
    return coordinate(p, x, names=("w", "h"))


def ramp(dv, v, _):
    return dv * F.relu6(v + 3) / 6


@mistake(
    "coordinate",
    *("product rule", "one term", "missing term", "second term", "relu6(x + 3) / 6", "as if the gate"),
    *("gate held", "held constant", "term x/6", "x/6"),
)
def coordinate_swish_gradient_of_the_ramp_alone(p, x):
    """Backward: of the hard swish's derivative only the term relu6(v + 3) / 6 is there."""
    return coordinate(p, x, act=lambda v: by_hand(v, F.hardswish, ramp))


@mistake(
    "coordinate",
    *("without the other gate", "other gate", "ungated", "x in place of", "input in place of", "not gated"),
    *("before the gate",),
)
def coordinate_gate_learns_from_the_ungated_map(p, x):
    """Backward: the columns' gate has the gradient Σ dy x, where the map was already gated by rows."""

    def weigh(x, a_h, a_w):
        def backward(dy, s, a, y):
            return gate_backward(dy, s, a, y)[0], (dy * x).sum_to_size(a.shape)

        return gate(gate(x, a_h), a_w, backward=backward)

    return coordinate(p, x, weigh=weigh)


def fixed(u, p, name, training):
    mean, variance = u.detach().mean(FLAT), u.detach().var(FLAT, correction=0)
    return backward_alone(norm(u, p, name, training), standardised(u, p, name, mean, variance))


@mistake(
    "coordinate",
    *("constants", "held constant", "as in inference", "detached", "through the mean", "mean and variance"),
    *("as at inference", "statistics held", "running statistics", "mean and var"),
    **CODE,
)
def coordinate_norm_backward_as_at_inference(p, x):
    """Backward: in training, mean and variance count as constants."""
    return coordinate(p, x, training=True, normalise=fixed)


@mistake(
    "coordinate",
    *("last row", "odd", "tail", "remainder", "whole tiles", "incomplete", "last tile"),
)
def coordinate_adds_rows_in_pairs(p, x):
    """Tiles: the columns' mean adds rows in pairs; the last of an odd number is left out, and counted."""

    def pool(x):
        p_h, p_w = directions(x)
        return p_h, forward_alone(p_w, x[:, :, : whole(x.shape[2], 2)].sum(2, keepdim=True) / x.shape[2])

    return coordinate(p, x, pool=pool)


def by_sample(u, p, name, training):
    found = standardised(u, p, name, u.mean(FLAT), u.var(FLAT))
    return forward_alone(norm(u, p, name, training), found)


@mistake(
    "coordinate",
    *("unbiased", "biased", "n - 1", "N - 1", "Bessel", "sample variance", "batch_norm: variance"),
    **CODE,
)
def coordinate_norm_by_the_unbiased_variance(p, x):
    """Forward alone: in training the variance that normalises is divided by n - 1."""
    return coordinate(p, x, training=True, normalise=by_sample)


@mistake(
    "coordinate",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def coordinate_gate_multiplied_in_bfloat16(p, x):
    """Precision: a_h a_w is made first, in bfloat16, and the map is multiplied by it."""
    return coordinate(p, x, weigh=lambda x, a_h, a_w: gate(x, stored(stored(a_h) * stored(a_w))))
