"""Hard and soft-hard attention, and mistakes in them."""

from functools import partial

from tests.benchmarks.foreign.pieces import by_hand, constant, mistake, pointwise, torch


def scored(x, p):
    return pointwise(x, p, "score").flatten(1)


def one_hot(index, a):
    return torch.nn.functional.one_hot(index, a.shape[1]).to(a)


def straight_through(h, a):
    return h + a - constant(a)


def perturbed(s, noise):
    return s + noise


def mixed(v, w):
    return (v @ w[:, :, None])[:, :, 0]


def soften(s, noise):
    return torch.softmax(s, 1)


def hard(p, x, noise, *, score=scored, rank=perturbed, soft=soften, estimate=straight_through, gather=mixed):
    s = score(x, p)
    h = one_hot(rank(s, noise).argmax(1), s)
    return gather(x.flatten(2), estimate(h, soft(s, noise)))


@mistake("hard", "soft", "straight-through", "hard")
def hard_puts_out_the_soft_mean(p, x, noise):
    """Selection: the output is the mean with the probabilities, not the feature that was drawn."""
    return hard(p, x, noise, estimate=lambda h, a: a)


@mistake("hard", "noise", "ignored", "left out", "most probable")
def hard_without_noise(p, x, noise):
    """Draw: the noise is ignored; the most probable position is taken."""
    return hard(p, x, 0 * noise)


@mistake("hard", "noise", "sign", "subtracted")
def hard_noise_subtracted(p, x, noise):
    """Draw: the noise is taken off the scores."""
    return hard(p, x, noise, rank=torch.sub)


@mistake("hard", "noise", "probabilit", "logarithm", "log")
def hard_noise_on_the_probabilities(p, x, noise):
    """Draw: the noise is added to the probabilities, not to their logarithms."""
    return hard(p, x, noise, rank=lambda s, g: torch.softmax(s, 1) + g)


@mistake("hard", "min", "argmin")
def hard_takes_the_least(p, x, noise):
    """Draw: the position with the least sum."""
    return hard(p, x, noise, rank=lambda s, g: -(s + g))


@mistake("hard", "detach", "straight-through", "scores", "estimator", "argmax")
def hard_without_an_estimator(p, x, noise):
    """Draw's backward: no gradient passes the argmax; the scores get none."""
    return hard(p, x, noise, estimate=lambda h, a: h + 0 * a)


@mistake("hard", "softmax", "straight-through", "identity", "jacobian")
def hard_gradient_passed_by_the_softmax(p, x, noise):
    """Softmax's backward: left out; the one-hot's gradient is taken for the scores'."""
    return hard(p, x, noise, soft=lambda s, g: s)


@mistake("hard", "rowsum", "row sum", "delta", "softmax")
def hard_softmax_backward_without_the_rowsum(p, x, noise):
    """Softmax's backward: without the sum over the positions."""

    def soft(s, g):
        return by_hand(s, lambda s: torch.softmax(s, 1), lambda dy, s, a: a * dy)

    return hard(p, x, noise, soft=soft)


@mistake("hard", "noise", "gumbel", "softmax", "perturbed")
def hard_gumbel_softmax(p, x, noise):
    """Softmax: of the scores with their noise, as Gumbel-softmax has it."""
    return hard(p, x, noise, soft=lambda s, g: torch.softmax(s + g, 1))


@mistake("hard", "soft", "map's gradient", "x.grad", "one-hot", "select")
def hard_map_gradient_by_the_probabilities(p, x, noise):
    """Selection's backward: the map gets its gradient by the probabilities, not by the one-hot."""

    def gather(v, w):
        s = torch.softmax(scored(x, p), 1)
        through_map = mixed(v, constant(s))
        return mixed(constant(v), w) + through_map - constant(through_map)

    return hard(p, x, noise, gather=gather)


@mistake("hard", "select", "detach", "map", "one-hot")
def hard_map_detached(p, x, noise):
    """Selection's backward: the map gets a gradient through the scores alone."""
    return hard(p, x, noise, gather=lambda v, w: mixed(constant(v), w))


@mistake("hard", "temperature", "scale")
def hard_with_a_temperature(p, x, noise):
    """Softmax: of the scores divided by a temperature of 1/2."""
    return hard(p, x, noise, soft=lambda s, g: torch.softmax(2 * s, 1))


@mistake("hard", "height and width", "H and W", "order of positions", "layout", "columns", "index")
def hard_index_counted_by_columns(p, x, noise):
    """Selection: the index counts by rows, the map is read by columns."""
    return hard(p, x, noise, gather=lambda v, w: mixed(v.unflatten(2, x.shape[2:]).transpose(2, 3).flatten(2), w))


@mistake("hard", "off by one", "index", "shift", "one position on")
def hard_takes_the_next_position(p, x, noise):
    """Selection: indices from 1 are read as if they counted from 0."""
    return hard(p, x, noise, estimate=lambda h, a: straight_through(h.roll(1, 1), a))


