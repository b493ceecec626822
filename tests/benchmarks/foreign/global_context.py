"""Global context, and mistakes in it."""

from tests.benchmarks.foreign.pieces import (
    F,
    as_nhwc,
    average,
    backwards,
    changed,
    constant,
    from_nhwc,
    gate,
    linear,
    mistake,
    pointwise,
    torch,
    weights,
    without_rowsum,
)


def scored(x, p):
    return pointwise(x, p, "conv_attn").flatten(1)


def gathered(x, a):
    return torch.einsum("bcn,bn->bc", x.flatten(2), a)


def normal(h, p, name, eps):
    return F.layer_norm(h, h.shape[1:], p[f"{name}.norm.weight"], p[f"{name}.norm.bias"], eps)


def shift(x, t):
    return x + t[:, :, None, None]


def gc(
    p,
    x,
    eps=1e-6,
    *,
    score=scored,
    soft=weights,
    gather=gathered,
    norm=normal,
    act=torch.relu,
    squash=torch.sigmoid,
    scale=gate,
    add=shift,
    seen=lambda context: context,
):
    context = seen(gather(x, soft(score(x, p))))

    def transform(name):
        return linear(act(norm(linear(context, p, f"{name}.fc1"), p, name, eps)), p, f"{name}.fc2")

    return add(scale(x, squash(transform("mlp_scale"))), transform("mlp_add"))


@mistake("gc", "axis", "channels", "over the batch", "softmax")
def gc_softmax_over_the_batch(p, x):
    """Weights: the softmax goes over the images of the batch, not over the positions."""
    return gc(p, x, soft=lambda s: torch.softmax(s, 0))


@mistake("gc", "sigmoid", "softmax")
def gc_sigmoid_weights(p, x):
    """Weights: a sigmoid for the softmax, so that they don't add up to 1."""
    return gc(p, x, soft=torch.sigmoid)


@mistake("gc", "softmax", "left out", "missing")
def gc_scores_for_weights(p, x):
    """Weights: the scores themselves; the softmax is left out."""
    return gc(p, x, soft=lambda s: s)


@mistake("gc", "rowsum", "row sum", "delta", "softmax")
def gc_softmax_without_the_sum(p, x):
    """Softmax's backward: the sum over the positions is left out."""
    return gc(p, x, soft=without_rowsum)


@mistake("gc", "scale", "square root", "temperature", "divided")
def gc_scores_divided(p, x):
    """Scores: divided by the square root of the number of channels, as in attention."""
    return gc(p, x, score=lambda x, p: scored(x, p) / x.shape[1] ** 0.5)


@mistake("gc", "average", "mean", "uniform", "weights")
def gc_averages(p, x):
    """Context: the average over the positions; the attention is not used."""
    return gc(p, x, gather=lambda x, a: average(x) + 0 * a.sum())


@mistake("gc", "divided", "number of positions", "sum")
def gc_context_divided_by_n(p, x):
    """Context: the weighted sum is divided by the number of positions besides."""
    return gc(p, x, gather=lambda x, a: gathered(x, a) / a.shape[1])


@mistake("gc", "detach", "constant", "map", "weights")
def gc_weights_detached(p, x):
    """Context: the weights are detached, so that the scores learn nothing."""
    return gc(p, x, gather=lambda x, a: gathered(x, constant(a)))


@mistake("gc", "detach", "map", "matmul", "value")
def gc_map_detached_where_it_is_gathered(p, x):
    """Context: the map is detached where it is gathered."""
    return gc(p, x, gather=lambda x, a: gathered(constant(x), a))


@mistake("gc", "detach", "score", "gradient")
def gc_map_detached_where_it_is_scored(p, x):
    """Scores: the map is detached where it is scored."""
    return gc(p, x, score=lambda x, p: scored(constant(x), p))


@mistake("gc", "detach", "constant", "context", "lost", "cut")
def gc_context_detached(p, x):
    """Context: detached, so that what it does to the map is not learnt from."""
    return gc(p, x, seen=constant)


@mistake("gc", "layer_norm", "layer norm", "left out", "norm")
def gc_without_norm(p, x):
    """Transforms: the layer norm is left out."""
    return gc(
        p, x, norm=lambda h, p, name, eps: h + 0 * p[f"{name}.norm.weight"].sum() + 0 * p[f"{name}.norm.bias"].sum()
    )


@mistake("gc", "unbiased", "variance", "layer_norm")
def gc_unbiased_variance(p, x):
    """Layer norm: the variance is divided by one less than the number of channels."""

    def norm(h, p, name, eps):
        centred = h - h.mean(1, keepdim=True)
        scaled = centred / (h.var(1, keepdim=True) + eps).sqrt()
        return scaled * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]

    return gc(p, x, norm=norm)


