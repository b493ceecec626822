"""Multi-scale concatenation, and mistakes in it."""

from functools import partial

from tests.benchmarks.foreign.dual import conv_norm_act
from tests.benchmarks.foreign.pieces import F, backwards, changed, constant, mistake, norm, same, torch


def image_mean(x):
    return x.mean((2, 3), keepdim=True)


def joined(near, far, image):
    return torch.cat([near, *far, image], 1)


def dropped(y, mask):
    return y * mask / 0.5


def spread(q, size):
    return F.interpolate(q, size, mode="bilinear", align_corners=False)


def multi_scale(
    p,
    x,
    *masks,
    rates=(1, 2, 3),
    training=False,
    layer=conv_norm_act,
    pool=image_mean,
    resize=spread,
    join=joined,
    drop=dropped,
):
    near = layer(x, p, "convs.0", training)
    far = [layer(x, p, f"convs.{i}", training, rate=rate) for i, rate in enumerate(rates, 1)]
    image = resize(layer(pool(x), p, f"convs.{len(rates) + 1}", training, index=1), x.shape[2:])
    y = layer(join(near, far, image), p, "project", training)
    return drop(y, *masks) if masks else y


@mistake("multi-scale", "dilat", "rate", "ignored")
def branches_without_dilation(p, x):
    """Dilated convolutions: all have rate 1."""
    return multi_scale(p, x, rates=(1, 1, 1))


@mistake("multi-scale", "rate", "order", "dilat", "swapped")
def branches_rates_in_another_order(p, x):
    """Dilated convolutions: the rates are taken in reverse."""
    return multi_scale(p, x, rates=(3, 2, 1))


@mistake("multi-scale", "rate", "dilat", "off by one")
def branches_rates_too_large_by_one(p, x):
    """Dilated convolutions: rates count the zeros between the taps, so that each is larger by 1."""
    return multi_scale(p, x, rates=(2, 3, 4))


