"""SimAM, and mistakes in it."""

from tests.benchmarks.foreign.pieces import as_nhwc, backwards, by_hand, constant, from_nhwc, mistake, torch

LAMBDA = 1e-4


def centre(x):
    return x - x.mean((2, 3), keepdim=True)


def sample_variance(d):
    return d.pow(2).sum((2, 3), keepdim=True) / (d.shape[2] * d.shape[3] - 1)


def energy(d, v):
    return d.pow(2) / (4 * (v + LAMBDA)) + 0.5


def weigh(x, a):
    return x * a


def simam(p, x, *, centred=centre, variance=sample_variance, inverse=energy, squash=torch.sigmoid, scale=weigh):
    d = centred(x)
    return scale(x, squash(inverse(d, variance(d))))


@mistake("simam", "N - 1", "biased", "population")
def simam_population_variance(p, x):
    """Variance: the squares' mean, over N and not N - 1."""
    return simam(p, x, variance=lambda d: d.pow(2).mean((2, 3), keepdim=True))


@mistake("simam", "sum for", "not divided", "variance")
def simam_sum_of_squares(p, x):
    """Variance: the sum of squares is never divided."""
    return simam(p, x, variance=lambda d: d.pow(2).sum((2, 3), keepdim=True))


@mistake("simam", "root", "deviation for variance")
def simam_standard_deviation(p, x):
    """Variance: its root is taken, as for a norm."""
    return simam(p, x, variance=lambda d: sample_variance(d).sqrt())


@mistake("simam", "mean not subtracted", "centred")
def simam_not_centred(p, x):
    """Energy: of x itself; nobody subtracts the mean."""
    return simam(p, x, centred=lambda x: x)


@mistake("simam", "whole image", "axis", "layer norm")
def simam_statistics_of_the_image(p, x):
    """Mean and variance: one of each for all channels of an image."""
    d = x - x.mean((1, 2, 3), keepdim=True)
    v = d.pow(2).sum((1, 2, 3), keepdim=True) / (d[0].numel() - 1)
    return x * torch.sigmoid(energy(d, v))


@mistake("simam", "batch", "axis")
def simam_statistics_of_the_batch(p, x):
    """Mean and variance: of a channel over all images, as batch norm has them."""
    d = x - x.mean((0, 2, 3), keepdim=True)
    v = d.pow(2).sum((0, 2, 3), keepdim=True) / (d[:, 0].numel() - 1)
    return x * torch.sigmoid(energy(d, v))


@mistake("simam", "over the channels", "axis")
def simam_statistics_over_channels(p, x):
    """Mean and variance: of a position over its channels."""
    d = x - x.mean(1, keepdim=True)
    return x * torch.sigmoid(energy(d, d.pow(2).sum(1, keepdim=True) / (x.shape[1] - 1)))


@mistake("simam", "½ lost", "half")
def simam_half_lost(p, x):
    """Energy: the constant ½ is left out."""
    return simam(p, x, inverse=lambda d, v: energy(d, v) - 0.5)


@mistake("simam", "4 lost", "four")
def simam_four_lost(p, x):
    """Energy: the divisor 4 is left out."""
    return simam(p, x, inverse=lambda d, v: d.pow(2) / (v + LAMBDA) + 0.5)


@mistake("simam", "not its inverse", "reciprocal", "energy")
def simam_energy_itself(p, x):
    """Energy: the gate is made of the energy; its inverse is meant."""
    return simam(p, x, inverse=lambda d, v: 1 / energy(d, v))


@mistake("simam", "not squared", "magnitude")
def simam_magnitude(p, x):
    """Energy: the deviation's magnitude in place of its square."""
    return simam(p, x, inverse=lambda d, v: d.abs() / (4 * (v + LAMBDA)) + 0.5)


@mistake("simam", "hyperbolic tangent", "tanh")
def simam_tanh(p, x):
    """Gate: tanh for the sigmoid."""
    return simam(p, x, squash=torch.tanh)


@mistake("simam", "one added", "residual", "input added")
def simam_residual(p, x):
    """Gate: the input is added once more."""
    return simam(p, x, scale=lambda x, a: x + x * a)


@mistake("simam", "left out", "gate alone", "not multiplied", "x detached", "map")
def simam_gate_alone(p, x):
    """Gate: it is handed out and never multiplied with the map."""
    return simam(p, x, scale=lambda x, a: a)


@mistake("simam", "mean constant", "detach")
def simam_mean_constant(p, x):
    """Backward: no gradient through the mean."""
    return simam(p, x, centred=lambda x: x - constant(x.mean((2, 3), keepdim=True)))


@mistake("simam", "variance constant", "detach")
def simam_variance_constant(p, x):
    """Backward: no gradient through the variance."""
    return simam(p, x, variance=lambda d: constant(sample_variance(d)))


@mistake("simam", "detach", "gate detached", "constant")
def simam_gate_constant(p, x):
    """Backward: the gate is taken for a constant."""
    return simam(p, x, scale=lambda x, a: x * constant(a))


@mistake("simam", "y (1 + y)", "slope", "sigmoid")
def simam_slope_of_the_sigmoid(p, x):
    """Backward: the sigmoid's slope has its sign wrong."""
    return simam(p, x, squash=lambda z: by_hand(z, torch.sigmoid, lambda dy, _, y: dy * y * (1 + y)))


@mistake("simam", "halved", "twice", "square", "2")
def simam_square_not_doubled(p, x):
    """Backward: the square's 2 is forgotten."""
    return simam(p, x, centred=lambda x: backwards(centre(x), lambda g: g / 2))


@mistake("simam", "channels last", "NHWC", "layout")
def simam_channels_last(p, x):
    """The map is read as if its channels stood last."""
    return from_nhwc(simam(p, as_nhwc(x)), x.shape)
