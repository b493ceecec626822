"""Gathering from positions and memories, written as kernels by a third hand, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import (
    attend,
    attend_backward,
    attend_forward,
    forward_alone,
    kernel,
    relu,
    rows,
    stored,
    whole,
)
from tests.benchmarks.foreign.pieces import F, changed, constant, mistake, norm, pointwise, torch
from tests.benchmarks.foreign.recent_pieces import (
    along,
    distribute,
    distribute_backward,
    gather,
    gather_backward,
    in_tiles,
    softmax,
    without_sum,
)


def as_columns(x):
    """Positions before channels: (B, C, H, W) to (B, N, C)."""
    return rows(x).mT


def as_channels(o, x):
    """(B, N, C) to the map's (B, C, H, W)."""
    return o.mT.reshape(len(x), -1, *x.shape[2:])


def by_softmax(q, k, v, attend=attend):
    return attend(q, k, v)


def by_products(q, k, v):
    return q @ (k.mT @ v) / k.shape[1]


def halved(x):
    return F.max_pool2d(x, 2)


def behind(p, z, training):
    return norm(z, p, "norm", training)


def added(x, n):
    return x + n


def non_local(
    p,
    x,
    *,
    variant="embedded_gaussian",
    subsample=False,
    training=False,
    scale=None,
    pool=halved,
    gather=None,
    attend=attend,
    lay=as_channels,
    norm=behind,
    add=added,
):
    """Non-local attention, whose queries carry the scale of the products."""
    fewer = pool if subsample else lambda a: a
    q, k, v = pointwise(x, p, "t"), fewer(pointwise(x, p, "p")), fewer(pointwise(x, p, "g"))
    q, k, v = map(as_columns, (q, k, v))
    if variant == "dot_product":
        o = (gather or by_products)(q, k, v)
    else:
        o = attend(q, k, v, x.shape[1] ** -0.5 if scale is None else scale)
    return add(x, norm(p, pointwise(lay(o, x), p, "z"), training))


@mistake("non-local", "scale", "1/√d", "hidden channels", "square root", "sqrt", "head_dim")
def non_local_scale_of_the_embedded_channels(p, x):
    """Forward: the products are divided by the square root of the queries' channels, not of the map's."""
    return non_local(p, x, scale=p["t.weight"].shape[0] ** -0.5)


