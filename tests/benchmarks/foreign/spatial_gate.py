"""CBAM's spatial and mistakes in it."""

from functools import partial

from tests.benchmarks.foreign.pieces import F, by_hand, constant, mistake, norm, same, torch


def largest(x):
    return x.max(1, keepdim=True).values


def average(x):
    return x.mean(1, keepdim=True)


def described(x, first=largest, second=average):
    return torch.cat([first(x), second(x)], 1)


def cbam_spatial(p, x, training=False, *, describe=described, conv=same, bn=norm, squash=torch.sigmoid):
    z = conv(describe(x), p["spatial.conv.weight"])
    return x * squash(bn(z, p, "spatial.bn", training, momentum=0.01))


@mistake("cbam-spatial", "order", "swapped", "exchanged")
def spatial_mean_before_maximum(p, x):
    """Concatenation: the mean is the first channel and the maximum the second, as in many ports."""
    return cbam_spatial(p, x, describe=lambda x: torch.cat([average(x), largest(x)], 1))


@mistake("cbam-spatial", "sum", "not divided", "number of channels")
def spatial_sum_for_the_mean(p, x):
    """Mean over the channels: a sum."""
    return cbam_spatial(p, x, describe=partial(described, second=lambda x: x.sum(1, keepdim=True)))


@mistake("cbam-spatial", "min", "max")
def spatial_minimum_for_the_maximum(p, x):
    """Maximum over the channels: the minimum."""
    return cbam_spatial(p, x, describe=partial(described, first=lambda x: x.min(1, keepdim=True).values))


@mistake("cbam-spatial", "detach", "argmax", "max")
def spatial_maximum_detached(p, x):
    """Maximum's backward: no gradient comes back through the maximum."""
    return cbam_spatial(p, x, describe=partial(described, first=lambda x: largest(constant(x))))


@mistake("cbam-spatial", "divided", "number of channels", "mean")
def spatial_mean_backward_not_divided(p, x):
    """Mean's backward: 1/C is left out."""

    def mean(x):
        return by_hand(x, average, lambda dy, x, y: dy.expand(x.shape))

    return cbam_spatial(p, x, describe=partial(described, second=mean))


@mistake("cbam-spatial", "flip", "reversed", "true convolution", "rotated")
def spatial_kernel_flipped(p, x):
    """Convolution: the kernel is rotated by 180°."""
    return cbam_spatial(p, x, conv=lambda t, w: same(t, w.flip(2, 3)))


@mistake("cbam-spatial", "transpose", "height and width", "H and W")
def spatial_kernel_transposed(p, x):
    """Convolution: the kernel's rows and columns are exchanged."""
    return cbam_spatial(p, x, conv=lambda t, w: same(t, w.transpose(2, 3)))


@mistake("cbam-spatial", "replicate", "edge", "padding")
def spatial_replicate_padding(p, x):
    """Convolution: beyond the edges it repeats the edges."""
    return cbam_spatial(p, x, conv=lambda t, w: F.conv2d(F.pad(t, (3,) * 4, "replicate"), w))


@mistake("cbam-spatial", "reflect", "mirror", "padding")
def spatial_reflect_padding(p, x):
    """Convolution: beyond the edges it reads the map mirrored, as far as that reaches, and zeros then."""
    narrow = min(3, *(n - 1 for n in x.shape[2:]))
    return cbam_spatial(
        p, x, conv=lambda t, w: F.conv2d(F.pad(F.pad(t, (narrow,) * 4, "reflect"), (3 - narrow,) * 4), w)
    )


@mistake("cbam-spatial", "shift", "off by one", "padding")
def spatial_shifted_by_one(p, x):
    """Convolution: padding of 2 before and 4 behind."""
    return cbam_spatial(p, x, conv=lambda t, w: F.conv2d(F.pad(t, (2, 4, 2, 4)), w))


@mistake("cbam-spatial", "outermost ring", "kernel size", "smaller kernel", "outer taps", "taps")
def spatial_kernel_of_five(p, x):
    """Convolution: the outermost ring of the 7×7 kernel is ignored."""
    return cbam_spatial(p, x, conv=lambda t, w: F.conv2d(t, w[:, :, 1:-1, 1:-1], padding=2))


@mistake("cbam-spatial", "batch norm left out", "without batch norm", "norm")
def spatial_without_batch_norm(p, x):
    """Batch norm: left out, as in the paper's equation."""
    return cbam_spatial(p, x, bn=lambda z, *_, **options: z)


@mistake("cbam-spatial", "eps", "epsilon")
def spatial_other_epsilon(p, x):
    """Batch norm: ε = 1e-3, as in Keras."""
    return cbam_spatial(p, x, bn=partial(norm_with, eps=1e-3))


def norm_with(z, p, name, training=False, *, momentum=0.1, eps=1e-5):
    return norm(z, p, name, training, momentum=momentum, eps=eps)


