"""Position attention, and mistakes in it."""

from tests.benchmarks.foreign.pieces import (
    as_nhwc,
    backwards,
    by_hand,
    changed,
    constant,
    from_nhwc,
    mistake,
    pointwise,
    scaled_residual,
    torch,
    weights,
    without_rowsum,
)


def products(q, k):
    return q.transpose(1, 2) @ k


def mix(v, s):
    return v @ s.transpose(1, 2)


def pam(p, x, *, conv=pointwise, logits=products, weigh=weights, gather=mix, add=scaled_residual):
    q, k, v = (conv(x, p, name).flatten(2) for name in ("query_conv", "key_conv", "value_conv"))
    return add(x, gather(v, weigh(logits(q, k))).reshape(x.shape), p["gamma"])


@mistake("pam", "axis", "over queries", "over the queries", "columns")
def pam_softmax_over_queries(p, x):
    """Softmax: along the queries, so that columns add up to 1."""
    return pam(p, x, weigh=lambda z: torch.softmax(z, 1))


@mistake("pam", "scale", "square root", "divided")
def pam_logits_scaled(p, x):
    """Logits: divided by √D, which DANet does not do."""
    return pam(p, x, logits=lambda q, k: products(q, k) / q.shape[1] ** 0.5)


@mistake("pam", "query and key", "queries and keys", "q and k", "swapped", "exchanged")
def pam_queries_and_keys_exchanged(p, x):
    """Logits: the keys' layer makes the queries, and the other way round."""
    return pam(p, x, logits=lambda q, k: products(k, q))


@mistake("pam", "transpose", "map")
def pam_map_transposed(p, x):
    """Mixture: the values are multiplied by the map as it is, not by its transpose."""
    return pam(p, x, gather=lambda v, s: v @ s)


@mistake("pam", "gamma", "residual")
def pam_gamma_on_the_residual_too(p, x):
    """Output: γ (x + o)."""
    return pam(p, x, add=lambda x, o, gamma: gamma * (x + o))


@mistake("pam", "gamma", "scale left out", "missing", "(5) gate: left out")
def pam_without_gamma(p, x):
    """Output: x + o; γ is left out."""
    return pam(p, x, add=lambda x, o, gamma: x + o + 0 * gamma)


@mistake("pam", "residual", "skip", "input")
def pam_residual_lost(p, x):
    """Output: γ o alone."""
    return pam(p, x, add=lambda x, o, gamma: gamma * o)


@mistake("pam", "residual", "skip", "detach")
def pam_residual_detached(p, x):
    """Output's backward: the gradient that passes by the attention is lost."""
    return pam(p, x, add=lambda x, o, gamma: constant(x) + gamma * o)


@mistake("pam", "residual", "gamma", "1 -", "convex")
def pam_convex_combination(p, x):
    """Output: (1 - γ) x + γ o."""
    return pam(p, x, add=lambda x, o, gamma: (1 - gamma) * x + gamma * o)


@mistake("pam", "gamma", "average", "mean")
def pam_gamma_gradient_averaged(p, x):
    """γ's gradient: the mean of dy ⊙ o, not the sum."""
    return pam(changed(p, lambda g: g / x.numel(), ["gamma"]), x)


@mistake("pam", "rowsum", "row sum", "delta", "softmax", "δ", "sum left out")
def pam_softmax_backward_without_the_rowsum(p, x):
    """Softmax's backward: s dy, without the sum Σ s dy over the row."""
    return pam(p, x, weigh=without_rowsum)


@mistake("pam", "rowsum", "row sum", "delta", "softmax", "axis", "sum over queries")
def pam_softmax_backward_with_the_columns_sum(p, x):
    """Softmax's backward: the sum that is taken off goes over the queries, not over the keys."""

    def gradient(dy, z, s):
        return s * (dy - (s * dy).sum(1, keepdim=True))

    return pam(p, x, weigh=lambda z: by_hand(z, weights, gradient))


@mistake("pam", "detach", "map", "weights", "constant")
def pam_map_detached(p, x):
    """Mixture's backward: no gradient reaches the map, so queries and keys get none."""
    return pam(p, x, gather=lambda v, s: mix(v, constant(s)))


@mistake("pam", "value", "detach", "dv dropped")
def pam_values_detached(p, x):
    """Mixture's backward: no gradient reaches the values."""
    return pam(p, x, gather=lambda v, s: mix(constant(v), s))


@mistake("pam", "key", "detach", "query", "dk dropped")
def pam_keys_detached(p, x):
    """Logits' backward: the keys get no gradient."""
    return pam(p, x, logits=lambda q, k: products(q, constant(k)))


@mistake("pam", "transpose", "query", "dq")
def pam_query_gradient_by_the_transposed_map(p, x):
    """Logits' backward: dq is made with the transposed gradient of the logits."""

    def logits(q, k):
        through_q = backwards(products(q, constant(k)), lambda dz: dz.transpose(1, 2))
        return through_q + products(constant(q), k) - constant(products(q, k))

    return pam(p, x, logits=logits)


