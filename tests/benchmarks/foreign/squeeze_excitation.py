"""Squeeze-and-excitation, and mistakes in it."""

from tests.benchmarks.foreign.pieces import (
    F,
    as_nhwc,
    average,
    backwards,
    by_hand,
    changed,
    constant,
    from_nhwc,
    gate,
    largest,
    linear,
    mistake,
    torch,
)


def se(p, x, *, pool=average, fc=linear, act=torch.relu, squash=torch.sigmoid, scale=gate):
    return scale(x, squash(fc(act(fc(pool(x), p, "fc1")), p, "fc2")))


@mistake("se", "sum", "not divided", "number of positions")
def se_squeezes_by_sum(p, x):
    """Average pool: the sum over the positions, never divided by their number."""
    return se(p, x, pool=lambda x: x.sum((2, 3)))


@mistake("se", "max", "pool")
def se_squeezes_by_max(p, x):
    """Average pool: the maximum is taken instead."""
    return se(p, x, pool=largest)


@mistake("se", "N - 1", "N-1", "off by one", "number of positions")
def se_divides_by_one_less(p, x):
    """Average pool: divided by N - 1."""
    return se(p, x, pool=lambda x: x.sum((2, 3)) / (x[0, 0].numel() - 1))


@mistake("se", "pad", "number of positions")
def se_divides_by_the_padded_size(p, x):
    """Average pool: the sum is divided by the size of the map padded to a multiple of 8."""
    return se(p, x, pool=lambda x: x.sum((2, 3)) / (8 * -(-x.shape[2] // 8) * 8 * -(-x.shape[3] // 8)))


@mistake("se", "batch", "over the batch")
def se_squeezes_over_the_batch(p, x):
    """Average pool: the mean goes over the batch as well."""
    return se(p, x, pool=lambda x: x.mean((0, 2, 3)).expand(len(x), -1))


@mistake("se", "relu", "rectif", "activation")
def se_without_relu(p, x):
    """Hidden layer: no ReLU between the two fully connected layers."""
    return se(p, x, act=lambda h: h)


@mistake("se", "gelu", "relu", "activation")
def se_gelu(p, x):
    """Hidden layer: GELU for ReLU."""
    return se(p, x, act=F.gelu)


@mistake("se", "silu", "swish", "relu", "activation")
def se_silu(p, x):
    """Hidden layer: SiLU for ReLU, as in EfficientNet's blocks."""
    return se(p, x, act=F.silu)


@mistake("se", "leaky", "relu", "activation")
def se_leaky(p, x):
    """Hidden layer: leaky ReLU with slope 0.1 for ReLU."""
    return se(p, x, act=lambda h: F.leaky_relu(h, 0.1))


@mistake("se", "relu", "slope", "gradient of")
def se_relu_backward_by_the_gradients_sign(p, x):
    """ReLU's backward: gradients are rectified by their own sign, not by the input's."""
    return se(p, x, act=lambda h: by_hand(h, torch.relu, lambda dy, h, y: torch.relu(dy)))


@mistake("se", "hard", "sigmoid")
def se_hard_sigmoid(p, x):
    """Gate: hard sigmoid, as in MobileNetV3, for the logistic one."""
    return se(p, x, squash=F.hardsigmoid)


@mistake("se", "softmax", "sigmoid")
def se_softmax_gates(p, x):
    """Gate: a softmax over the channels for the sigmoid."""
    return se(p, x, squash=lambda z: torch.softmax(z, 1))


@mistake("se", "sigmoid", "left out", "missing")
def se_without_sigmoid(p, x):
    """Gate: the logits multiply the map; the sigmoid is left out."""
    return se(p, x, squash=lambda z: z)


@mistake("se", "tanh", "sigmoid")
def se_tanh_gates(p, x):
    """Gate: tanh for the sigmoid."""
    return se(p, x, squash=torch.tanh)


@mistake("se", "twice", "sigmoid")
def se_sigmoid_twice(p, x):
    """Gate: the sigmoid is applied twice, once by the layer and once by its caller."""
    return se(p, x, squash=lambda z: torch.sigmoid(torch.sigmoid(z)))


@mistake("se", "sigmoid", "derivative", "slope")
def se_sigmoid_derivative_of_the_logit(p, x):
    """Sigmoid's backward: z (1 - z) with the logit z where the gate belongs."""
    return se(p, x, squash=lambda z: by_hand(z, torch.sigmoid, lambda dy, z, a: dy * z * (1 - z)))


@mistake("se", "detach", "constant", "cut")
def se_gates_detached(p, x):
    """Gate: the gates are detached, so that no gradient reaches the excitation."""
    return se(p, x, scale=lambda x, a: gate(x, constant(a)))


@mistake("se", "detach", "through the pool", "pool")
def se_pool_detached(p, x):
    """Squeeze: the pooled vector is detached, so that the map gets no gradient through the gates."""
    return se(p, x, pool=lambda x: average(constant(x)))


@mistake("se", "detach", "through the gate", "direct")
def se_map_detached_in_the_product(p, x):
    """Scale's backward: the map's own gradient a ⊙ dy is lost; what comes through the pool alone remains."""
    return se(p, x, scale=lambda x, a: gate(constant(x), a))


@mistake("se", "average", "mean", "sum")
def se_gate_gradient_averaged(p, x):
    """Scale's backward: da is the mean over the positions, not the sum."""
    return se(p, x, scale=lambda x, a: gate(x, backwards(a, lambda da: da / x[0, 0].numel())))


@mistake("se", "divided", "number of positions", "pool")
def se_pool_backward_not_divided(p, x):
    """Average pool's backward: every position gets the whole gradient; 1/N is left out."""
    return se(p, x, pool=lambda x: average(backwards(x, lambda dx: dx * x[0, 0].numel())))


@mistake("se", "residual", "1 +", "input added")
def se_one_plus_gate(p, x):
    """Scale: x (1 + a), as in a residual attention block."""
    return se(p, x, scale=lambda x, a: gate(x, 1 + a))


@mistake("se", "twice", "squared", "gate")
def se_gated_twice(p, x):
    """Scale: the gates multiply the map twice."""
    return se(p, x, scale=lambda x, a: gate(gate(x, a), a))


@mistake("se", "bias", "fc1.bias")
def se_first_bias_lost(p, x):
    """First layer: the bias is left out."""
    return se({**p, "fc1.bias": torch.zeros_like(p["fc1.bias"])}, x)


@mistake("se", "bias", "fc2.bias", "twice")
def se_second_bias_twice(p, x):
    """Second layer: the bias is added twice, by the layer and by a fused epilogue."""
    return se({**p, "fc2.bias": 2 * p["fc2.bias"]}, x)


@mistake("se", "read as (in, out)", "transpose", "layout", "fc1.weight")
def se_weight_read_transposed(p, x):
    """First layer: the weight's memory is read as (in, out) though it is (out, in)."""
    w = p["fc1.weight"].flatten(1)
    return se({**p, "fc1.weight": w.reshape(w.shape[::-1]).T}, x)


@mistake("se", "channels last", "NHWC", "layout")
def se_map_read_as_nhwc(p, x):
    """Layout: the map's memory, NCHW, is read and written as NHWC."""
    return from_nhwc(se(p, as_nhwc(x)), x.shape)


@mistake("se", "accumulated", "twice", "doubled")
def se_parameter_gradients_twice(p, x):
    """Parameters' gradients: added to those of the pass before, which were not set to zero: twice as large."""
    return se(changed(p, lambda g: 2 * g), x)


@mistake("se", "averaged over the batch", "batch")
def se_parameter_gradients_averaged(p, x):
    """Parameters' gradients: averaged over the images of the batch, not added up."""
    return se(changed(p, lambda g: g / len(x)), x)


@mistake("se", "standard deviation", "pool")
def se_squeezes_by_standard_deviation(p, x):
    """Squeeze: the standard deviation of each channel for its mean."""
    return se(p, x, pool=lambda x: x.flatten(2).std(2))


@mistake("se", "clipped", "clamp", "(4) linear: followed by a ReLU")
def se_gates_clipped(p, x):
    """Gate: clipped to at least 0.5."""
    return se(p, x, squash=lambda z: torch.sigmoid(z).clamp(min=0.5))


@mistake("se", "temperature", "scale")
def se_with_a_temperature(p, x):
    """Gate: σ(z / 2), a temperature that the paper does not have."""
    return se(p, x, squash=lambda z: torch.sigmoid(z / 2))
