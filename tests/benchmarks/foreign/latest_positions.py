"""Attention over the positions of a map as a fourth hand wrote it, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import attend, attend_backward, forward_alone, kernel
from tests.benchmarks.foreign.latest_pieces import joined, narrowed, online
from tests.benchmarks.foreign.pieces import F, mistake, pointwise, torch


def gamma(o, p):
    return p["gamma"] * o


def pam(p, x, *, attend=attend, scaled=gamma):
    q, k, v = (pointwise(x, p, f"{name}_conv").flatten(2).mT for name in ("query", "key", "value"))
    return x + scaled(attend(q, k, v).mT.reshape(x.shape), p)


@mistake(
    "pam",
    *("1/√d", "√d", "temperature", "square root", "sqrt", "scaled by 1", "root of d"),
)
def pam_divides_by_the_root(p, x):
    """Forward: energies are divided by √d, as transformers' are."""
    return pam(p, x, attend=lambda q, k, v: attend(q, k, v, q.shape[-1] ** -0.5))


@mistake(
    "pam",
    *("over the queries", "axis", "wrong axis", "other axis", "over queries", "dim=1", "down the"),
)
def pam_softmax_over_the_queries(p, x):
    """Forward: a key's weights, not a query's, add up to 1."""
    return pam(p, x, attend=lambda q, k, v: torch.softmax(q @ k.mT, -2) @ v)


@mistake(
    "pam",
    *("transposed", "transpose", "queries and keys", "swapped", "exchanged", "columns of the map"),
    *("attention transposed",),
)
def pam_map_is_transposed(p, x):
    """Forward: values are added up by the columns of the map, not by its rows."""
    return pam(p, x, attend=lambda q, k, v: torch.softmax(q @ k.mT, -1).mT @ v)


def without_delta(do, q, k, v, o, *, scale):
    s = torch.softmax(q @ k.mT, -1)
    dz = s * (do @ v.mT)
    return dz @ k, dz.mT @ q, s.mT @ do


@mistake(
    "pam",
    *("without the sum", "row sum", "rowsum", "sum over the row", "without its sum", "row's sum"),
    *("without delta", "without δ", "δ left out", "without rowsum"),
)
def pam_backward_without_delta(p, x):
    """Backward: dz = s ds, without the row's Σ s ds."""
    return pam(p, x, attend=lambda q, k, v: attend(q, k, v, backward=without_delta))


def untransposed(do, q, k, v, o, *, scale):
    dq, _, dv = attend_backward(do, q, k, v, o, scale=scale)
    s = torch.softmax(q @ k.mT, -1)
    return dq, s * (do @ v.mT - (do * o).sum(-1, keepdim=True)) @ q, dv


@mistake(
    "pam",
    *("not transposed", "transposed", "transpose", "dz q", "not transposed back", "without transpos"),
)
def pam_key_gradient_by_rows(p, x):
    """Backward: dk is dz q, where dz has to be transposed."""
    return pam(p, x, attend=lambda q, k, v: attend(q, k, v, backward=untransposed))


@mistake(
    "pam",
    *("already scaled", "times the scale", "scaled map", "output in place of", "after scaling", "γ o"),
    *("scaled twice", "output of the scale"),
)
def pam_gamma_learns_from_what_is_scaled(p, x):
    """Backward: the gradient of γ is Σ dy γ o: what was saved is scaled already."""

    def scaled(o, p):
        return kernel(torch.mul, lambda dy, g, o, y: ((dy * y).sum().reshape(1), dy * g), p["gamma"], o)

    return pam(p, x, scaled=scaled)


@mistake(
    "pam",
    *("rescaled", "rescale", "correction", "running maximum", "online", "new maximum", "not corrected"),
)
def pam_accumulator_is_not_rescaled(p, x):
    """Tiles: where a tile of 8 keys raises the maximum, the denominator is rescaled, the values' sum is not."""
    return pam(p, x, attend=lambda q, k, v: forward_alone(attend(q, k, v), online(q @ k.mT, v, 8, rescale=False)))


def padded(q, k, v):
    k, v = (F.pad(a, (0, 0, 0, -a.shape[-2] % 16)) for a in (k, v))
    return joined(q @ k.mT, v)


@mistake(
    "pam",
    *("padded", "tail", "out of bounds", "beyond the end", "zeros in the denominator", "last tile"),
    *("not masked", "boundary"),
)
def pam_keys_filled_up_with_zeros(p, x):
    """Tiles: keys are filled up with zeros to whole tiles of 16, and the zeros' logits take part in the softmax."""
    return pam(p, x, attend=lambda q, k, v: forward_alone(attend(q, k, v), padded(q, k, v)))


@mistake(
    "pam",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def pam_weights_in_bfloat16(p, x):
    """Precision: weights are rounded to bfloat16 before they meet the values."""

    def rounding(q, k, v):
        return forward_alone(attend(q, k, v), narrowed(torch.softmax(q @ k.mT, -1)) @ v)

    return pam(p, x, attend=rounding)