@mistake("gc", "RMS", "mean", "not subtracted", "layer_norm")
def gc_root_mean_square_norm(p, x):
    """Layer norm: the mean is not subtracted."""

    def norm(h, p, name, eps):
        scaled = h / ((h * h).mean(1, keepdim=True) + eps).sqrt()
        return scaled * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]

    return gc(p, x, norm=norm)


@mistake("gc", "statistics", "constant", "layer_norm", "detach")
def gc_statistics_constant(p, x):
    """Layer norm's backward: mean and variance are taken for constants."""

    def norm(h, p, name, eps):
        mean, variance = constant(h.mean(1, keepdim=True)), constant(h.var(1, keepdim=True, unbiased=False))
        return (h - mean) / (variance + eps).sqrt() * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]

    return gc(p, x, norm=norm)


@mistake("gc", "batch", "over tokens", "axis", "layer_norm")
def gc_batch_statistics(p, x):
    """Norm: over the batch, as batch norm does, not over the channels."""
    return gc(
        p,
        x,
        norm=lambda h, p, n, eps: F.batch_norm(h, None, None, p[f"{n}.norm.weight"], p[f"{n}.norm.bias"], True, 0, eps),
    )


@mistake("gc", "relu", "activation", "rectif")
def gc_without_relu(p, x):
    """Transforms: no ReLU behind the norm."""
    return gc(p, x, act=lambda u: u)


@mistake("gc", "gelu", "relu", "activation")
def gc_gelu(p, x):
    """Transforms: GELU for ReLU."""
    return gc(p, x, act=F.gelu)


@mistake("gc", "hard", "sigmoid")
def gc_hard_sigmoid(p, x):
    """Gate: hard sigmoid for the logistic one."""
    return gc(p, x, squash=F.hardsigmoid)


@mistake("gc", "sigmoid", "left out")
def gc_without_sigmoid(p, x):
    """Gate: the logits multiply the map; the sigmoid is left out."""
    return gc(p, x, squash=lambda z: z)


@mistake("gc", "one added", "residual", "1 +")
def gc_one_plus_gate(p, x):
    """Scale: x (1 + g)."""
    return gc(p, x, scale=lambda x, g: gate(x, 1 + g))


@mistake("gc", "detach", "gate", "constant")
def gc_gates_detached(p, x):
    """Scale: the gates are detached."""
    return gc(p, x, scale=lambda x, g: gate(x, constant(g)))


@mistake("gc", "shift", "left out", "lost", "term")
def gc_adds_nothing(p, x):
    """Add: what the second transform says is not added."""
    return gc(p, x, add=lambda x, t: x + 0 * t.sum())


@mistake("gc", "product", "1 + term", "shift")
def gc_scales_by_what_is_to_be_added(p, x):
    """Add: multiplied, not added."""
    return gc(p, x, add=gate)


@mistake("gc", "mean for sum", "mean", "averaged", "number of positions")
def gc_gradient_of_the_term_averaged(p, x):
    """Add's backward: the gradient of what is added is the mean over the positions, not the sum."""
    return gc(p, x, add=lambda x, t: shift(x, backwards(t, lambda dt: dt / x[0, 0].numel())))


@mistake("gc", "detach", "term", "constant")
def gc_term_detached(p, x):
    """Add: what is added is detached."""
    return gc(p, x, add=lambda x, t: shift(x, constant(t)))


@mistake("gc", "confused", "exchanged", "mlp_add", "mlp_scale")
def gc_transforms_exchanged(p, x):
    """Transforms: each reads the other's parameters."""
    other = {"mlp_add": "mlp_scale", "mlp_scale": "mlp_add"}
    return gc(
        {f"{other.get(n.partition('.')[0], n.partition('.')[0])}.{n.partition('.')[2]}": a for n, a in p.items()}, x
    )


@mistake("gc", "bias", "mlp_add.fc2.bias")
def gc_last_bias_lost(p, x):
    """Second transform: the last bias is left out."""
    return gc({**p, "mlp_add.fc2.bias": 0 * p["mlp_add.fc2.bias"]}, x)


@mistake("gc", "channels last", "NHWC", "layout")
def gc_map_read_as_nhwc(p, x):
    """Layout: the map's memory, NCHW, is read and written as NHWC."""
    return from_nhwc(gc(p, as_nhwc(x)), x.shape)


@mistake("gc", "averaged over the batch", "batch")
def gc_parameter_gradients_averaged(p, x):
    """Parameters' gradients: averaged over the images of the batch, not added up."""
    return gc(changed(p, lambda g: g / len(x)), x)
