"""Contexts, energies, choices and affinities written as kernels by the same hand, and mistakes in them."""

from tests.benchmarks.foreign.fresh_channel import as_map, se
from tests.benchmarks.foreign.fresh_pieces import (
    affine,
    forward_alone,
    gate,
    kernel,
    relu,
    rows,
    sigmoid,
    softmax,
    stored,
    whole,
)
from tests.benchmarks.foreign.pieces import F, backwards, mistake, torch, under


def scored(v, p, name):
    """One number for every position: (B, N)."""
    return (v * p[f"{name}.weight"].reshape(-1, 1)).sum(1) + p[f"{name}.bias"]


def average(v, a):
    return (v @ a[:, :, None])[..., 0]


def layer_norm(h, w, b):
    return F.layer_norm(h, h.shape[-1:], w, b, 1e-6)


def transformed(u, p, name, *, normalise=layer_norm):
    h = affine(u, p[f"{name}.fc1.weight"], p[f"{name}.fc1.bias"])
    h = relu(normalise(h, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"]))
    return as_map(affine(h, p[f"{name}.fc2.weight"], p[f"{name}.fc2.bias"]))


def scale_then_add(x, g, t):
    return gate(x, g) + t


def gc(p, x, *, weigh=softmax, gather=average, transform=transformed, join=scale_then_add, fork=lambda u: (u, u)):
    u = gather(rows(x), weigh(scored(rows(x), p, "conv_attn")))
    for_scale, for_add = fork(u)
    return join(x, sigmoid(transform(for_scale, p, "mlp_scale")), transform(for_add, p, "mlp_add"))


@mistake("gc", "order", "shift before", "added first", "before the gate", "gated too", "shifted")
def gc_adds_before_it_scales(p, x):
    """Forward: the context is added first, and the sum is multiplied by the gates."""
    return gc(p, x, join=lambda x, g, t: gate(x + t, g))


@mistake("gc", "unbiased", "n - 1", "variance", "C - 1")
def gc_layer_norm_with_the_unbiased_variance(p, x):
    """Forward: layer norm divides by the unbiased standard deviation, of one degree of freedom less."""

    def normalise(h, w, b):
        return (h - h.mean(-1, keepdim=True)) / torch.sqrt(h.var(-1, keepdim=True) + 1e-6) * w + b

    return gc(p, x, transform=lambda *of: transformed(*of, normalise=normalise))


@mistake("gc", "layer_norm: gradient", "variance", "second term", "projection", "constant", "term")
def gc_layer_norm_gradient_without_the_variance(p, x):
    """Backward: layer norm's gradient lacks the term that comes by the variance."""

    def normalise(h, w, b):
        deviation = torch.sqrt(h.var(-1, correction=0, keepdim=True) + 1e-6).detach()
        return (h - h.mean(-1, keepdim=True)) / deviation * w + b

    return gc(p, x, transform=lambda *of: transformed(*of, normalise=normalise))


@mistake("gc", "matmul: gradient", "values", "through the features", "first factor", "one factor", "gather", "detached")
def gc_context_gradient_through_the_weights_alone(p, x):
    """Backward: the context's gradient reaches the map by the weights alone; a_n dp, by the features, is missing."""
    return gc(p, x, gather=lambda v, a: average(v.detach(), a))


@mistake("gc", "overwrit", "accumulat", "one branch", "summand", "branch", "not added")
def gc_context_gradient_of_one_branch(p, x):
    """Backward: the context's gradient from the scale branch overwrites that from the add branch."""
    return gc(p, x, fork=lambda u: (u, u.detach()))


@mistake("gc", "tile", "block", "normalis", "local", "each")
def gc_softmax_tile_by_tile(p, x):
    """Tiles: the softmax is normalised within tiles of 16 positions, whose contexts are then averaged."""

    def weigh(s):
        parts = s.split(16, 1)
        return torch.cat([softmax(part) for part in parts], 1) / len(parts)

    return gc(p, x, weigh=weigh)


@mistake("gc", "padded", "padding", "number of channels", "mean", "divided by")
def gc_layer_norm_over_padded_channels(p, x):
    """Forward alone: layer norm's statistics count 16 channels, of which the second 8 are zeros of padding."""

    def normalise(h, w, b):
        padded = F.pad(h, (0, 16 - h.shape[1]))
        mu, var = padded.mean(-1, keepdim=True), padded.var(-1, correction=0, keepdim=True)
        return forward_alone(layer_norm(h, w, b), (h - mu) / torch.sqrt(var + 1e-6) * w + b)

    return gc(p, x, transform=lambda *of: transformed(*of, normalise=normalise))


SPACE = 2, 3


def centre(x):
    return x - x.mean(SPACE, keepdim=True)


def sample_variance(d):
    return (d * d).sum(SPACE, keepdim=True) / (d[0, 0].numel() - 1)


def energy(d, v):
    return d * d / (4 * (v + 1e-4)) + 0.5


def simam(p, x, *, centred=centre, variance=sample_variance, inverse=energy):
    d = centred(x)
    return gate(x, sigmoid(inverse(d, variance(d))))


@mistake("simam", "0.5", "½", "1/2", "half", "missing")
def simam_without_the_half(p, x):
    """Forward: the ½ is missing in the gates' logits."""
    return simam(p, x, inverse=lambda d, v: energy(d, v) - 0.5)


@mistake("simam", "batch", "over the batch", "all images")
def simam_mean_over_the_batch(p, x):
    """Forward: the mean goes over the batch as well."""
    return simam(p, x, centred=lambda x: x - x.mean((0, 2, 3), keepdim=True))


@mistake("simam", "variance", "constant", "detached", "inverse_energy: gradient")
def simam_variance_taken_as_a_constant(p, x):
    """Backward: the variance is treated as a constant."""
    return simam(p, x, variance=lambda d: sample_variance(d).detach())


@mistake("simam", "mean", "constant", "centred", "detached", "not centred")
def simam_mean_taken_as_a_constant(p, x):
    """Backward: the mean is treated as a constant."""
    return simam(p, x, centred=lambda x: x - x.mean(SPACE, keepdim=True).detach())


@mistake("simam", "precision", "bfloat16", "narrow", "cancel", "one pass", "rounded")
def simam_variance_in_one_pass(p, x):
    """Precision: the variance is E[x²] - E[x]², of sums that are held in bfloat16."""

    def variance(d):
        n = rows(x).shape[2]
        squares, sums = (stored(a.sum(SPACE, keepdim=True)) for a in (x * x, x))
        return forward_alone(sample_variance(d), (squares - sums * sums / n) / (n - 1))

    return simam(p, x, variance=variance)


@mistake("simam", "last block", "last tile", "remainder", "tail", "variance", "left out")
def simam_variance_of_whole_tiles(p, x):
    """Tiles: the variance adds up whole tiles of 8 positions, and divides by N - 1."""

    def variance(d):
        n = rows(d).shape[2]
        return (rows(d)[:, :, : whole(n, 8)] ** 2).sum(2)[:, :, None, None] / (n - 1)

    return simam(p, x, variance=variance)


def gated(p, x):
    return se(under(p, "inner."), x)


def residual(p, x, *, f=gated, add=torch.add):
    return add(x, f(p, x))


@mistake("residual", "skip", "identity", "overwritten", "in place", "twice", "inner")
def residual_adds_what_was_written_in_place(p, x):
    """Forward: the inner system writes its result into the input, which is then added to itself: 2 f(x)."""
    return residual(p, x, add=lambda x, f: f + f)


@mistake("residual", "add: gradient", "skip", "identity", "first summand", "detached")
def residual_skip_without_gradient(p, x):
    """Backward: the gradient comes back through the inner system alone."""
    return residual(p, x, add=lambda x, f: x.detach() + f)


@mistake("residual", "twice", "doubled", "add: gradient", "skip", "added again")
def residual_skip_gradient_added_twice(p, x):
    """Backward: the gradient past the inner system is added twice: once by it, once by the sum."""
    return residual(p, x, add=lambda x, f: backwards(x, lambda d: 2 * d) + f)


@mistake("residual", "gate", "without the gate", "gates are added", "not multiplied", "gated")
def residual_adds_the_gates(p, x):
    """Forward: the gates themselves are added to the map, not the map that they have scaled."""
    return residual(p, x, f=lambda p, x: se(under(p, "inner."), x, scale=lambda x, a: a.expand_as(x)))


@mistake("residual", "bfloat16", "precision", "narrow", "rounded")
def residual_stream_in_bfloat16(p, x):
    """Precision: the inner result is held in bfloat16 before it is added."""
    return residual(p, x, add=lambda x, f: x + stored(f))


@mistake("residual", "last block", "last tile", "remainder", "tail", "some positions", "skip")
def residual_not_added_in_the_last_tile(p, x):
    """Forward alone: the input is added in whole tiles of 16 positions; behind them the inner result stands alone."""

    def add(x, f):
        inside = (torch.arange(rows(x).shape[2]) < whole(rows(x).shape[2], 16)).reshape(x.shape[2:])
        return forward_alone(x + f, torch.where(inside, x + f, f))

    return residual(p, x, add=add)


def best(s, noise):
    return (s + noise).argmax(1)


def straight_through(h, a):
    return h + (a - a.detach())


def hard(p, x, noise, *, soft=softmax, draw=best, estimate=straight_through, gather=average):
    s = scored(rows(x), p, "score")
    h = F.one_hot(draw(s, noise), s.shape[1]).to(s.dtype)
    return gather(rows(x), estimate(h, soft(s)))


@mistake("hard", "sign", "noise", "subtracted", "negat")
def hard_noise_taken_off_the_scores(p, x, noise):
    """Forward: the noise is taken off the scores, where it should be added."""
    return hard(p, x, noise, draw=lambda s, noise: (s - noise).argmax(1))


@mistake("hard", "log", "probabilities", "after the softmax", "softmax", "weights")
def hard_noise_added_to_probabilities(p, x, noise):
    """Forward: the noise is added to the softmax's probabilities, where it should be added to the scores."""
    return hard(p, x, noise, draw=lambda s, noise: (softmax(s) + noise).argmax(1))


@mistake("hard", "softmax: gradient", "softmax", "Jacobian", "scores' gradient")
def hard_estimator_skips_the_softmax(p, x, noise):
    """Backward: the straight-through gradient is handed to the scores themselves, past the softmax."""
    return hard(p, x, noise, soft=lambda s: s)


@mistake("hard", "select: gradient", "soft", "all positions", "by the probabilities", "weights")
def hard_feature_gradient_spread_by_probability(p, x, noise):
    """Backward: dy is handed to all positions by their probability, where the selected one should have it."""

    def gather(v, w):
        a = softmax(scored(rows(x), p, "score")).detach()
        return kernel(average, lambda dy, v, w, y: (dy[:, :, None] * a[:, None], (dy[:, None] @ v)[:, 0]), v, w)

    return hard(p, x, noise, gather=gather)


@mistake("hard", "offset", "index", "tile", "local", "block", "wrong position")
def hard_index_within_its_tile(p, x, noise):
    """Tiles: the maximum is found tile by tile of 8 positions, and its index counts from its tile's start."""
    return hard(p, x, noise, draw=lambda s, noise: best(s, noise) % 8)


@mistake("hard", "layout", "transpos", "column", "row", "wrong position", "index")
def hard_index_of_the_other_layout(p, x, noise):
    """Forward alone: the selected feature is read from the map as if its columns followed one another in memory."""

    def gather(v, w):
        other = rows(x.mT)
        return forward_alone(average(v, w), average(other, w))

    return hard(p, x, noise, gather=gather)


def highest(s, k):
    return torch.sort(s, dim=1, descending=True, stable=True)[1][:, :k]


def features(v, index):
    return v.gather(2, index[:, None].expand(-1, v.shape[1], -1))


def soft_hard(p, x, k=4, *, choose=highest, soft=softmax, take=features, pick=lambda s, i: s.gather(1, i), mix=average):
    v = rows(x)
    s = scored(v, p, "score")
    index = choose(s, k)
    return mix(take(v, index), soft(pick(s, index)))


@mistake("soft-hard", "all positions", "renormalis", "normalis", "before the choice", "softmax")
def soft_hard_weights_of_all_positions(p, x):
    """Forward: the softmax is taken over all positions and not normalised again over the chosen ones."""
    return soft_hard(p, x, soft=lambda t: t, pick=lambda s, i: softmax(s).gather(1, i))


@mistake("soft-hard", "off by one", "k - 1", "one fewer", "one less", "too few", "one position")
def soft_hard_one_position_less(p, x):
    """Forward: what is greater than the k-th score is chosen, and so k - 1 positions."""
    return soft_hard(p, x, 3)


@mistake("soft-hard", "scatter", "index", "first positions", "top: gradient", "take: gradient", "wrong position")
def soft_hard_score_gradient_to_the_first_positions(p, x):
    """Backward: the chosen scores' gradients are written to the first k positions, not to where the scores stood."""

    def pick(s, i):
        return kernel(lambda s: s.gather(1, i), lambda dt, s, t: (F.pad(dt, (0, s.shape[1] - dt.shape[1])),), s)

    return soft_hard(p, x, pick=pick)


@mistake("soft-hard", "weights", "unweighted", "matmul: gradient", "not multiplied", "without the weight")
def soft_hard_feature_gradient_unweighted(p, x):
    """Backward: every chosen position's feature receives dy, not multiplied by its weight."""

    def mix(f, a):
        return kernel(average, lambda dy, f, a, y: (dy[:, :, None].expand_as(f), (dy[:, None] @ f)[:, 0]), f, a)

    return soft_hard(p, x, mix=mix)


@mistake("soft-hard", "tile", "block", "merge", "halves", "local", "not the highest", "wrong positions")
def soft_hard_best_of_each_half(p, x):
    """Tiles: each half of the positions gives its two highest, where the four highest of all should be merged."""

    def choose(s, k):
        n = s.shape[1] // 2
        return torch.cat([highest(s[:, :n], k // 2), n + highest(s[:, n:], k // 2)], 1)

    return soft_hard(p, x, choose=choose)


@mistake("soft-hard", "precision", "float8", "bfloat16", "rounded", "narrow", "weights")
def soft_hard_weights_in_float8(p, x):
    """Precision: the weights are held in float8_e5m2, whatever the format."""
    return soft_hard(p, x, soft=lambda t: stored(softmax(t), torch.float8_e5m2))


EPSILON = 1e-5


def unit(f):
    return f / (f.norm(dim=1, keepdim=True) + EPSILON)


def similarity(u):
    return torch.relu(u.mT @ u)


def quotient(t, s):
    return t / (s + EPSILON)


def pcm(p, maps, features, *, normalise=unit, compare=similarity, divide=quotient, sums=torch.matmul):
    a = compare(rows(normalise(F.conv2d(features, p["f9.weight"]))))
    return divide(sums(rows(maps), a), sums(torch.ones_like(rows(maps)[:, :1]), a)).reshape(maps.shape)


@mistake("pcm", "negative", "relu", "clip", "absolute", "sign", "affinit")
def pcm_absolute_similarities(p, maps, features):
    """Forward: a negative cosine counts by its absolute value, where it should count as 0."""
    return pcm(p, maps, features, compare=lambda u: torch.abs(u.mT @ u))


@mistake("pcm", "count", "number of positions", "divided by", "total", "normalis")
def pcm_divides_by_the_number_of_positions(p, maps, features):
    """Forward: sums are divided by the number of positions, not by the total of the affinities."""
    return pcm(p, maps, features, divide=lambda t, s: t / t.shape[2])


@mistake("pcm", "affinity_sums: gradient", "one side", "symmetr", "one factor", "both positions", "half")
def pcm_affinity_gradient_of_one_side(p, maps, features):
    """Backward: an affinity's gradient reaches the feature of one of its two positions alone."""
    return pcm(p, maps, features, compare=lambda u: torch.relu(u.mT.detach() @ u))


@mistake("pcm", "total", "denominator", "constant", "normalis", "detached", "gate: gradient")
def pcm_total_taken_as_a_constant(p, maps, features):
    """Backward: the total that sums are divided by is treated as a constant."""
    return pcm(p, maps, features, divide=lambda t, s: quotient(t, s.detach()))


@mistake("pcm", "l2_normalize", "norm", "length", "projection", "constant")
def pcm_length_taken_as_a_constant(p, maps, features):
    """Backward: a feature's length is treated as a constant in its normalisation."""
    return pcm(p, maps, features, normalise=lambda f: f / (f.norm(dim=1, keepdim=True) + EPSILON).detach())


@mistake("pcm", "last block", "last tile", "remainder", "tail", "positions left out")
def pcm_whole_tiles_of_positions(p, maps, features):
    """Tiles: sums go over whole tiles of 8 positions; those behind them give nothing."""

    def sums(m, a):
        n = whole(a.shape[1], 8)
        return m[..., :n] @ a[:, :n]

    return pcm(p, maps, features, sums=sums)


@mistake("pcm", "threshold", "diagonal", "itself", "own position")
def pcm_leaves_out_the_position_itself(p, maps, features):
    """Forward alone: a position's affinity to itself is left out of the sums."""

    def compare(u):
        a = similarity(u)
        return forward_alone(a, a - torch.diag_embed(a.diagonal(dim1=1, dim2=2)))

    return pcm(p, maps, features, compare=compare)