def chosen(s, k):
    return s.topk(k, 1)


def softmax(t):
    return torch.softmax(t, 1)


def soft_hard(p, x, k=4, *, score=scored, choose=chosen, weigh=softmax, gather=mixed, take=torch.gather):
    t, index = choose(score(x, p), k)
    v = x.flatten(2)
    return gather(take(v, 2, index[:, None].expand(-1, v.shape[1], -1)), weigh(t))


@mistake("soft-hard", "all positions", "renormalis", "before the choice", "softmax", "top")
def soft_hard_not_renormalised(p, x):
    """Softmax: over all positions; of its weights the k highest are kept, and do not add up to 1."""
    return soft_hard(p, x, choose=lambda s, k: softmax(s).topk(k, 1), weigh=lambda t: t)


@mistake("soft-hard", "twice", "softmax", "all positions")
def soft_hard_softmax_twice(p, x):
    """Softmax: over all positions, and again over the k that are chosen."""
    return soft_hard(p, x, choose=lambda s, k: softmax(s).topk(k, 1))


@mistake("soft-hard", "sum", "renormalis", "backward", "constant", "detach")
def soft_hard_denominator_detached(p, x):
    """Softmax's backward: the sum that weights are divided by is taken as a constant."""
    return soft_hard(p, x, weigh=lambda t: t.exp() / constant(t.exp().sum(1, keepdim=True)))


@mistake("soft-hard", "lowest", "least", "smallest", "top")
def soft_hard_takes_the_lowest(p, x):
    """Choice: the k lowest scores."""
    return soft_hard(p, x, choose=lambda s, k: s.topk(k, 1, largest=False))


@mistake("soft-hard", "k", "off by one", "one more", "top")
def soft_hard_takes_one_more(p, x):
    """Choice: every position whose score is at least the (k+1)-th highest."""
    return soft_hard(p, x, k=5)


@mistake("soft-hard", "k", "off by one", "one less", "top")
def soft_hard_takes_one_less(p, x):
    """Choice: every position whose score is above the k-th highest."""
    return soft_hard(p, x, k=3)


@mistake("soft-hard", "all positions", "choice left out", "k")
def soft_hard_takes_all(p, x):
    """Choice: left out; all positions are weighed."""
    return soft_hard(p, x, k=x.shape[2] * x.shape[3])


@mistake("soft-hard", "absolute", "magnitude")
def soft_hard_ranks_by_magnitude(p, x):
    """Choice: by the magnitudes of the scores."""

    def choose(s, k):
        index = s.abs().topk(k, 1).indices
        return s.gather(1, index), index

    return soft_hard(p, x, choose=choose)


@mistake("soft-hard", "uniform", "equal", "mean", "weights")
def soft_hard_equal_weights(p, x):
    """Softmax: left out; what is chosen is averaged."""
    return soft_hard(p, x, weigh=lambda t: 0 * t + 1 / t.shape[1])


@mistake("soft-hard", "order", "sorted", "index", "features")
def soft_hard_features_in_another_order(p, x):
    """Features: taken by sorted indices, while the weights stand by falling score."""
    return soft_hard(p, x, take=lambda v, axis, index: v.gather(axis, index.sort(-1).values))


@mistake("soft-hard", "batch", "first image", "index", "positions of image 0")
def soft_hard_positions_of_the_first_image(p, x):
    """Features: taken of every image at the positions that the first image chose."""
    return soft_hard(p, x, take=lambda v, axis, index: v.gather(axis, index[:1].expand_as(index)))


@mistake("soft-hard", "rowsum", "row sum", "delta", "softmax")
def soft_hard_softmax_backward_without_the_rowsum(p, x):
    """Softmax's backward: without the sum over what is chosen."""
    return soft_hard(p, x, weigh=lambda t: by_hand(t, softmax, lambda dy, t, a: a * dy))


@mistake("soft-hard", "detach", "weights", "scores", "constant")
def soft_hard_weights_detached(p, x):
    """Mixture's backward: the weights are constants; the scores get no gradient."""
    return soft_hard(p, x, gather=lambda f, a: mixed(f, constant(a)))


@mistake("soft-hard", "become 0", "zero", "masked", "-inf", "infinity")
def soft_hard_others_at_zero(p, x):
    """Choice: scores that are not chosen become 0, not minus infinity, and take weight."""

    def choose(s, k):
        kept = torch.zeros_like(s).scatter(1, s.topk(k, 1).indices, 1)
        return s * kept, torch.arange(s.shape[1]).expand_as(s)

    return soft_hard(p, x, choose=choose)


tempered = partial(soft_hard, weigh=lambda t: softmax(t * 32**-0.5))


@mistake("soft-hard", "scale", "square root", "temperature", "divided by √C")
def soft_hard_scaled(p, x):
    """Softmax: scores are divided by √C first."""
    return tempered(p, x)