@mistake("non-local", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the queries", "other axis")
def non_local_softmax_over_the_queries(p, x):
    """Forward: the softmax runs over the queries of a key."""
    return non_local(p, x, attend=lambda q, k, v, scale: softmax(scale * q @ k.mT, 1) @ v)


@mistake("non-local", "transposed", "reshape", "layout", "channels last", "NHWC", "permut", "not transposed")
def non_local_reads_positions_as_channels(p, x):
    """Forward: what was gathered, (N, D), is read as (D, H, W) without a transpose."""
    return non_local(p, x, lay=lambda o, x: o.reshape(len(x), -1, *x.shape[2:]))


@mistake(
    "non-local",
    "last row",
    "last column",
    "ceil",
    "odd",
    "left out",
    "partial window",
    channels=16,
    reduction=4,
    subsample=True,
)
def non_local_pools_partial_windows(p, x):
    """Forward: an odd last row or column is pooled too, by itself."""
    return non_local(p, x, subsample=True, pool=lambda a: F.max_pool2d(a, 2, ceil_mode=True))


@mistake(
    "non-local",
    "average for the maximum",
    "average instead",
    "max_pool: ",
    "mean instead",
    channels=16,
    reduction=4,
    subsample=True,
)
def non_local_averages_windows(p, x):
    """Forward alone: keys and values are averaged over windows of 2×2."""
    return forward_alone(
        non_local(p, x, subsample=True), non_local(p, x, subsample=True, pool=lambda a: F.avg_pool2d(a, 2))
    )


@mistake(
    "non-local",
    "number of keys",
    "divided by",
    "1/N",
    "scale",
    "not divided",
    channels=16,
    reduction=4,
    variant="dot_product",
)
def non_local_products_gradient_undivided(p, x):
    """Backward: what leads back through the products is not divided by the number of keys."""

    def backward(do, q, k, v, o):
        return do @ (v.mT @ k), v @ (do.mT @ q), k @ (q.mT @ do)

    def gather(q, k, v):
        return kernel(by_products, backward, q, k, v)

    return non_local(p, x, variant="dot_product", gather=gather)


@mistake("non-local", "scale: gradient", "without the scale", "scale missing", "not scaled", "scale")
def non_local_key_gradient_unscaled(p, x):
    """Backward: the keys' gradient lacks the scale of the products."""

    def backward(do, q, k, v, o, *, scale):
        dq, dk, dv = attend_backward(do, q, k, v, o, scale=scale)
        return dq, dk / scale, dv

    return non_local(p, x, attend=lambda *of: attend(*of, backward=backward))


@mistake(
    "non-local",
    "softmax: gradient",
    "sum over the keys",
    "row sum",
    "rowsum",
    "delta",
    "not normalised",
    "unnormalised",
)
def non_local_delta_of_unnormalised_rows(p, x):
    """Backward: the row's sum of do times o reads o before it was divided by the row's exponentials."""

    def backward(do, q, k, v, o, *, scale):
        z = scale * q @ k.mT
        weights = torch.softmax(z, -1)
        total = (z - z.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)
        dz = weights * (do @ v.mT - (do * o * total).sum(-1, keepdim=True))
        return scale * dz @ k, scale * dz.mT @ q, weights.mT @ do

    return non_local(p, x, attend=lambda *of: attend(*of, backward=backward))


@mistake("non-local", "add: gradient", "residual", "identity", "skip", "shortcut", "dx lost", "summand")
def non_local_gradient_without_the_residual(p, x):
    """Backward: the map's gradient is that of the attention alone; what the sum hands back is overwritten."""
    return non_local(p, x, add=lambda x, n: constant(x) + n)


@mistake(
    "non-local",
    "each image",
    "per image",
    "instance",
    "statistics",
    "over the batch",
    channels=16,
    reduction=4,
    training=True,
)
def non_local_norms_every_image_by_itself(p, x):
    """Forward: the norm takes mean and variance of each image; running statistics are the batch's."""

    def instance(p, z, training):
        norm(z, p, "norm", training)
        return F.instance_norm(z, weight=p["norm.weight"], bias=p["norm.bias"])

    return non_local(p, x, training=True, norm=instance)


@mistake("non-local", "rescal", "running maximum", "online", "tile", "block", "correction")
def non_local_accumulator_not_rescaled(p, x):
    """Tiles: where a tile of 8 keys raises the maximum, the sum of weights is rescaled, the sum of values is not."""

    def online(q, k, v, scale):
        top = torch.full_like(q[..., :1], -torch.inf)
        total, o = torch.zeros_like(top), 0
        for part in in_tiles(k.shape[1], 8):
            z = scale * q @ k[:, part].mT
            new = torch.maximum(top, z.amax(-1, keepdim=True))
            e = (z - new).exp()
            total = total * (top - new).exp() + e.sum(-1, keepdim=True)
            o, top = o + e @ v[:, part], new
        return o / total

    return non_local(p, x, attend=lambda *of: attend(*of, value=online))


@mistake("non-local", "padding", "padded", "last block", "last tile", "mask", "beyond the last key", "tail")
def non_local_padded_keys_count(p, x):
    """Tiles: keys are padded with zeros to whole tiles of 8, and those zeros have weight."""

    def padded(q, k, v, scale):
        missing = -k.shape[1] % 8
        return attend_forward(q, F.pad(k, (0, 0, 0, missing)), F.pad(v, (0, 0, 0, missing)), scale)

    return non_local(p, x, attend=lambda *of: attend(*of, value=padded))


@mistake("non-local", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def non_local_weights_in_bfloat16(p, x):
    """Precision: the weights are rounded to bfloat16 before they meet the values."""
    return non_local(p, x, attend=lambda q, k, v, scale: stored(softmax(scale * q @ k.mT, -1)) @ v)


def over_positions(b, **options):
    return softmax(b, -1, **options)


def over_maps(v, **options):
    return softmax(v, 1, **options)


def double(
    p,
    x,
    *,
    weigh=over_positions,
    share=over_maps,
    gather=gather,
    keep=lambda g: g,
    distribute=distribute,
    read=pointwise,
):
    a, b, v = (rows(read(x, p, name)) for name in ("convA", "convB", "convV"))
    o = distribute(keep(gather(weigh(b), a)), share(v))
    return pointwise(o.reshape(*o.shape[:2], *x.shape[2:]), p, "conv_reconstruct")


@mistake("double", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the positions", "other axis")
def double_distributes_by_softmax_over_positions(p, x):
    """Forward: the second softmax runs over the positions too, not over the maps."""
    return double(p, x, share=over_positions)


@mistake("double", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the maps", "other axis")
def double_gathers_by_softmax_over_maps(p, x):
    """Forward: the first softmax runs over the maps, not over the positions."""
    return double(p, x, weigh=over_maps)


@mistake("double", "transposed", "reshape", "row-major", "column-major", "layout", "strides")
def double_descriptors_read_in_the_wrong_order(p, x):
    """Forward alone: the descriptors, written (m, n), are read as (n, m)."""
    return forward_alone(double(p, x), double(p, x, keep=lambda g: g.reshape(g.shape[0], g.shape[2], g.shape[1]).mT))


@mistake("double", "first image", "another image", "same image", "images")
def double_everyone_gets_the_first_images_descriptors(p, x):
    """Forward: the descriptors' batch stride is forgotten: all images distribute those of the first."""
    return double(p, x, keep=lambda g: g[:1].expand_as(g))


@mistake("double", "linear_attention: gradient", "swapped", "exchanged", "instead of", "wrong weights")
def double_features_gradient_by_the_other_weights(p, x):
    """Backward: the features' gradient reads the weights of distribution, saved under the other's name."""
    v = rows(pointwise(x, p, "convV"))

    def backward(dg, s, a, g):
        return gather_backward(dg, s, a, g)[0], dg @ torch.softmax(v.detach(), 1)

    return double(p, x, gather=lambda s, a: gather(s, a, backward=backward))


@mistake("double", "softmax: gradient", "sum over the positions", "row sum", "rowsum", "without the sum")
def double_gathering_gradient_without_its_sum(p, x):
    """Backward: the first softmax's gradient lacks the sum over the positions."""
    return double(p, x, weigh=lambda b: over_positions(b, backward=without_sum))


@mistake("double", "softmax: gradient", "another axis", "wrong axis", "over the positions", "other axis")
def double_distribution_gradient_sums_over_positions(p, x):
    """Backward: the second softmax's gradient takes its sum over the positions, not over the maps."""
    return double(p, x, share=lambda v: over_maps(v, backward=along(2)))


@mistake("double", "bias: gradient", "averaged", "divided by", "mean over", "number of positions", "bias")
def double_bias_gradients_averaged(p, x):
    """Backward: the biases' gradients are averages over the positions, not sums."""
    n = x.shape[2] * x.shape[3]
    return double(changed(p, lambda d: d / n, ("convA.bias", "convB.bias", "convV.bias")), x)


@mistake("double", "overwritten", "accumulat", "accumulation over", "last image", "one image", "sum over the batch")
def double_reconstruction_weights_learn_from_the_last_image(p, x):
    """Backward: every image writes the last layer's weight gradient, the last over those of the others."""

    def backward(dy, o, w, b, y):
        return w.T @ dy, dy[-1] @ o[-1].T, dy.sum((0, 2))

    def last(o):
        w, b = p["conv_reconstruct.weight"].flatten(1), p["conv_reconstruct.bias"]
        return kernel(lambda o, w, b: w @ o + b[:, None], backward, o, w, b)

    a, b, v = (rows(pointwise(x, p, name)) for name in ("convA", "convB", "convV"))
    return last(distribute(gather(over_positions(b), a), over_maps(v))).reshape(x.shape)


@mistake("double", "rescal", "running maximum", "online", "tile", "block", "each block", "own maximum")
def double_gathers_in_tiles_without_rescaling(p, x):
    """Tiles: each tile of 8 positions takes its own maximum, and the tiles' sums are added without rescaling."""

    def weigh(b):
        parts = [b[..., part] for part in in_tiles(b.shape[-1], 8)]
        e = torch.cat([(z - z.amax(-1, keepdim=True)).exp() for z in parts], -1)
        return forward_alone(over_positions(b), e / e.sum(-1, keepdim=True))

    return double(p, x, weigh=weigh)


@mistake("double", "conv2d: bias", "conv: bias", "bias missing", "without bias", "bias left out", "no bias", "bias")
def double_forward_without_a_bias(p, x):
    """Forward alone: the weights of distribution lack their bias, which has its gradient all the same."""

    def read(x, p, name):
        y = pointwise(x, p, name)
        return forward_alone(y, y - p["convV.bias"][:, None, None]) if name == "convV" else y

    return double(p, x, read=read)


@mistake("double", "rounded", "float16", "half precision", "lower precision", "narrow", "precision", "accumulated in")
def double_descriptors_added_up_in_bfloat16(p, x):
    """Precision: the descriptors are added up, 4 positions at a time, in bfloat16."""

    def narrow(s, a):
        g = torch.zeros_like(a @ s.mT, dtype=torch.bfloat16)
        for part in in_tiles(a.shape[-1], 4):
            g = g + (a[..., part] @ s[..., part].mT).bfloat16()
        return forward_alone(gather(s, a), g.to(a.dtype))

    return double(p, x, gather=narrow)


def shared_out(a, heads):
    """Channels of heads: (B, h d, N) to (B, h, d, N)."""
    return a.unflatten(1, (heads, -1))


def keys_softmax(z, **options):
    return softmax(z, 3, **options)


def queries_softmax(u, **options):
    return softmax(u, 2, **options)


def linear(
    p,
    x,
    *,
    heads=2,
    cut=shared_out,
    weigh=keys_softmax,
    share=queries_softmax,
    gather=gather,
    distribute=distribute,
    joined=lambda o: o.flatten(1, 2),
    add=added,
):
    z, u, v = (cut(rows(pointwise(x, p, name)), heads) for name in ("keys", "queries", "values"))
    o = joined(distribute(gather(weigh(z), v), share(u)))
    return add(x, pointwise(o.reshape(*o.shape[:2], *x.shape[2:]), p, "reprojection"))


@mistake("linear", "all heads", "heads together", "all channels", "over the heads", "softmax: over", "heads")
def linear_queries_softmax_over_all_heads(p, x):
    """Forward: a query's softmax runs over the channels of all heads together."""
    return linear(p, x, share=lambda u: softmax(u.flatten(1, 2), 1).reshape(u.shape))


@mistake("linear", "softmax: axis", "softmax: over", "another axis", "wrong axis", "exchanged", "swapped", "other axis")
def linear_softmaxes_trade_their_axes(p, x):
    """Forward: keys are weighed over their channels, and queries over the positions."""
    return linear(p, x, weigh=queries_softmax, share=keys_softmax)


@mistake("linear", "interleaved", "heads innermost", "order of the heads", "every other", "reshape", "layout", "heads")
def linear_heads_interleaved(p, x):
    """Forward: heads are every other channel."""
    return linear(
        p,
        x,
        cut=lambda a, heads: a.unflatten(1, (-1, heads)).transpose(1, 2),
        joined=lambda o: o.transpose(1, 2).flatten(1, 2),
    )


@mistake("linear", "scale", "1/√d", "square root", "sqrt", "divided by", "head_dim")
def linear_scales_as_softmax_attention_does(p, x):
    """Forward alone: the contexts are divided by the square root of a head's channels, for which there is no call."""

    def scaled(s, a):
        return gather(s, a) * s.shape[2] ** -0.5

    return forward_alone(linear(p, x), linear(p, x, gather=scaled))


@mistake("linear", "first head", "another head", "same head", "heads share", "one head", "heads")
def linear_keys_learn_from_the_first_heads_values(p, x):
    """Backward: in the keys' gradient every head reads the first head's values."""

    def backward(dg, s, a, g):
        return dg.mT @ a[:, :1], dg @ s

    return linear(p, x, gather=lambda s, a: gather(s, a, backward=backward))


@mistake(
    "linear",
    "linear_attention: gradient",
    "unnormalised",
    "not normalised",
    "without normal",
    "before the softmax",
    "exponential",
)
def linear_values_learn_by_unnormalised_keys(p, x):
    """Backward: the values' gradient reads the keys' exponentials, which are not yet divided by their sum."""

    def backward(dg, s, a, g):
        return dg.mT @ a, dg @ (s / s.amax(-1, keepdim=True))

    return linear(p, x, gather=lambda s, a: gather(s, a, backward=backward))


@mistake("linear", "softmax: gradient", "another axis", "wrong axis", "over the channels", "other axis")
def linear_keys_gradient_sums_over_channels(p, x):
    """Backward: the keys' softmax takes its sum over a head's channels, where it runs over the positions."""
    return linear(p, x, weigh=lambda z: keys_softmax(z, backward=along(2)))


@mistake("linear", "add: gradient", "residual", "identity", "skip", "shortcut", "summand")
def linear_gradient_without_the_residual(p, x):
    """Backward: what the sum hands back to the map is left out."""
    return linear(p, x, add=lambda x, e: constant(x) + e)


@mistake("linear", "linear_attention: gradient", "transposed", "context")
def linear_query_gradient_by_the_last_context(p, x):
    """Backward: the queries' gradient reads the context of the last image, whose buffer all images share."""

    def backward(do, g, w, o):
        return distribute_backward(do, g, w, o)[0], g[-1:].mT @ do

    return linear(p, x, distribute=lambda g, w: distribute(g, w, backward=backward))


@mistake("linear", "last block", "last tile", "remainder", "tail", "denominator", "positions left out")
def linear_denominators_of_whole_tiles(p, x):
    """Tiles: what divides the keys' exponentials adds up whole tiles of 8 positions only."""

    def weigh(z):
        e = (z - z.amax(-1, keepdim=True)).exp()
        return forward_alone(keys_softmax(z), e / e[..., : whole(e.shape[-1], 8)].sum(-1, keepdim=True))

    return linear(p, x, weigh=weigh)


@mistake("linear", "padding", "padded", "last block", "last tile", "mask", "beyond the last", "tail")
def linear_padded_keys_count(p, x):
    """Tiles: keys are padded with zeros to whole tiles of 16 positions, whose exponentials count."""

    def weigh(z):
        n = z.shape[-1]
        return forward_alone(keys_softmax(z), torch.softmax(F.pad(z, (0, -n % 16)), -1)[..., :n])

    return linear(p, x, weigh=weigh)


@mistake("linear", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def linear_contexts_held_in_bfloat16(p, x):
    """Precision: the contexts are written in bfloat16 between the two products."""
    return linear(p, x, gather=lambda s, a: stored(gather(s, a)))


def by_sum_backward(da, s, a):
    return ((da - (a * da).sum(1, keepdim=True)) / (s.sum(1, keepdim=True) + 1e-9),)


def by_sum(s, axis=1, eps=1e-9, *, backward=by_sum_backward):
    """Divide by the sum along an axis."""
    if (axis, eps) == (1, 1e-9):
        return kernel(lambda s: s / (s.sum(1, keepdim=True) + 1e-9), backward, s)
    return s / (s.sum(axis, keepdim=True) + eps)


def keys_of(p, u):
    return p["linear_0.weight"][..., 0] @ u


def values_of(p, a):
    return p["linear_1.weight"][..., 0] @ a


def closing(x, n, act=relu):
    return act(x + n)


def external(
    p, x, *, training=False, score=keys_of, weigh=over_positions, even=by_sum, value=values_of, close=closing, eps=1e-5
):
    z = score(p, rows(pointwise(x, p, "conv1")))
    o = value(p, even(weigh(z))).reshape(x.shape)
    return close(x, norm(pointwise(o, p, "conv2.0"), p, "conv2.1", training, eps=eps))


@mistake("external", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the memories", "other axis")
def external_softmax_over_the_memories(p, x):
    """Forward: the softmax runs over the memories, and the division over the positions: each along the other's axis."""
    return external(p, x, weigh=over_maps, even=lambda s: by_sum(s, 2))


@mistake(
    "external",
    "sum_normalize: missing",
    "second normal",
    "normalised once",
    "left out",
    "not normalised",
)
def external_normalises_once(p, x):
    """Forward: there is a softmax over the positions, and nothing after it."""
    return external(p, x, even=lambda s: s)


@mistake(
    "external",
    "sum_normalize: axis",
    "sum_normalize: over",
    "another axis",
    "wrong axis",
    "over the positions",
    "other axis",
)
def external_divides_by_the_sum_over_positions(p, x):
    """Forward: the weights are divided by their sum over the positions, which is 1 already."""
    return external(p, x, even=lambda s: by_sum(s, 2))


@mistake("external", "eps", "epsilon", "ε")
def external_epsilon_of_a_norm(p, x):
    """Forward alone: ε in the divisor is 1e-2, which a sum of a few small weights feels."""
    return forward_alone(external(p, x), external(p, x, even=lambda s: by_sum(s, 1, 1e-2)))


@mistake("external", "relu: before", "before the residual", "order of", "relu before", "add: ", "rectif")
def external_rectifies_before_the_sum(p, x):
    """Forward: what the norm gives is rectified, and then the map is added."""
    return external(p, x, close=lambda x, n: x + relu(n))


@mistake(
    "external",
    "sum_normalize: gradient",
    "sum over the memories",
    "row sum",
    "rowsum",
    "without the sum",
    "as a constant",
    "detached",
)
def external_sum_taken_for_a_constant(p, x):
    """Backward: the gradient of the division takes the divisor for a constant."""
    return external(p, x, even=lambda s: by_sum(s, backward=lambda da, s, a: (da / s.sum(1, keepdim=True),)))


@mistake(
    "external",
    "overwritten",
    "accumulat",
    "last image",
    "one image",
    "sum over the batch",
    "weight gradient",
    "weight: gradient",
)
def external_memory_learns_from_the_last_image(p, x):
    """Backward: every image writes the gradient of the memories' keys, the last over those of the others."""

    def backward(dz, w, u, z):
        return dz[-1] @ u[-1].T, w.T @ dz

    def score(p, u):
        return kernel(torch.matmul, backward, p["linear_0.weight"][..., 0], u)

    return external(p, x, score=score)


@mistake("external", "relu: gradient", "relu: wrong mask", "mask", "sign of", "before the sum", "before the residual")
def external_relu_gradient_by_the_norms_output(p, x):
    """Backward: the rectifier passes gradients where the norm's output is positive, not the sum with the map."""

    def close(x, n):
        return kernel(lambda x, n: torch.relu(x + n), lambda dy, x, n, y: (dy * (n > 0), dy * (n > 0)), x, n)

    return external(p, x, close=close)


@mistake("external", "softmax: gradient", "another axis", "wrong axis", "over the memories", "other axis")
def external_softmax_gradient_sums_over_memories(p, x):
    """Backward: the softmax over the positions takes its sum over the memories."""
    return external(p, x, weigh=lambda z: over_positions(z, backward=along(1)))


@mistake("external", "sum_normalize: gradient", "divided twice", "twice", "squared", "divisor")
def external_divides_the_gradient_twice(p, x):
    """Backward: the gradient of the division has the square of the divisor below both terms."""

    def backward(da, s, a):
        total = s.sum(1, keepdim=True)
        return ((da - (a * da).sum(1, keepdim=True)) / total**2,)

    return external(p, x, even=lambda s: by_sum(s, backward=backward))


@mistake("external", "tile", "block", "each block", "own softmax", "rescal", "not combined", "softmax: in blocks")
def external_softmax_tile_by_tile(p, x):
    """Tiles: each tile of 16 positions has a softmax of its own."""

    def weigh(z):
        parts = [torch.softmax(z[..., part], -1) for part in in_tiles(z.shape[-1], 16)]
        return forward_alone(over_positions(z), torch.cat(parts, -1))

    return external(p, x, weigh=weigh)


@mistake(
    "external", "transposed", "conv: transposed", "weight transposed", "layout", "reshape", "column-major", "row-major"
)
def external_forward_reads_values_column_major(p, x):
    """Forward alone: the memories' values, (C, S), are read as if they lay in memory as (S, C)."""

    def value(p, a):
        w = p["linear_1.weight"][..., 0]
        return forward_alone(w @ a, w.reshape(w.T.shape).T @ a)

    return external(p, x, value=value)


@mistake("external", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def external_scores_in_bfloat16(p, x):
    """Precision: the scores are rounded to bfloat16 before the softmax."""
    return external(p, x, score=lambda p, u: stored(keys_of(p, u)))
