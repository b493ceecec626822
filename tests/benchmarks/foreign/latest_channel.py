"""Channel gates as a fourth hand wrote them, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import (
    affine,
    affine_backward,
    forward_alone,
    gate,
    gate_backward,
    kernel,
    mean,
    relu,
    rows,
    sigmoid,
    stored,
    whole,
)
from tests.benchmarks.foreign.latest_pieces import add_in_order
from tests.benchmarks.foreign.pieces import F, mistake, torch


def se(p, x, *, pool=mean, first=affine, act=relu, second=affine, squash=sigmoid, scale=gate):
    h = act(first(pool(x).flatten(1), p["fc1.weight"], p["fc1.bias"]))
    return scale(x, squash(second(h, p["fc2.weight"], p["fc2.bias"]))[:, :, None, None])


@mistake(
    "se",
    *("derivative at the logit", "of the logit", "logit in place of", "z (1 - z)", "pre-activation"),
)
def se_sigmoid_backward_reads_the_logit(p, x):
    """Backward: the sigmoid's derivative is s (1 - s) of what was saved, which is the logit."""
    return se(p, x, squash=lambda z: sigmoid(z, backward=lambda dy, z, y: (dy * z * (1 - z),)))


@mistake(
    "se",
    *("not divided", "undivided", "without 1/N", "1/HW", "without the 1/", "divisor", "sum in place of"),
)
def se_pool_backward_is_not_divided(p, x):
    """Backward: the pooled gradient is copied to the positions, undivided by their number."""
    return se(p, x, pool=lambda x: mean(x, backward=lambda dy, x, y: (dy.expand_as(x),)))


def bias_by_the_mean(dy, x, w, b, y):
    dx, dw, db = affine_backward(dy, x, w, b, y)
    return dx, dw, db / len(dy)


@mistake(
    "se",
    *("averaged over the batch", "mean over the batch", "divided by the batch", "mean in place of"),
)
def se_bias_gradients_are_averaged(p, x):
    """Backward: gradients of the biases are means over the batch, not sums."""
    first = second = lambda x, w, b: affine(x, w, b, backward=bias_by_the_mean)
    return se(p, x, first=first, second=second)


@mistake(
    "se",
    *("relu: left out", "no relu", "without relu", "relu left out", "without activation", "no activation"),
    *("relu: identity", "relu: skipped", "relu missing", "identity in place"),
)
def se_layers_follow_on_each_other(p, x):
    """Forward: no relu stands between the two layers."""
    return se(p, x, act=lambda h: h)


@mistake(
    "se",
    *("without bias", "no bias", "bias left out", "bias: left out", "without its bias", "bias missing"),
    *("bias is not added", "without the bias"),
)
def se_expands_without_its_bias(p, x):
    """Forward: the second layer's bias is not added."""
    return se(p, x, second=lambda x, w, b: affine(x, w, 0 * b))


@mistake(
    "se",
    *("1 + a", "one plus", "plus one", "x added", "residual", "plus x", "adds x", "added to x", "x + x"),
    *("a + 1",),
)
def se_gate_leaves_the_map_besides(p, x):
    """Forward: the map is multiplied by 1 + a."""
    return se(p, x, scale=lambda x, a: gate(x, 1 + a))


@mistake(
    "se",
    *("last tile", "tail", "remainder", "whole tiles", "incomplete", "last positions", "left out of the sum"),
    *("partial tile", "last block", "last elements"),
)
def se_pool_in_whole_tiles(p, x):
    """Tiles: the sum is over whole tiles of 8 positions, what is left over is skipped; divided by all."""

    def pool(x):
        r = rows(x)
        n = r.shape[2]
        return forward_alone(mean(x), (r[:, :, : whole(n, 8)].sum(2) / n)[:, :, None, None])

    return se(p, x, pool=pool)


@mistake(
    "se",
    *("hard_sigmoid", "hard sigmoid", "piecewise", "relu6", "linear approximation", "approximat"),
)
def se_fast_sigmoid(p, x):
    """Forward alone: relu6(z + 3) / 6 stands for the sigmoid, whose gradient is kept."""
    return se(p, x, squash=lambda z: forward_alone(sigmoid(z), F.hardsigmoid(z)))


@mistake(
    "se",
    *("accumulated in bfloat16", "bfloat16", "narrow accumulat", "half precision", "low precision", "narrow"),
    *("sums accumulated",),
)
def se_pool_adds_up_in_bfloat16(p, x):
    """Precision: the pool's sum is kept in bfloat16 from one position to the next."""
    return se(p, x, pool=lambda x: forward_alone(mean(x), add_in_order(rows(x))[:, :, None, None] / rows(x).shape[2]))