@mistake("cbam-spatial", "eps", "epsilon", "outside")
def spatial_epsilon_outside_the_root(p, x):
    """Batch norm: ε is added to the root of the variance."""

    def bn(z, p, name, *_, **options):
        mean, variance, weight, bias = (p[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return (z - mean) / (variance.sqrt() + 1e-5) * weight + bias

    return cbam_spatial(p, x, bn=bn)


@mistake("cbam-spatial", "root", "variance", "standard deviation")
def spatial_divided_by_the_variance(p, x):
    """Batch norm: divided by the variance; the root is left out."""

    def bn(z, p, name, *_, **options):
        mean, variance, weight, bias = (p[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return (z - mean) / (variance + 1e-5) * weight + bias

    return cbam_spatial(p, x, bn=bn)


@mistake("cbam-spatial", "batch's own", "training statistics", "statistics")
def spatial_batch_statistics_in_inference(p, x):
    """Batch norm: uses the batch's statistics in inference; `eval()` was forgotten."""
    copy = {name: a.clone() for name, a in p.items()}
    return cbam_spatial(copy, x, True)


@mistake("cbam-spatial", "sigmoid", "left out", "missing")
def spatial_without_sigmoid(p, x):
    """Gate: the sigmoid is left out."""
    return cbam_spatial(p, x, squash=lambda z: z)


@mistake("cbam-spatial", "relu", "activation")
def spatial_relu_behind_the_norm(p, x):
    """Batch norm: a ReLU follows it, as in the basic block that the layer is copied from."""
    return cbam_spatial(p, x, squash=lambda z: torch.sigmoid(torch.relu(z)))


TRAINED = {"channels": 16, "training": True}
trained = partial(cbam_spatial, training=True)


def statistics(z, correction):
    return z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), correction=correction, keepdim=True)


def norm_by(mean_of, momentum=0.01, correction=1):
    """Batch norm in training with other statistics, or other running ones."""

    def bn(z, p, name, *_, **options):
        mean, variance = mean_of(z)
        right_mean, running = statistics(z, correction)
        p[f"{name}.running_mean"].lerp_(constant(right_mean).flatten(), momentum)
        p[f"{name}.running_var"].lerp_(constant(running).flatten(), momentum)
        shape = 1, -1, 1, 1
        return (z - mean) / (variance + 1e-5).sqrt() * p[f"{name}.weight"].view(shape) + p[f"{name}.bias"].view(shape)

    return bn


@mistake("cbam-spatial", "running", "inference statistics", "statistics", "training=False for True", **TRAINED)
def spatial_running_statistics_in_training(p, x):
    """Batch norm in training: normalises by the running statistics."""

    def bn(z, p, name, *_, **options):
        y = norm(z, {n: a.clone() for n, a in p.items()}, name)
        norm(z, p, name, True, momentum=0.01)
        return y

    return trained(p, x, bn=bn)


@mistake("cbam-spatial", "unbiased", "N - 1", **TRAINED)
def spatial_unbiased_variance(p, x):
    """Batch norm in training: normalises by the unbiased variance."""
    return trained(p, x, bn=norm_by(lambda z: statistics(z, 1)))


@mistake("cbam-spatial", "biased", "running_var", "running variance", **TRAINED)
def spatial_running_variance_biased(p, x):
    """Batch norm in training: the running variance takes in the biased one."""
    return trained(p, x, bn=norm_by(lambda z: statistics(z, 0), correction=0))


@mistake("cbam-spatial", "momentum", **TRAINED)
def spatial_momentum_the_other_way(p, x):
    """Batch norm in training: a batch has weight 0.99 in the running statistics, as Keras counts its momentum."""
    return trained(p, x, bn=norm_by(lambda z: statistics(z, 0), momentum=0.99))


@mistake("cbam-spatial", "momentum", "0.1", **TRAINED)
def spatial_default_momentum(p, x):
    """Batch norm in training: a batch has weight 0.1, PyTorch's default, not the authors' 0.01."""
    return trained(p, x, bn=norm_by(lambda z: statistics(z, 0), momentum=0.1))


@mistake("cbam-spatial", "running statistics", "not updated", "running", **TRAINED)
def spatial_running_statistics_not_updated(p, x):
    """Batch norm in training: the running statistics stay what they were."""
    return trained(p, x, bn=norm_by(lambda z: statistics(z, 0), momentum=0.0))


@mistake("cbam-spatial", "constant", "through the statistics", "mean and variance", "frozen", **TRAINED)
def spatial_statistics_as_constants(p, x):
    """Batch norm's backward: mean and variance are taken as constants, as in inference."""
    return trained(p, x, bn=norm_by(lambda z: map(constant, statistics(z, 0))))


@mistake("cbam-spatial", "through the variance", "variance", "constant", **TRAINED)
def spatial_variance_as_a_constant(p, x):
    """Batch norm's backward: the term that comes through the variance is left out."""

    def partly(z):
        mean, variance = statistics(z, 0)
        return mean, constant(variance)

    return trained(p, x, bn=norm_by(partly))


@mistake("cbam-spatial", "axes", "each image", "instance", **TRAINED)
def spatial_statistics_of_each_image(p, x):
    """Batch norm in training: every image is normalised by itself, an instance norm."""

    def own(z):
        return (z.mean((2, 3), keepdim=True), z.var((2, 3), correction=0, keepdim=True))

    return trained(p, x, bn=norm_by(own))
