"""Flexible attention and CBAM's channel gate, which are one network under two sets of names, and mistakes in them."""

from tests.benchmarks.foreign.pieces import (
    F,
    average,
    by_hand,
    changed,
    constant,
    gate,
    largest,
    linear,
    mistake,
    torch,
)


def added(logits):
    return torch.sigmoid(sum(logits))


POOLS = {
    "avg": average,
    "max": largest,
    "lp": lambda x: x.flatten(2).norm(dim=2),
    "lse": lambda x: x.flatten(2).logsumexp(2),
}


def flexible(p, x, pools=("avg", "max"), *, layers=("fc1", "fc2"), fc=linear, act=torch.relu, join=added, scale=gate):
    """A pool is given by its name or as a function."""
    pooled = [POOLS.get(pool, pool)(x) for pool in pools]
    return scale(x, join([fc(act(fc(u, p, layers[0])), p, layers[1]) for u in pooled]))


def cbam_channel(p, x, pools=("avg", "max"), **hooks):
    return flexible(p, x, pools, layers=("mlp.1", "mlp.3"), **hooks)


@mistake("flexible", "sigmoid before", "sum of sigmoids", "before the sum")
def flexible_sigmoid_before_the_sum(p, x):
    """Join: each pool's logits pass the sigmoid, and the gates are added."""
    return flexible(p, x, join=lambda logits: sum(map(torch.sigmoid, logits)))


@mistake("flexible", "product", "multiplied", "before the sum")
def flexible_gates_multiplied(p, x):
    """Join: each pool's logits pass the sigmoid, and the gates are multiplied."""
    return flexible(p, x, join=lambda logits: torch.sigmoid(logits[0]) * torch.sigmoid(logits[1]))


@mistake("flexible", "before the shared", "pools added", "before the MLP", "before the layers")
def flexible_pools_added_before_the_layers(p, x):
    """Pools: average and maximum are added before the shared layers."""
    return flexible(p, x, (lambda x: average(x) + largest(x),))


@mistake("flexible", "average", "halved", "mean of")
def flexible_logits_averaged(p, x):
    """Join: the mean of the two logits for their sum."""
    return flexible(p, x, join=lambda logits: torch.sigmoid(sum(logits) / 2))


@mistake("flexible", "max pool left out", "average alone", "max", "pool", "(6) v[batch:] not added")
def flexible_without_the_maximum(p, x):
    """Pools: the branch of the maximum is left out."""
    return flexible(p, x, ("avg",))


@mistake("flexible", "average pool left out", "maximum alone", "average", "pool", "(6) v[:batch] not added")
def flexible_without_the_average(p, x):
    """Pools: the branch of the average is left out."""
    return flexible(p, x, ("max",))


@mistake("flexible", "average for", "pool", "max")
def flexible_average_for_the_maximum(p, x):
    """Pools: the average passes both branches."""
    return flexible(p, x, ("avg", "avg"))


@mistake("flexible", "ties", "shared among", "max")
def flexible_maximum_shared_among_ties(p, x):
    """Max pool's backward: positions that tie share the gradient, as `amax` does; it shows where there are ties."""
    return flexible(p, x, ("avg", lambda x: x.amax((2, 3))))


@mistake("flexible", "every position", "all positions", "max")
def flexible_maximum_backward_to_all(p, x):
    """Max pool's backward: every position receives the maximum's gradient."""

    def backward(dy, x, y):
        return dy[:, :, None, None].expand(x.shape)

    return flexible(p, x, ("avg", lambda x: by_hand(x, largest, backward)))


@mistake("flexible", "divided", "average", "max")
def flexible_maximum_backward_divided(p, x):
    """Max pool's backward: the gradient is spread over the positions as an average's is."""

    def backward(dy, x, y):
        return (dy / x[0, 0].numel())[:, :, None, None].expand(x.shape)

    return flexible(p, x, ("avg", lambda x: by_hand(x, largest, backward)))


@mistake("flexible", "detach", "max", "argmax")
def flexible_maximum_detached(p, x):
    """Max pool: no gradient comes back through the maximum."""
    return flexible(p, x, ("avg", lambda x: largest(constant(x))))


@mistake("flexible", "bias", "once", "fc2.bias")
def flexible_second_bias_once(p, x):
    """Second layer: its bias counts once, added after the sum of the two branches."""
    return flexible(p, x, join=lambda logits: added([*logits, -p["fc2.bias"]]))


@mistake("flexible", "relu", "rectif", "activation")
def flexible_without_relu(p, x):
    """Hidden layer: no ReLU."""
    return flexible(p, x, act=lambda h: h)


@mistake("flexible", "absolute", "magnitude", "max")
def flexible_maximum_of_magnitudes(p, x):
    """Max pool: the largest absolute value."""
    return flexible(p, x, ("avg", lambda x: largest(x.abs())))


@mistake("flexible", "zero", "relu", "clamped", "max")
def flexible_maximum_starts_at_zero(p, x):
    """Max pool: the running maximum starts from a large number that was meant as minus infinity, here 2."""
    return flexible(p, x, ("avg", lambda x: largest(x).clamp(min=2)))


@mistake("flexible", "one branch", "last", "overwritten", "gradient of the weights", "second half of the rows")
def flexible_weight_gradient_of_one_branch(p, x):
    """Shared layers' backward: the gradient of the second branch overwrites that of the first."""
    fixed = {name: constant(a) for name, a in p.items()}
    calls = []

    def fc(u, p, name):
        calls.append(name)
        return linear(u, fixed if len(calls) <= 2 else p, name)

    return flexible(p, x, fc=fc)


