"""Gates of positions, windows and branches written as kernels by the same hand, and mistakes in them."""

from tests.benchmarks.foreign.fresh_channel import flexible, two_pools
from tests.benchmarks.foreign.fresh_pieces import (
    affine,
    conv,
    conv_backward,
    conv_in_tiles,
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
from tests.benchmarks.foreign.pieces import F, backwards, mistake, norm, torch, under


def maximum_over_channels_backward(dy, x, y):
    return (torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), dy),)


def maximum_over_channels(x, *, backward=maximum_over_channels_backward):
    return kernel(lambda x: x.amax(1, keepdim=True), backward, x)


def mean_over_channels(x):
    return mean(x, 1)


def spatial_norm(z, p, training):
    return norm(z, p, "spatial.bn", training, momentum=0.01)


def cbam_spatial(
    p,
    x,
    training=False,
    *,
    largest=maximum_over_channels,
    average=mean_over_channels,
    join=lambda m, q: torch.cat([m, q], 1),
    convolve=conv,
    bn=spatial_norm,
    scale=gate,
):
    z = convolve(join(largest(x), average(x)), p["spatial.conv.weight"])
    return scale(x, sigmoid(bn(z, p, training)))


@mistake("cbam-spatial", "replicat", "border", "padding", "edge", "nearest")
def cbam_spatial_repeats_the_border(p, x):
    """Forward: beyond the map its outermost numbers are repeated, where zeros should be padded."""
    return cbam_spatial(p, x, convolve=lambda t, w: F.conv2d(F.pad(t, (3, 3, 3, 3), mode="replicate"), w))


@mistake("cbam-spatial", "batch_norm: gradient", "norm: gradient", "standard deviation", "not scaled", "running_var")
def cbam_spatial_norm_gradient_without_the_deviation(p, x):
    """Backward: what passes batch norm is multiplied by its weight, and not divided by the standard deviation."""

    def bn(z, p, training):
        deviation = torch.sqrt(p["spatial.bn.running_var"] + 1e-5)
        return spatial_norm(backwards(z, lambda d: d * deviation), p, training)

    return cbam_spatial(p, x, bn=bn)


@mistake("cbam-spatial", "argmax", "max_pool: gradient", "maximum", "every channel", "all channels")
def cbam_spatial_max_gradient_to_every_channel(p, x):
    """Backward: the maximum's gradient is handed to every channel, where the one that is largest should have it."""
    return cbam_spatial(p, x, largest=lambda x: maximum_over_channels(x, backward=lambda dy, x, y: (dy.expand_as(x),)))


@mistake("cbam-spatial", "momentum", "running", channels=16, training=True)
def cbam_spatial_momentum_the_other_way_round(p, x):
    """Forward: the old running statistics get the new ones' weight, 0.01, and the batch 0.99."""
    return cbam_spatial(p, x, True, bn=lambda z, p, training: norm(z, p, "spatial.bn", True, momentum=0.99))


@mistake("cbam-spatial", "tile", "halo", "border", "block")
def cbam_spatial_halo_too_narrow(p, x):
    """Tiles: tiles of 4 × 4 positions are convolved with a halo of 2, where a kernel of 7 × 7 needs 3."""
    return cbam_spatial(p, x, convolve=lambda t, w: conv_in_tiles(t, w, height=4, width=4, halo=2))


