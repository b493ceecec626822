"""Pixel correlation, and mistakes in it."""

from tests.benchmarks.foreign.pieces import F, as_nhwc, by_hand, constant, from_nhwc, mistake, torch

EPSILON = 1e-5


def unit(f):
    return f / (f.norm(dim=1, keepdim=True) + EPSILON)


def cosines(u):
    return torch.relu(u.transpose(1, 2) @ u)


def total(a):
    return a.sum(1, keepdim=True) + EPSILON


def product(m, a):
    return m @ a


def embed(features, p):
    return F.conv2d(features, p["f9.weight"])


def pcm(p, maps, features, *, layer=embed, normalise=unit, affinity=cosines, divide=total, mix=product):
    a = affinity(normalise(layer(features, p).flatten(2)))
    return mix(maps.flatten(2), a / divide(a)).reshape(maps.shape)


@mistake("pcm", "relu", "negative", "rectif")
def pcm_without_relu(p, *inputs):
    """Affinity: negative cosines count too."""
    return pcm(p, *inputs, affinity=lambda u: u.transpose(1, 2) @ u)


@mistake("pcm", "absolute", "magnitude", "relu")
def pcm_absolute_cosines(p, *inputs):
    """Affinity: the cosine's magnitude."""
    return pcm(p, *inputs, affinity=lambda u: (u.transpose(1, 2) @ u).abs())


@mistake("pcm", "normalis", "length", "norm left out", "l2_normalize: left out")
def pcm_not_normalised(p, *inputs):
    """Affinity: of features as they are, not divided by their lengths."""
    return pcm(p, *inputs, normalise=lambda f: f)


@mistake("pcm", "axis", "positions", "normalis")
def pcm_normalised_over_positions(p, *inputs):
    """Affinity: each channel is divided by its length over the positions."""
    return pcm(p, *inputs, normalise=lambda f: f / (f.norm(dim=2, keepdim=True) + EPSILON))


@mistake("pcm", "squared", "root", "length", "normalis")
def pcm_divided_by_the_squared_length(p, *inputs):
    """Affinity: features are divided by their squared length; the root is left out."""
    return pcm(p, *inputs, normalise=lambda f: f / ((f * f).sum(1, keepdim=True) + EPSILON))


@mistake("pcm", "normalis", "constant", "length", "projection", "detach")
def pcm_length_as_a_constant(p, *inputs):
    """Normalisation's backward: the length is taken as a constant."""
    return pcm(p, *inputs, normalise=lambda f: f / (constant(f.norm(dim=1, keepdim=True)) + EPSILON))


@mistake("pcm", "axis", "transpose", "total", "rows", "columns")
def pcm_divided_by_the_other_total(p, *inputs):
    """Total: each affinity is divided by the total of the position it comes from, not of that it goes to."""
    return pcm(p, *inputs, divide=lambda a: a.sum(2, keepdim=True) + EPSILON)


@mistake("pcm", "total", "not divided", "sum", "(5) gate: left out")
def pcm_not_divided(p, *inputs):
    """Total: left out; affinities are added up."""
    return pcm(p, *inputs, divide=lambda a: 1)


@mistake("pcm", "number of positions", "total", "average")
def pcm_divided_by_the_number_of_positions(p, *inputs):
    """Total: the number of positions for it."""
    return pcm(p, *inputs, divide=lambda a: a.shape[1])


@mistake("pcm", "softmax")
def pcm_softmax(p, *inputs):
    """Total: a softmax of the cosines for cosines by their total."""
    return pcm(p, *inputs, affinity=lambda u: (u.transpose(1, 2) @ u).exp())


@mistake("pcm", "total", "constant", "detach", "quotient")
def pcm_total_as_a_constant(p, *inputs):
    """Total's backward: it is taken as a constant."""
    return pcm(p, *inputs, divide=lambda a: constant(total(a)))


@mistake("pcm", "sign", "quotient", "total")
def pcm_total_gradient_of_the_wrong_sign(p, *inputs):
    """Total's backward: the minus of the quotient's derivative is forgotten."""
    return pcm(p, *inputs, divide=lambda a: by_hand(total(a), torch.clone, lambda dy, *_: -dy))


@mistake("pcm", "itself", "diagonal")
def pcm_positions_do_not_see_themselves(p, *inputs):
    """Affinity: that of a position with itself is left out."""
    return pcm(p, *inputs, affinity=lambda u: cosines(u) * (1 - torch.eye(u.shape[2])))


@mistake("pcm", "one factor", "half", "once", "detach", "gram", "the other side alone")
def pcm_backward_through_one_factor(p, *inputs):
    """Affinity's backward: the gradient through one of the two factors is left out."""
    return pcm(p, *inputs, affinity=lambda u: torch.relu(constant(u).transpose(1, 2) @ u))


@mistake("pcm", "detach", "affinit", "features", "constant")
def pcm_affinities_detached(p, *inputs):
    """Mixture's backward: no gradient reaches the features."""
    return pcm(p, *inputs, mix=lambda m, a: m @ (constant(a) + 0 * a))


@mistake("pcm", "detach", "maps", "constant", "of v lost")
def pcm_maps_detached(p, *inputs):
    """Mixture's backward: no gradient reaches the maps, as in code that refines them under `no_grad`."""
    return pcm(p, *inputs, mix=lambda m, a: constant(m) @ a + 0 * m)


@mistake("pcm", "relu", "activation", "embedding", "(1) conv2d: followed by a ReLU")
def pcm_relu_behind_the_embedding(p, *inputs):
    """Embedding: a ReLU follows the layer."""
    return pcm(p, *inputs, layer=lambda f, p: torch.relu(embed(f, p)))


@mistake("pcm", "eps", "epsilon")
def pcm_other_epsilon(p, *inputs):
    """Total: ε = 0.1."""
    return pcm(p, *inputs, divide=lambda a: a.sum(1, keepdim=True) + 0.1)


@mistake("pcm", "residual", "input added", "skip")
def pcm_residual_added(p, maps, features):
    """Output: the maps are added."""
    return maps + pcm(p, maps, features)


@mistake("pcm", "squared", "power", "sharp")
def pcm_affinities_squared(p, *inputs):
    """Affinity: squared, as in random-walk refinement."""
    return pcm(p, *inputs, affinity=lambda u: cosines(u) ** 2)


@mistake("pcm", "transpose", "height and width", "H and W", "order of positions", "layout")
def pcm_maps_flattened_by_columns(p, maps, features):
    """Layout: the maps' positions are counted by columns, the features' by rows."""
    turned = maps.transpose(2, 3).reshape(maps.shape)
    return pcm(p, turned, features)


@mistake("pcm", "channels last", "NHWC", "layout")
def pcm_maps_read_as_nhwc(p, maps, features):
    """Layout: the maps' memory, NCHW, is read and written as NHWC."""
    return from_nhwc(pcm(p, as_nhwc(maps), features), maps.shape)