@mistake("flexible", "accumulated", "twice", "doubled")
def flexible_parameter_gradients_twice(p, x):
    """Parameters' gradients: those of the pass before were not set to zero."""
    return flexible(changed(p, lambda g: 2 * g), x)


@mistake("cbam-channel", "mean of the pools' sigmoids", "sigmoid before", "sum of sigmoids", "before the sum")
def cbam_channel_mean_of_sigmoids(p, x):
    """Join: the mean of the two pools' sigmoids."""
    return cbam_channel(p, x, join=lambda logits: sum(map(torch.sigmoid, logits)) / 2)


@mistake("cbam-channel", "before the shared", "pools added", "before the MLP", "before the layers")
def cbam_channel_pools_added_before_the_layers(p, x):
    """Pools: average and maximum are averaged before the shared layers."""
    return cbam_channel(p, x, (lambda x: (average(x) + largest(x)) / 2,))


@mistake("cbam-channel", "hard", "sigmoid")
def cbam_channel_hard_sigmoid(p, x):
    """Gate: hard sigmoid."""
    return cbam_channel(p, x, join=lambda logits: F.hardsigmoid(sum(logits)))


@mistake("cbam-channel", "relu", "last layer", "activation", "(4) linear: followed by a ReLU")
def cbam_channel_relu_behind_the_second_layer(p, x):
    """Second layer: a ReLU stands behind it too, so that no gate is below 1/2."""
    return cbam_channel(p, x, join=lambda logits: added([torch.relu(z) for z in logits]))


@mistake("cbam-channel", "sum", "not divided", "number of positions")
def cbam_channel_average_is_a_sum(p, x):
    """Average pool: the sum over the positions."""
    return cbam_channel(p, x, (lambda x: x.sum((2, 3)), "max"))


@mistake("cbam-channel", "bias", "mlp.1.bias")
def cbam_channel_first_bias_lost(p, x):
    """First layer: no bias, as in ports whose layers are 1×1 convolutions without one."""
    return cbam_channel({**p, "mlp.1.bias": 0 * p["mlp.1.bias"]}, x)


@mistake("cbam-channel", "bias", "mlp.3.bias", "one branch")
def cbam_channel_bias_gradient_of_one_branch(p, x):
    """Second layer's backward: the bias's gradient counts the images once, though two branches pass the layer."""
    return cbam_channel(changed(p, lambda g: g / 2, ["mlp.3.bias"]), x)


@mistake("cbam-channel", "detach", "constant", "cut")
def cbam_channel_gates_detached(p, x):
    """Gate: detached."""
    return cbam_channel(p, x, scale=lambda x, a: gate(x, constant(a)))


LSE = {"channels": 16, "reduction": 4, "pools": ("avg", "max", "lse")}


@mistake("cbam-channel", "log-mean-exp", "mean", "logsumexp", **LSE)
def cbam_channel_log_mean_exp(p, x):
    """Logsumexp pool: the log of the mean of exponentials, not of their sum."""
    return cbam_channel(p, x, ("avg", "max", lambda x: x.exp().mean((2, 3)).log()))


@mistake("cbam-channel", "log", "maximum", "logsumexp", **LSE)
def cbam_channel_log_sum_exp_loses_the_maximum(p, x):
    """Logsumexp pool: the maximum that was taken off before the exponential is not added again."""
    return cbam_channel(p, x, ("avg", "max", lambda x: POOLS["lse"](x) - largest(x)))


@mistake("cbam-channel", "base", "log2", "logsumexp", **LSE)
def cbam_channel_log_sum_exp_to_the_base_of_two(p, x):
    """Logsumexp pool: made with exp2 and log2 without the factors between the bases."""
    return cbam_channel(p, x, ("avg", "max", lambda x: torch.exp2(x).sum((2, 3)).log2()))


LP = {"channels": 16, "reduction": 4, "pools": ("avg", "lp")}


@mistake("cbam-channel", "root", "squared", "norm", **LP)
def cbam_channel_norm_without_the_root(p, x):
    """Norm pool: the sum of squares, without the root."""
    return cbam_channel(p, x, ("avg", lambda x: (x * x).sum((2, 3))))


@mistake("cbam-channel", "mean square", "divided", "number of positions", "norm", "mean, not sum", **LP)
def cbam_channel_norm_is_a_root_mean_square(p, x):
    """Norm pool: the root of the mean square, as an average pool of power 2 gives."""
    return cbam_channel(p, x, ("avg", lambda x: (x * x).mean((2, 3)).sqrt()))


@mistake("cbam-channel", "power", "absolute", "norm", **LP)
def cbam_channel_norm_of_power_one(p, x):
    """Norm pool: the sum of magnitudes, a norm of power 1."""
    return cbam_channel(p, x, ("avg", lambda x: x.abs().sum((2, 3))))


@mistake("cbam-channel", "noise", "dropout")
def cbam_channel_hidden_units_dropped(p, x):
    """Hidden layer: every other unit is dropped and the rest doubled, a dropout left on in inference."""
    keep = torch.arange(p["mlp.1.bias"].numel()) % 2 * 2
    return cbam_channel(p, x, act=lambda h: torch.relu(h) * keep)


@mistake("cbam-channel", "gates of the next image", "images", "batch", "layout")
def cbam_channel_gates_of_the_next_image(p, x):
    """Gate: each image is multiplied by the gates of the next one in the batch."""
    return cbam_channel(p, x, scale=lambda x, a: gate(x, a.roll(-1, 0)))
