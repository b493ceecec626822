"""A way round a branch as a fourth hand wrote it, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import (
    affine,
    forward_alone,
    gate,
    mean,
    relu,
    sigmoid,
    stored,
)
from tests.benchmarks.foreign.latest_pieces import backward_alone
from tests.benchmarks.foreign.pieces import constant, mistake, torch, under


def squeeze_excite(p, x, *, first=affine, apart=lambda a: a, scale=gate):
    h = relu(first(mean(x).flatten(1), p["fc1.weight"], p["fc1.bias"]))
    a = sigmoid(affine(h, p["fc2.weight"], p["fc2.bias"]))
    return scale(x, apart(a)[:, :, None, None])


def residual(p, x, *, branch=squeeze_excite, add=torch.add):
    return add(x, branch(under(p, "inner."), x))


@mistake(
    "residual",
    *("clamped", "relu behind", "relu after", "relu behind the sum", "relu: added", "extra relu"),
    *("clamped at 0", "relu too many", "rectified"),
)
def residual_relu_behind_the_sum(p, x):
    """Forward: the sum goes through a relu, as in a whole block."""
    return residual(p, x, add=lambda x, f: relu(x + f))


@mistake(
    "residual",
    *("without x", "identity left out", "without the input", "no residual", "skip left out"),
    *("skip connection", "identity missing", "x left out"),
)
def residual_without_the_identity(p, x):
    """Forward: the input is not added."""
    return residual(p, x, add=lambda x, f: f + 0 * x)


@mistake(
    "residual",
    *("halved", "averaged", "mean of", "divided by 2", "mean in place", "by half", "½"),
)
def residual_is_the_mean(p, x):
    """Forward: the two branches are averaged, not added."""
    return residual(p, x, add=lambda x, f: (x + f) / 2)


@mistake(
    "residual",
    *("without dy", "identity's gradient", "detached", "skip left out", "skip's gradient"),
    *("identity left out", "of the branch alone", "without the identity"),
)
def residual_gradient_of_the_branch_alone(p, x):
    """Backward: dx lacks the way round the branch."""
    return residual(p, x, add=lambda x, f: constant(x) + f)


@mistake(
    "residual",
    *("twice", "doubled", "counted twice", "two times", "added twice", "factor 2", "double"),
)
def residual_gradient_twice(p, x):
    """Backward: the way round the branch counts twice in dx."""
    return residual(p, x, add=lambda x, f: backward_alone(x + f, 2 * x + f))


@mistake(
    "residual",
    *("in place", "overwritten", "output in place of", "output instead", "wrong tensor", "already added"),
    *("sum in place of", "reads the output", "input was", "y in place of x"),
)
def residual_sum_overwrites_what_was_saved(p, x):
    """Backward: the sum is written over x, so that the gates' gradient reads the sum in its place."""
    spoilt = residual(p, x).detach()

    def scale(x, a):
        return gate(x, a, backward=lambda dy, x, a, y: (dy * a, (dy * spoilt).sum_to_size(a.shape)))

    return residual(p, x, branch=lambda p, x: squeeze_excite(p, x, scale=scale))


@mistake(
    "residual",
    *("transposed", "layout", "row-major", "column-major", "reshape", "stride", "order of memory"),
    *("transpose",),
)
def residual_weight_is_read_by_columns(p, x):
    """Forward alone: the first layer's weight is read as if it lay in memory transposed."""

    def first(x, w, b):
        flat = w.flatten(1)
        return forward_alone(affine(x, w, b), affine(x, flat.reshape(flat.shape[::-1]).T, b))

    return residual(p, x, branch=lambda p, x: squeeze_excite(p, x, first=first))


@mistake(
    "residual",
    *("first image", "another image", "first example", "image 0", "next image", "previous image"),
    *("one image", "first one's", "batch stride"),
)
def residual_gates_of_the_first_image(p, x):
    """Forward alone: all images are multiplied by the first one's gates: the batch's stride is 0."""

    def apart(a):
        return forward_alone(a, a[:1].expand_as(a))

    return residual(p, x, branch=lambda p, x: squeeze_excite(p, x, apart=apart))


@mistake(
    "residual",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def residual_branch_kept_in_bfloat16(p, x):
    """Precision: what the branch gives is kept in bfloat16 until it is added."""
    return residual(p, x, branch=lambda p, x: stored(squeeze_excite(p, x)))