@mistake("cbam-spatial", "number of channels", "divided by", "padded", "average", "half")
def cbam_spatial_divides_by_padded_channels(p, x):
    """Tiles: the sum over the channels is divided by their number rounded up to a multiple of 32."""
    return cbam_spatial(p, x, average=lambda x: x.sum(1, keepdim=True) / (-(-x.shape[1] // 32) * 32))


@mistake("cbam-spatial", "epsilon", "eps", "ε", channels=16, training=True)
def cbam_spatial_keras_epsilon(p, x):
    """Forward: 1e-3 is added to the variance, as another framework does, where 1e-5 should be."""
    return cbam_spatial(p, x, True, bn=lambda z, p, training: norm(z, p, "spatial.bn", True, momentum=0.01, eps=1e-3))


def cbam_parts(p):
    return under(p, "ChannelGate."), under(p, "SpatialGate.")


def channel_half(p, x, **steps):
    return two_pools(p, x, ("mlp.1", "mlp.3"), **steps)


def cbam(p, x, *, first=channel_half, second=cbam_spatial):
    channel, spatial = cbam_parts(p)
    return second(spatial, first(channel, x))


def spatial_gates(p, x):
    """The gates alone, (B, 1, H, W)."""
    return cbam_spatial(p, x, scale=lambda x, a: a)


@mistake("cbam", "parallel", "of the input", "input instead", "before the channel gate", "ungated")
def cbam_spatial_gates_of_the_raw_map(p, x):
    """Forward: the spatial gates are computed from the input, not from the map that the channel gate has scaled."""
    channel, spatial = cbam_parts(p)
    return gate(channel_half(channel, x), spatial_gates(spatial, x))


@mistake("cbam", "order", "spatial first", "swapped", "exchanged")
def cbam_positions_before_channels(p, x):
    """Forward: positions are gated first, then channels."""
    channel, spatial = cbam_parts(p)
    return channel_half(channel, cbam_spatial(spatial, x))


@mistake("cbam", "detached", "max_pool", "average_pool", "pool: gradient", "pools", "convolution")
def cbam_spatial_pools_detached(p, x):
    """Backward: the spatial gate's gradient stops at its two pools and doesn't reach the map."""
    channel, spatial = cbam_parts(p)
    f = channel_half(channel, x)
    return gate(f, spatial_gates(spatial, f.detach()))


@mistake("cbam", "gate: gradient", "not multiplied", "without the gate", "identity")
def cbam_gradient_passes_the_spatial_gate_unscaled(p, x):
    """Backward: dy passes the product with the spatial gates as it is, not multiplied by them."""

    def scale(x, a):
        return gate(x, a, backward=lambda dy, x, a, y: (dy, gate_backward(dy, x, a, y)[1]))

    return cbam(p, x, second=lambda p, f: cbam_spatial(p, f, scale=scale))


@mistake("cbam", "float16", "half", "precision", "narrow", "rounded", "bfloat16")
def cbam_half_precision_between_the_gates(p, x):
    """Precision: the map between the two gates is held in float16, whatever the kernel's format."""
    return cbam(p, x, second=lambda p, f: cbam_spatial(p, stored(f, torch.float16)))


@mistake("cbam", "last block", "last tile", "remainder", "not gated", "ungated", "tail", "some positions")
def cbam_leaves_the_last_positions(p, x):
    """Tiles: whole tiles of 16 positions are multiplied by the spatial gates; those behind them are copied."""

    def scale(x, a):
        inside = (torch.arange(rows(x).shape[2]) < whole(rows(x).shape[2], 16)).reshape(x.shape[2:])
        return torch.where(inside, gate(x, a), x)

    return cbam(p, x, second=lambda p, f: cbam_spatial(p, f, scale=scale))


def pointwise(x, p, name):
    return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"])


def hard_swish(x):
    return x * F.relu6(x + 3) / 6


def coordinate_norm(u, p, training):
    return norm(u, p, "bn1", training)


def coordinate(
    p,
    x,
    training=False,
    *,
    pools=(lambda x: mean(x, 3), lambda x: mean(x, 2)),
    bn=coordinate_norm,
    act=hard_swish,
    gates=("conv_h", "conv_w"),
    scale=lambda x, h, w: gate(gate(x, h), w),
):
    h, w = pools[0](x), pools[1](x)
    f = act(bn(pointwise(torch.cat([h, w.mT], 2), p, "conv1"), p, training))
    h, w = f.split(x.shape[2:], 2)
    return scale(x, sigmoid(pointwise(h, p, gates[0])), sigmoid(pointwise(w, p, gates[1]).mT))


@mistake("coordinate", "swapped", "exchanged", "conv_w", "conv_h", "each other's")
def coordinate_layers_exchanged(p, x):
    """Forward: the rows' gates are made by the columns' layer, and the columns' by the rows'."""
    return coordinate(p, x, gates=("conv_w", "conv_h"))


@mistake("coordinate", "number of", "divided by", "length", "average_pool", "height")
def coordinate_both_averages_over_the_width(p, x):
    """Forward: the sums along a column are divided by the width, as those along a row are."""
    return coordinate(p, x, pools=(lambda x: mean(x, 3), lambda x: x.sum(2, keepdim=True) / x.shape[3]))


@mistake("coordinate", "hard_swish: gradient", "hard_swish", "h-swish", "slope")
def coordinate_swish_gradient_of_one_factor(p, x):
    """Backward: h-swish is differentiated as if its second factor, relu6(x + 3) / 6, were constant."""
    return coordinate(p, x, act=lambda v: v * (F.relu6(v + 3) / 6).detach())


@mistake("coordinate", "gate: gradient", "other gate", "not multiplied", "without", "column")
def coordinate_gradient_of_the_rows_gate_lacks_the_columns(p, x):
    """Backward: the rows' gates receive the sum of dy x, without the columns' gates as a factor."""

    def backward(dy, x, h, w, y):
        return dy * h * w, (dy * x).sum(3, keepdim=True), (dy * x * h).sum(2, keepdim=True)

    return coordinate(p, x, scale=lambda x, h, w: kernel(lambda x, h, w: x * h * w, backward, x, h, w))


@mistake(
    "coordinate", "statistics", "constant", "batch_norm: gradient", "mean and variance", channels=16, training=True
)
def coordinate_statistics_taken_as_constants(p, x):
    """Backward: in training the batch's mean and variance are treated as constants."""

    def bn(u, p, training):
        y = norm(u, p, "bn1", True)
        mu, var = u.mean((0, 2, 3), keepdim=True).detach(), u.var((0, 2, 3), correction=0, keepdim=True).detach()
        constants = (u - mu) / torch.sqrt(var + 1e-5) * p["bn1.weight"][:, None, None] + p["bn1.bias"][:, None, None]
        return forward_alone(constants, y)

    return coordinate(p, x, True, bn=bn)


@mistake("coordinate", "biased", "running_var", "unbiased", "n - 1", "running", channels=16, training=True)
def coordinate_running_variance_biased(p, x):
    """Forward alone: running_var takes up the biased variance of the batch, where the unbiased one belongs."""

    def bn(u, p, training):
        y = norm(u, p | {"bn1.running_var": p["bn1.running_var"].clone()}, "bn1", True)
        p["bn1.running_var"].mul_(0.9).add_(0.1 * u.detach().var((0, 2, 3), correction=0))
        return y

    return coordinate(p, x, True, bn=bn)


@mistake("coordinate", "index", "wrong column", "wrong position", "row", "transposed")
def coordinate_column_gate_read_by_the_rows_index(p, x):
    """Forward alone: the columns' gates are read at the row's index, modulo the width."""

    def scale(x, h, w):
        at = torch.arange(x.shape[2]) % x.shape[3]
        wrong = x * h * w[:, :, 0, at, None]
        return forward_alone(gate(gate(x, h), w), wrong)

    return coordinate(p, x, scale=scale)


def starts(length, window, stride):
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def covered(length, window, stride, begin=starts):
    """A matrix of 1 where a window holds a position: (windows, length)."""
    at = torch.arange(length)
    return torch.stack([(i <= at) & (at < i + window) for i in begin(length, window, stride)]).double()


def covers(x, window, stride, begin=starts):
    r, s = (covered(n, window, stride, begin).to(x.dtype) for n in x.shape[2:])
    return r, s


def window_means(x, r, s):
    sums = torch.einsum("ri,bcij,sj->bcrs", r, x, s)
    return sums / (r.sum(1).max() * s.sum(1).max())


def window_counts(r, s):
    return r.sum(0)[:, None] * s.sum(0)


def overlaps(z, r, s):
    return torch.einsum("ri,bcrs,sj->bcij", r, z, s)


def overlap_average(z, r, s):
    return overlaps(z, r, s) / window_counts(r, s)


def classify(u, p, *, layer=affine):
    b, _, i, j = u.shape
    z = layer(u.permute(0, 2, 3, 1).flatten(0, 2), p["classifier.weight"], p["classifier.bias"])
    return z.reshape(b, i, j, -1).permute(0, 3, 1, 2)


def sliding_window(p, x, window=3, stride=2, *, cover=covers, pool=window_means, score=classify, join=overlap_average):
    r, s = cover(x, window, stride)
    return join(score(pool(x, r, s), p), r, s)


@mistake("sliding-window", "last window", "moved inward", "edge", "border", "uncovered")
def sliding_window_drops_what_does_not_fit(p, x):
    """Forward: windows that would reach beyond the map are left out; positions in no window get logits of 0."""

    def begin(length, window, stride):
        return range(0, length - window + 1, stride)

    def join(z, r, s):
        return overlaps(z, r, s) / window_counts(r, s).clamp(min=1)

    return sliding_window(p, x, cover=lambda *of: covers(*of, begin), join=join)


@mistake("sliding-window", "not divided", "sum", "number of windows", "count", "overlap_average")
def sliding_window_adds_overlapping_logits(p, x):
    """Forward: where windows overlap their logits are added up and not divided by the number of windows."""
    return sliding_window(p, x, join=overlaps)


@mistake("sliding-window", "overlap_average: gradient", "not divided", "number of windows", "count")
def sliding_window_overlap_gradient_not_divided(p, x):
    """Backward: a window receives the sum of dy over its positions, not divided by the windows over each position."""

    def join(z, r, s):
        return backwards(overlap_average(z, r, s), lambda d: d * window_counts(r, s))

    return sliding_window(p, x, join=join)


@mistake("sliding-window", "window_average: gradient", "not divided", "number of positions", "window's size")
def sliding_window_mean_gradient_not_divided(p, x):
    """Backward: a window's mean hands its gradient to each position without division by their number."""
    return sliding_window(p, x, pool=lambda x, r, s: window_means(backwards(x, lambda d: d * 9), r, s))


@mistake("sliding-window", "overwrit", "last window", "accumulat", "not added", "overlap")
def sliding_window_gradient_overwritten_where_windows_overlap(p, x):
    """Backward: windows write their gradients into the map's one after the other, where they should add them."""

    def backward(dp, x, r, s, y):
        dx = torch.zeros_like(x)
        for i, in_rows in enumerate(r.bool()):
            for j, in_columns in enumerate(s.bool()):
                inside = in_rows[:, None] & in_columns
                dx = torch.where(inside, dp[:, :, i, j, None, None] / inside.sum(), dx)
        return dx, None, None

    return sliding_window(p, x, pool=lambda *of: kernel(window_means, backward, *of))


@mistake("sliding-window", "overwrit", "last window", "not averaged", "overlap", "one window")
def sliding_window_keeps_the_last_windows_logits(p, x):
    """Forward alone: a position keeps the logits of the last window over it; backward averages."""

    def join(z, r, s):
        last_row, last_column = (len(c) - 1 - c.flip(0).argmax(0) for c in (r, s))
        return forward_alone(overlap_average(z, r, s), z[:, :, last_row][..., last_column])

    return sliding_window(p, x, join=join)


def flexible_segmentation(p, x, *, first=flexible, second=sliding_window):
    return second(under(p, "segmentation."), first(under(p, "attention."), x))


@mistake("flexible-segmentation", "softmax", "probabilities", "logits")
def flexible_segmentation_averages_probabilities(p, x):
    """Forward: each window's logits pass a softmax over the classes before they are averaged."""
    return flexible_segmentation(
        p, x, second=lambda p, u: sliding_window(p, u, score=lambda m, p: torch.softmax(classify(m, p), 1))
    )


@mistake("flexible-segmentation", "stride", "step", "window_average", "rows")
def flexible_segmentation_rows_one_by_one(p, x):
    """Forward: windows are 2 columns apart, but 1 row, not 2: the stride is used along one axis alone."""

    def cover(x, window, stride):
        return covers(x, window, 1)[0], covers(x, window, stride)[1]

    return flexible_segmentation(p, x, second=lambda p, u: sliding_window(p, u, cover=cover))


@mistake("flexible-segmentation", "weight: gradient", "ungated", "input", "before the gate", "saved")
def flexible_segmentation_classifier_gradient_of_the_raw_map(p, x):
    """Backward: the classifier's weight gradient is made of the input's window means, not the re-weighted map's."""
    raw = window_means(x, *covers(x, 3, 2)).detach()

    def layer(u, w, b):
        return affine(u, w, b, backward=backward)

    def backward(dy, u, w, b, y):
        return dy @ w, dy.T @ raw.permute(0, 2, 3, 1).flatten(0, 2), dy.sum(0)

    return flexible_segmentation(
        p, x, second=lambda p, u: sliding_window(p, u, score=lambda m, p: classify(m, p, layer=layer))
    )


@mistake("flexible-segmentation", "gate: gradient", "mean over", "divided by", "number of positions", "averaged")
def flexible_segmentation_gate_gradient_averaged(p, x):
    """Backward: a gate receives the mean over the positions of dy x, where it should receive the sum."""

    def scale(x, a):
        return gate(x, a, backward=lambda dy, x, a, y: (dy * a, (dy * x).mean((2, 3), keepdim=True)))

    return flexible_segmentation(p, x, first=lambda p, x: flexible(p, x, scale=scale))


@mistake("flexible-segmentation", "first image", "batch", "image's gate", "another image", "broadcast")
def flexible_segmentation_first_images_gates(p, x):
    """Forward alone: all images are multiplied by the first one's gates: the gate's index lacks the image."""

    def scale(x, a):
        return forward_alone(gate(x, a), x * a[:1])

    return flexible_segmentation(p, x, first=lambda p, x: flexible(p, x, scale=scale))


@mistake("flexible-segmentation", "off by one", "first row", "window_average", "prefix", "left out")
def flexible_segmentation_prefix_sums_off_by_one(p, x):
    """Tiles: window sums are differences of prefix sums of rows, and the window's first row is subtracted too."""

    def pool(x, r, s):
        in_rows_but_the_first = r * (r.cumsum(1) > 1)
        return torch.einsum("ri,bcij,sj->bcrs", in_rows_but_the_first, x, s) / 9

    return flexible_segmentation(p, x, second=lambda p, u: sliding_window(p, u, pool=pool))


def layer_norm_act(x, p, name, rate=1, training=False, *, index=0, convolve=conv, act=relu):
    z = convolve(x, p[f"{name}.{index}.weight"], rate)
    return act(norm(z, p, f"{name}.{index + 1}", training))


def keep(y, drop):
    return y * drop / 0.5


def multi_scale(
    p,
    x,
    *masks,
    rates=(1, 2, 3),
    training=False,
    near=layer_norm_act,
    far=layer_norm_act,
    image=layer_norm_act,
    pool=mean,
    join=lambda maps: torch.cat(maps, 1),
    drop=keep,
):
    maps = [near(x, p, "convs.0", 1, training)]
    maps += [far(x, p, f"convs.{i}", r, training) for i, r in enumerate(rates, 1)]
    maps.append(image(pool(x), p, f"convs.{len(rates) + 1}", 1, training, index=1).expand(-1, -1, *x.shape[2:]))
    y = layer_norm_act(join(maps), p, "project", 1, training)
    return drop(y, *masks) if masks else y


@mistake("multi-scale", "dilation", "rate", "dilated")
def multi_scale_same_rate_everywhere(p, x):
    """Forward: all dilated branches use the second branch's rate, 2."""
    return multi_scale(p, x, rates=(2, 2, 2))


@mistake("multi-scale", "order", "concatenat", "first", "swapped", "permuted")
def multi_scale_image_branch_first(p, x):
    """Forward: the image branch stands first in the concatenation, where it should be last."""
    return multi_scale(p, x, join=lambda maps: torch.cat([maps[-1], *maps[:-1]], 1))


@mistake("multi-scale", "average_pool: gradient", "pool: gradient", "not divided", "number of positions")
def multi_scale_image_gradient_not_divided(p, x):
    """Backward: the image branch hands its gradient to every position without division by their number."""
    return multi_scale(p, x, pool=lambda x: mean(x, backward=lambda dy, x, y: (dy.expand_as(x),)))


@mistake("multi-scale", "concatenate: gradient", "swapped", "offset", "order", "slice", "exchanged")
def multi_scale_gradients_of_two_branches_exchanged(p, x):
    """Backward: the concatenation's gradient is cut so that the first two dilated branches get each other's part."""

    def join(maps):
        def backward(dv, *given):
            parts = list(dv.split([len(a[0]) for a in maps], 1))
            parts[1], parts[2] = parts[2], parts[1]
            return tuple(parts)

        return kernel(lambda *maps: torch.cat(maps, 1), backward, *maps)

    return multi_scale(p, x, join=join)


@mistake("multi-scale", "conv2d: gradient", "weight: gradient", "dilation", "dilated")
def multi_scale_weight_gradient_not_dilated(p, x):
    """Backward: the gradients of the dilated kernels are computed with taps that stand side by side."""

    def backward(dy, x, w, y, rate):
        return conv_backward(dy, x, w, y, rate)[0], conv_backward(dy, x, w, y, 1)[1]

    def far(*of):
        return layer_norm_act(*of, convolve=lambda x, w, rate: conv(x, w, rate, backward=backward))

    return multi_scale(p, x, far=far)


@mistake(
    "multi-scale",
    "dropout",
    "not divided",
    "not scaled",
    "keep",
    in_channels=8,
    out_channels=4,
    rates=(1, 2, 3),
    training=True,
)
def multi_scale_dropout_not_scaled(p, x, mask):
    """Forward: what dropout keeps is not divided by the share that is kept."""
    return multi_scale(p, x, mask, training=True, drop=lambda y, mask: y * mask)


@mistake("multi-scale", "tile", "halo", "border", "block", "padding")
def multi_scale_halo_of_the_least_rate(p, x):
    """Tiles: strips of 4 rows are convolved with a halo of 1 row, which is enough for a rate of 1 alone."""

    def far(*of):
        return layer_norm_act(
            *of, convolve=lambda x, w, rate: conv_in_tiles(x, w, rate, height=4, width=x.shape[3] + 3, halo=1)
        )

    return multi_scale(p, x, far=far)