def slide(u, w, *, pad="constant"):
    margin = w.shape[2] // 2
    return F.conv1d(F.pad(u[:, None], (margin, margin), mode=pad), w)[:, 0]


def slide_backward(du, u, w, _, *, flip=True, turn=False):
    margin = w.shape[2] // 2
    near = F.pad(u, (margin, margin)).unfold(1, w.shape[2], 1)
    dw = torch.einsum("bc,bck->k", du, near).reshape(w.shape)
    return slide(du, w.flip(2) if flip else w), dw.flip(2) if turn else dw


def eca(p, x, *, pool=mean, slide=slide, squash=sigmoid, scale=gate):
    a = squash(slide(pool(x).flatten(1), p["conv.weight"]))
    return scale(x, a[:, :, None, None])


@mistake(
    "eca",
    *("flipped", "flip", "reversed", "true convolution", "mirrored", "rotated", "back to front", "turned"),
)
def eca_convolves_by_the_book(p, x):
    """Forward: a convolution in the mathematical sense: the kernel is turned round."""
    return eca(p, x, slide=lambda u, w: slide(u, w.flip(2)))


@mistake(
    "eca",
    *("circular", "wraps", "wrap", "cyclic", "periodic", "other end", "modulo"),
)
def eca_channels_in_a_ring(p, x):
    """Forward: padding is circular: the first channel has the last for a neighbour."""
    return eca(p, x, slide=lambda u, w: slide(u, w, pad="circular"))


@mistake(
    "eca",
    *("replicate", "edge repeated", "repeats the edge", "edge value", "clamp", "border repeated", "clamped"),
)
def eca_index_is_clamped(p, x):
    """Forward: beyond the first and last channel the index is clamped, where zeros belong."""
    return eca(p, x, slide=lambda u, w: slide(u, w, pad="replicate"))


@mistake(
    "eca",
    *("weight's gradient flipped", "flipped", "reversed", "back to front", "mirrored", "turned"),
    *("gradient flipped", "taps reversed"),
)
def eca_weight_gradient_back_to_front(p, x):
    """Backward: the taps' gradients are stored in the reverse order."""

    def backward(*of):
        return slide_backward(*of, turn=True)

    return eca(p, x, slide=lambda u, w: kernel(slide, backward, u, w))


@mistake(
    "eca",
    *("not flipped", "unflipped", "flip", "not reversed", "not transposed", "transposed convolution"),
    *("correlates again", "same kernel", "correlation in place of"),
)
def eca_input_gradient_by_the_same_kernel(p, x):
    """Backward: the kernel is not turned round for the gradient of the input."""

    def backward(*of):
        return slide_backward(*of, flip=False)

    return eca(p, x, slide=lambda u, w: kernel(slide, backward, u, w))


@mistake(
    "eca",
    *("mean in place of", "averaged over the positions", "mean over the positions", "divided by the number"),
    *("averaged", "mean instead", "mean over its positions"),
)
def eca_gate_gradient_is_averaged(p, x):
    """Backward: the gate's gradient is the mean over the positions, not the sum."""

    def backward(dy, x, a, y):
        dx, da = gate_backward(dy, x, a, y)
        return dx, da / (x.shape[2] * x.shape[3])

    return eca(p, x, scale=lambda x, a: gate(x, a, backward=backward))


@mistake(
    "eca",
    *("rounded up", "padded", "next multiple", "padding counted", "divisor", "block size", "wrong count"),
)
def eca_mean_by_the_padded_size(p, x):
    """Tiles: the sum is divided by the number of positions rounded up to whole tiles of 8."""

    def pool(x):
        n = rows(x).shape[2]
        return mean(x) * (n / -(-n // 8 * 8))

    return eca(p, x, pool=pool)


@mistake(
    "eca",
    *("halo", "across the boundary", "neighbours of another", "boundaries", "edges of tiles", "neighbour"),
    *("tile boundar", "across tiles"),
)
def eca_channels_in_blocks_without_halo(p, x):
    """Tiles: blocks of 8 channels are convolved by themselves, with zeros round each."""

    def blocks(u, w):
        return forward_alone(slide(u, w), torch.cat([slide(part, w) for part in u.split(8, 1)], 1))

    return eca(p, x, slide=blocks)


@mistake(
    "eca",
    *("bfloat16", "stored in", "narrow", "half precision", "low precision"),
)
def eca_gates_kept_in_bfloat16(p, x):
    """Precision: gates are handed over in bfloat16 to the kernel that multiplies."""
    return eca(p, x, squash=lambda z: stored(sigmoid(z)))