@mistake("multi-scale", "axis", "dilat", "one direction", "height", "width")
def branches_dilated_along_rows_alone(p, x):
    """Dilated convolutions: taps are apart along the width alone."""

    def conv(x, w, rate):
        return F.conv2d(x, w, padding=(w.shape[2] // 2, rate * (w.shape[3] // 2)), dilation=(1, rate))

    return multi_scale(p, x, layer=partial(conv_norm_act, conv=conv))


@mistake("multi-scale", "flip", "reversed", "true convolution", "rotated")
def branches_kernels_flipped(p, x):
    """Dilated convolutions: kernels are rotated by 180°."""
    return multi_scale(p, x, layer=partial(conv_norm_act, conv=lambda x, w, r: same(x, w.flip(2, 3), r)))


@mistake("multi-scale", "transpose", "height and width", "H and W")
def branches_kernels_transposed(p, x):
    """Dilated convolutions: kernels' rows and columns are exchanged."""
    return multi_scale(p, x, layer=partial(conv_norm_act, conv=lambda x, w, r: same(x, w.transpose(2, 3), r)))


def padded(mode):
    """Convolution beyond whose edges another thing than zeros is read."""

    def conv(x, w, rate):
        return F.conv2d(F.pad(x, (rate * (w.shape[2] // 2),) * 4, mode), w, dilation=rate)

    return partial(conv_norm_act, conv=conv)


@mistake("multi-scale", "circular", "wrap", "padding")
def branches_circular_padding(p, x):
    """Dilated convolutions: beyond an edge they read the opposite one."""
    return multi_scale(p, x, layer=padded("circular"))


@mistake("multi-scale", "replicate", "edge", "padding")
def branches_replicate_padding(p, x):
    """Dilated convolutions: beyond an edge they repeat it."""
    return multi_scale(p, x, layer=padded("replicate"))


@mistake("multi-scale", "order", "concatenat", "first", "swapped")
def branches_image_first(p, x):
    """Concatenation: the image's branch stands first."""
    return multi_scale(p, x, join=lambda near, far, image: torch.cat([image, near, *far], 1))


@mistake("multi-scale", "interleave", "concatenat", "channels", "order", "layout")
def branches_interleaved(p, x):
    """Concatenation: channel by channel, the first of every branch, then the second."""

    def join(near, far, image):
        return torch.stack([near, *far, image], 2).flatten(1, 2)

    return multi_scale(p, x, join=join)


@mistake("multi-scale", "sum", "not divided", "number of positions", "pool")
def branches_image_sum(p, x):
    """Image's branch: the sum over the positions for the mean."""
    return multi_scale(p, x, pool=lambda x: x.sum((2, 3), keepdim=True))


@mistake("multi-scale", "max", "pool")
def branches_image_maximum(p, x):
    """Image's branch: the maximum for the mean."""
    return multi_scale(p, x, pool=lambda x: x.amax((2, 3), keepdim=True))


@mistake("multi-scale", "image", "left out", "zero", "resiz")
def branches_image_at_one_position(p, x):
    """Image's branch: its result is written to the first position alone; the others stay 0."""
    return multi_scale(p, x, resize=lambda q, size: F.pad(q, (0, size[1] - 1, 0, size[0] - 1)))


@mistake("multi-scale", "image", "detach", "branch", "lost")
def branches_image_gradient_lost(p, x):
    """Image's branch, backward: its gradient is left out of the map's sum."""
    return multi_scale(p, x, pool=lambda x: image_mean(constant(x)))


@mistake(
    "multi-scale", "branch", "last", "overwritten", "lost", "detach", "convs.0 / (1') conv2d: gradient: dx dropped"
)
def branches_gradient_of_the_first_lost(p, x):
    """1×1 branch, backward: the gradient that it sends to the map is overwritten by the next branch's."""

    def layer(x, p, name, *of, **o):
        return conv_norm_act(constant(x) if name == "convs.0" else x, p, name, *of, **o)

    return multi_scale(p, x, layer=layer)


@mistake("multi-scale", "resiz", "backward", "divided", "average")
def branches_resize_backward_averaged(p, x):
    """Image's branch, backward: the mean over the positions that it was spread to, not the sum."""
    return multi_scale(p, x, resize=lambda q, size: spread(backwards(q, lambda g: g / (size[0] * size[1])), size))


@mistake("multi-scale", "relu", "activation")
def branches_without_relu(p, x):
    """Branches: no ReLU before the concatenation."""

    def layer(x, p, name, *of, **options):
        return conv_norm_act(x, p, name, *of, **options, act=torch.relu if name == "project" else lambda n: n)

    return multi_scale(p, x, layer=layer)


@mistake("multi-scale", "relu6", "clipped", "activation", "bounded by 1")
def branches_relu_capped(p, x):
    """Branches: ReLU6 with a bound of 1 for ReLU."""
    return multi_scale(p, x, layer=partial(conv_norm_act, act=lambda n: n.clamp(0, 1)))


@mistake("multi-scale", "norm left out", "without batch norm", "norm")
def branches_image_without_norm(p, x):
    """Image's branch: no batch norm, as in code that trains with one image a device."""

    def layer(x, p, name, *of, **options):
        return conv_norm_act(x, p, name, *of, **options, bn=(lambda z, *_: z) if name == "convs.4" else norm)

    return multi_scale(p, x, layer=layer)


@mistake("multi-scale", "eps", "epsilon")
def branches_other_epsilon(p, x):
    """Batch norm: ε = 1e-3, as in TensorFlow's DeepLab."""
    return multi_scale(p, x, layer=partial(conv_norm_act, bn=partial(norm, eps=1e-3)))


@mistake("multi-scale", "depthwise", "group", "channels")
def branches_depthwise(p, x):
    """Dilated convolutions: output channel o reads input channel o alone."""

    def conv(x, w, rate):
        return same(x, w * torch.eye(*w.shape[:2])[:, :, None, None] if w.shape[2] == 3 else w, rate)

    return multi_scale(p, x, layer=partial(conv_norm_act, conv=conv))


TRAINED = {"in_channels": 8, "out_channels": 4, "rates": (1, 2, 3), "training": True}
trained = partial(multi_scale, training=True)


@mistake("multi-scale", "drop", "scale", "1 - ", **TRAINED)
def branches_dropout_not_scaled(p, x, mask):
    """Dropout: what is kept is not scaled up."""
    return trained(p, x, mask, drop=torch.mul)


@mistake("multi-scale", "drop", "left out", "ignored", **TRAINED)
def branches_dropout_ignored(p, x, mask):
    """Dropout: left out in training."""
    return trained(p, x)


@mistake("multi-scale", "drop", "mask", "backward", **TRAINED)
def branches_dropout_forgotten_in_backward(p, x, mask):
    """Dropout's backward: the mask is not applied to the gradient, its factor is."""
    return trained(p, x, mask, drop=lambda y, mask: 2 * y + constant(dropped(y, mask) - 2 * y))


@mistake("multi-scale", "running", "inference statistics", "statistics", **TRAINED)
def branches_running_statistics_in_training(p, x, mask):
    """Batch norm in training: the running statistics are used, and not changed."""
    return multi_scale(p, x, mask)


@mistake("multi-scale", "momentum", **TRAINED)
def branches_momentum_the_other_way(p, x, mask):
    """Batch norm in training: a batch has weight 0.9 in the running statistics."""
    return trained(p, x, mask, layer=partial(conv_norm_act, bn=partial(norm, momentum=0.9)))


@mistake("multi-scale", "accumulated", "twice", "doubled", **TRAINED)
def branches_parameter_gradients_twice(p, x, mask):
    """Parameters' gradients: those of the pass before were not set to zero."""
    names = [name for name in p if not name.endswith(("running_mean", "running_var"))]
    return trained(changed(p, lambda g: 2 * g, names), x, mask)
