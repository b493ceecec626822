"""Linear maps in the place of attention, written as kernels by a third hand, and mistakes in them."""

from tests.benchmarks.foreign.fresh_pieces import forward_alone, rows, stored, whole
from tests.benchmarks.foreign.pieces import F, backwards, constant, mistake, norm, pointwise, torch
from tests.benchmarks.foreign.recent_pieces import gather, gather_backward, softmax, without_sum


def around(v, p, *, flip=(), bias=True):
    """The maps of position, (B, d, V, H, W), of the values around: (B, V, H, W)."""
    w = p["conv_lambda.weight"][..., 0].flip(flip)
    z = F.conv2d(v.flatten(0, 1)[:, None], w, p["conv_lambda.bias"] if bias else None, padding=w.shape[2] // 2)
    return z.unflatten(0, v.shape[:2]).transpose(1, 2)


def by_position(q, maps):
    return torch.einsum("bndij,bdvij->bnvij", q, maps)


def by_content(q, maps):
    return torch.einsum("bndij,bvd->bnvij", q, maps)


def of_one_image(y):
    """Lay a gradient out as its map is: PyTorch 2.13's batch norm reads that of one image otherwise than it stands."""
    if y.requires_grad:
        y.register_hook(torch.Tensor.contiguous)
    return y


def of_positions(k):
    return softmax(rows(k), 2)


def lambda_layer(
    p,
    x,
    *,
    heads=4,
    key_channels=4,
    training=False,
    norm=norm,
    weigh=of_positions,
    gather=gather,
    around=around,
    content=by_content,
    position=by_position,
    join=lambda o: o.flatten(1, 2),
):
    q, k, v = pointwise(x, p, "qkv").split((heads * key_channels, key_channels, x.shape[1] // heads), 1)
    q, v = of_one_image(norm(q, p, "norm_q", training)).unflatten(1, (heads, -1)), norm(v, p, "norm_v", training)
    return join(content(q, gather(weigh(k), rows(v))) + position(q, around(v, p)))


@mistake("lambda", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the channels", "other axis")
def lambda_softmax_over_the_channels(p, x):
    """Forward: the keys' softmax runs over their channels, not over the positions."""
    return lambda_layer(p, x, weigh=lambda k: softmax(rows(k), 1))


@mistake("lambda", "flipped", "true convolution", "cross-correlation", "kernel reversed", "mirrored")
def lambda_convolves_flipped(p, x):
    """Forward: the kernel over positions is laid on upside down."""
    return lambda_layer(p, x, around=lambda v, p: around(v, p, flip=(2, 3)))


@mistake("lambda", "transposed", "rows and columns", "swapped", "exchanged", "layout")
def lambda_kernel_transposed(p, x):
    """Forward: rows and columns of the kernel over positions are exchanged."""
    return lambda_layer(p | {"conv_lambda.weight": p["conv_lambda.weight"].transpose(2, 3)}, x)


@mistake("lambda", "interleaved", "order of the heads", "heads innermost", "layout", "reshape", "heads")
def lambda_heads_side_by_side(p, x):
    """Forward: in the output the channels of the heads alternate."""
    return lambda_layer(p, x, join=lambda o: o.transpose(1, 2).flatten(1, 2))


@mistake(
    "lambda", "batch_norm: left out", "norm left out", "without norm", "no norm", "norm missing", "batch_norm: missing"
)
def lambda_values_without_their_norm(p, x):
    """Forward: the values' norm is left out."""

    def queries_alone(a, p, name, training):
        return norm(a, p, name, training) if name == "norm_q" else a

    return lambda_layer(p, x, norm=queries_alone)


@mistake("lambda", "last head", "one head", "overwritten", "accumulat", "heads", "sum over the heads")
def lambda_position_maps_learn_from_the_last_head(p, x):
    """Backward: the heads share the maps of position, and write their gradients over each other's; the last's stay."""

    def position(q, maps):
        return torch.cat((by_position(q[:, :-1], constant(maps)), by_position(q[:, -1:], maps)), 1)

    return lambda_layer(p, x, position=position)


@mistake(
    "lambda",
    "detached",
    "summand",
    "add: gradient",
    "through the position",
    "conv2d: gradient",
    "conv3d: gradient",
    "one path",
)
def lambda_values_learn_by_content_alone(p, x):
    """Backward: what the convolution over positions hands back to the values is written over."""
    return lambda_layer(p, x, around=lambda v, p: around(constant(v), p))


@mistake("lambda", "softmax: gradient", "sum over the positions", "row sum", "rowsum", "without the sum")
def lambda_softmax_gradient_without_its_sum(p, x):
    """Backward: the keys' softmax lacks the sum over the positions in its gradient."""
    return lambda_layer(p, x, weigh=lambda k: softmax(rows(k), 2, backward=without_sum))


@mistake("lambda", "content", "query", "averaged", "divided by", "number of positions", "mean over")
def lambda_content_gradient_averaged(p, x):
    """Backward: the gradient of the map of content is averaged over the positions that read it, not added up."""
    n = x.shape[2] * x.shape[3]
    return lambda_layer(p, x, content=lambda q, maps: by_content(q, backwards(maps, lambda d: d / n)))


@mistake("lambda", "before the softmax", "not normalised", "unnormalised", "exponential", "logits")
def lambda_values_learn_by_unnormalised_keys(p, x):
    """Backward: the values' gradient reads exponentials that are not yet divided by their sum."""

    def backward(dg, s, a, g):
        return gather_backward(dg, s, a, g)[0], dg @ (s / s.amax(-1, keepdim=True))

    return lambda_layer(p, x, gather=lambda s, a: gather(s, a, backward=backward))


@mistake("lambda", "bias", "conv: bias", "bias missing", "without bias", "bias left out", "no bias")
def lambda_forward_without_the_convolutions_bias(p, x):
    """Forward alone: the maps of position lack the convolution's bias, which has its gradient all the same."""
    return lambda_layer(p, x, around=lambda v, p: forward_alone(around(v, p), around(v, p, bias=False)))


@mistake("lambda", "scale", "1/√d", "square root", "sqrt", "divided by", "scaled")
def lambda_forward_scales_queries(p, x):
    """Forward alone: queries are divided by √d, as in attention."""
    y = lambda_layer(p, x)
    return forward_alone(y, y / 2)


@mistake("lambda", "last block", "last tile", "remainder", "tail", "positions left out")
def lambda_gathers_whole_tiles(p, x):
    """Tiles: the map of content adds up whole tiles of 8 positions."""

    def gathered(s, a):
        n = whole(a.shape[2], 8)
        return forward_alone(gather(s, a), gather(s[..., :n], a[..., :n]))

    return lambda_layer(p, x, gather=gathered)


@mistake("lambda", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def lambda_maps_held_in_bfloat16(p, x):
    """Precision: the map of content is written in bfloat16."""
    return lambda_layer(p, x, gather=lambda s, a: stored(gather(s, a)))