@mistake("pam", "bias", "value_conv.bias")
def pam_value_bias_lost(p, x):
    """Values: their layer's bias is left out."""
    return pam({**p, "value_conv.bias": 0 * p["value_conv.bias"]}, x)


@mistake("pam", "bias", "query_conv.bias")
def pam_query_bias_lost(p, x):
    """Queries: their layer's bias is left out."""
    return pam({**p, "query_conv.bias": 0 * p["query_conv.bias"]}, x)


@mistake("pam", "value", "layer left out", "projection", "(3) conv2d: step left out")
def pam_values_are_the_map(p, x):
    """Values: the map itself; their layer is left out."""

    def conv(x, p, name):
        return pointwise(x, p, name) if name != "value_conv" else x + 0 * pointwise(x, p, name)

    return pam(p, x, conv=conv)


@mistake("pam", "height and width", "H and W", "order of positions", "layout", "transpose")
def pam_values_flattened_by_columns(p, x):
    """Layout: the values' positions are counted column by column, all others row by row."""

    def conv(x, p, name):
        y = pointwise(x, p, name)
        return y.transpose(2, 3) if name == "value_conv" else y

    return pam(p, x, conv=conv)


@mistake("pam", "layout", "transpose", "reshape", "view", "positions last")
def pam_output_viewed_without_a_transpose(p, x):
    """Layout: the mixture, positions by channels in memory, is viewed as channels by positions."""
    return pam(p, x, gather=lambda v, s: mix(v, s).transpose(1, 2).reshape(v.shape))


@mistake("pam", "channels last", "NHWC", "layout")
def pam_map_read_as_nhwc(p, x):
    """Layout: the map's memory, NCHW, is read and written as NHWC."""
    return from_nhwc(pam(p, as_nhwc(x)), x.shape)


@mistake("pam", "base", "exp2", "log2", "power of two")
def pam_exponentials_to_the_base_of_two(p, x):
    """Softmax: made with exp2, without log₂ e in the logits."""
    return pam(p, x, weigh=lambda z: weights(z * torch.tensor(2.0).log()))


@mistake("pam", "softmax left out", "1/N", "number of positions", "softmax")
def pam_divided_by_the_number_of_positions(p, x):
    """Softmax: left out; the logits are divided by N, the dot-product form of a non-local block."""
    return pam(p, x, weigh=lambda z: z / z.shape[-1])


@mistake("pam", "sigmoid", "softmax")
def pam_sigmoid_weights(p, x):
    """Softmax: a sigmoid of every logit for it."""
    return pam(p, x, weigh=torch.sigmoid)


@mistake("pam", "normalis", "denominator", "not divided", "softmax")
def pam_weights_not_normalised(p, x):
    """Softmax: exponentials of the logits less their maximum, never divided by their sum."""
    return pam(p, x, weigh=lambda z: (z - constant(z.amax(-1, keepdim=True))).exp())


@mistake("pam", "itself", "diagonal")
def pam_positions_do_not_see_themselves(p, x):
    """Softmax: the diagonal is masked."""
    return pam(p, x, weigh=lambda z: weights(z.masked_fill(torch.eye(z.shape[-1], dtype=torch.bool), -torch.inf)))


@mistake("pam", "last tile", "tail", "padding", "zero logits", "keys")
def pam_padded_keys_take_weight(p, x):
    """Softmax: the row is padded to a multiple of 32 with logits of 0, which take weight and give nothing."""

    def weigh(z):
        padding = -z.shape[-1] % 32
        return weights(torch.nn.functional.pad(z, (0, padding)))[..., : z.shape[-1]]

    return pam(p, x, weigh=weigh)


@mistake("pam", "rescal", "maximum", "online", "running")
def pam_accumulator_not_rescaled(p, x):
    """Online softmax: what has been added up is not rescaled when a block of keys brings a new maximum."""

    def gather(v, z):
        total, o, m = 0, 0, torch.full((*z.shape[:2], 1), -torch.inf, dtype=z.dtype)
        for vb, zb in zip(v.split(8, 2), z.split(8, 2), strict=True):
            new = torch.maximum(m, constant(zb.amax(-1, keepdim=True)))
            e = (zb - new).exp()
            total, o, m = total * (m - new).exp() + e.sum(-1, keepdim=True), o + e @ vb.transpose(1, 2), new
        return (o / total).transpose(1, 2)

    return pam(p, x, weigh=lambda z: z, gather=gather)


@mistake("pam", "sharp", "temperature", "scale", "twice")
def pam_logits_doubled(p, x):
    """Logits: added to an accumulator that already holds them, so that they are doubled."""
    return pam(p, x, logits=lambda q, k: 2 * products(q, k))
