"""Choosing among branches and splits, written as kernels by a third hand, and mistakes in it."""

from tests.benchmarks.foreign.fresh_pieces import conv, conv_in_tiles, forward_alone, kernel, mean, rows, stored, whole
from tests.benchmarks.foreign.pieces import F, backwards, constant, linear, mistake, norm, torch
from tests.benchmarks.foreign.recent_pieces import along, mix, mix_backward, softmax, without_sum


def halves(x):
    return x.chunk(2, 1)


def branch(p, m, v, *, rate, training=False, conv=conv):
    return F.relu(norm(conv(v, p[f"paths.{m}.conv.weight"], rate), p, f"paths.{m}.bn", training))


def fused(u):
    return mean(u.sum(1)).flatten(1)


def hidden(p, s, training):
    return F.relu(norm(linear(s, p, "attn.fc_reduce"), p, "attn.bn", training))


def chosen(z, **options):
    return softmax(z.unflatten(1, (2, -1)), 1, **options)


def sk(p, x, *, training=False, split=halves, read=branch, fuse=fused, hide=hidden, choose=chosen, mix=mix):
    parts = enumerate(split(x))
    u = torch.stack([read(p, m, v, rate=m + 1, training=training) for m, v in parts], 1)
    return mix(u, choose(linear(hide(p, fuse(u), training), p, "attn.fc_select")))


@mistake("sk", "average_pool: gradient", "pool: gradient", "pool detached", "detached", "through the pool")
def sk_branches_learn_nothing_through_the_pool(p, x):
    """Backward: what the branches' sum owes to the weights is not led back to the branches."""
    return sk(p, x, fuse=lambda u: fused(constant(u)))


@mistake("sk", "softmax: gradient", "sum over the branches", "without the sum", "row sum", "rowsum")
def sk_softmax_gradient_without_its_sum(p, x):
    """Backward: the softmax's gradient lacks the sum over the branches."""
    return sk(p, x, choose=lambda z: chosen(z, backward=without_sum))


@mistake("sk", "gate: gradient", "another branch", "first branch", "last branch", "same branch", "gradient of the gate")
def sk_weights_learn_from_the_last_branch(p, x):
    """Backward: all branches' maps are saved under one name, so that each weight's gradient reads the last one."""
    return sk(p, x, mix=lambda u, a: mix(u, a, backward=lambda dy, u, a, y: mix_backward(dy, u[:, [-1, -1]], a, y)))


@mistake("sk", "softmax: axis", "softmax: over", "another axis", "wrong axis", "over the channels", "other axis")
def sk_softmax_over_the_channels(p, x):
    """Forward: the softmax runs over the channels of a branch."""
    return sk(p, x, choose=lambda z: softmax(z.unflatten(1, (2, -1)), 2))


@mistake(
    "sk", "interleaved", "branches innermost", "channels before branches", "transposed", "reshaped", "reshape", "layout"
)
def sk_logits_read_with_the_branches_innermost(p, x):
    """Forward: the logits, branch by branch, are read as if the branches of a channel stood side by side."""
    return sk(p, x, choose=lambda z: softmax(z.unflatten(1, (-1, 2)).mT, 1))


@mistake("sk", "dilation", "taps")
def sk_reads_both_branches_without_dilation(p, x):
    """Forward: the second branch's kernel has its taps side by side."""
    return sk(p, x, read=lambda p, m, v, rate, training: branch(p, m, v, rate=1, training=training))


@mistake(
    "sk", "swapped", "order of the parts", "wrong half", "other half", "split: order", "parts exchanged", "reversed"
)
def sk_branches_read_each_others_half(p, x):
    """Forward alone: the first branch reads the second half of the channels, and the second the first."""
    return forward_alone(sk(p, x), sk(p, x, split=lambda x: halves(x)[::-1]))


@mistake("sk", "biased", "unbiased", "N - 1", "running_var", "running variance", in_channels=8, training=True)
def sk_running_variance_biased(p, x):
    """Forward: the layer behind the pool keeps the biased variance in its running statistics."""

    def hide(p, s, training):
        before, h = p["attn.bn.running_var"].clone(), linear(s, p, "attn.fc_reduce")
        r = F.relu(norm(h, p, "attn.bn", training))
        p["attn.bn.running_var"].data.copy_(0.9 * before + 0.1 * h.var(0, correction=0))
        return r

    return sk(p, x, training=True, hide=hide)


@mistake(
    "sk", "add: averaged", "averaged", "divided by the number", "mean of the branches", "sum of the branches", "halved"
)
def sk_forward_averages_the_branches(p, x):
    """Forward alone: what is pooled is the branches' average, where backward takes it for their sum."""
    return sk(p, x, fuse=lambda u: forward_alone(fused(u), fused(u) / 2))


@mistake("sk", "halo", "tile", "block", "border", "edge", "beyond")
def sk_dilated_branch_with_a_narrow_halo(p, x):
    """Tiles: each tile of 4×4 positions loads one row and column around it, where dilation 2 needs two."""

    def in_tiles(x, w, rate):
        return forward_alone(conv(x, w, rate), conv_in_tiles(x, w, rate, height=4, width=4, halo=1))

    return sk(p, x, read=lambda *of, **options: branch(*of, **options, conv=in_tiles))


@mistake("sk", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def sk_weights_held_in_bfloat16(p, x):
    """Precision: the weights of the branches are written in bfloat16 before the branches are mixed."""
    return sk(p, x, choose=lambda z: stored(chosen(z)))


def cut(w, radix):
    return w.unflatten(1, (radix, -1))


def by_split(a):
    """Order weights by split, then by group: (B, K, R, O / K) to (B, R, O)."""
    return a.transpose(1, 2).flatten(2)


def radix_softmax(z, groups, radix, **options):
    return by_split(softmax(z.reshape(len(z), groups, radix, -1), 2, **options))


def grouped(x, p, name, groups):
    return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], groups=groups)


def behind(p, h, training):
    return F.relu(norm(h, p, "bn1", training))


def pooled(v):
    return mean(v.sum(1))


def split(
    p,
    x,
    *,
    groups=1,
    radix=2,
    training=False,
    cut=cut,
    pool=pooled,
    act=behind,
    fc2=grouped,
    weigh=radix_softmax,
    mix=mix,
):
    u = F.conv2d(x, p["conv.weight"], padding=1, groups=groups * radix)
    v = cut(F.relu(norm(u, p, "bn0", training)), radix)
    r = act(p, grouped(pool(v), p, "fc1", groups), training)
    return mix(v, weigh(fc2(r, p, "fc2", groups), groups, radix))


CARDINAL = {"in_channels": 8, "hidden": 4, "groups": 2}


@mistake(
    "split",
    "radix before",
    "cardinal",
    "interleaved",
    "groups and splits",
    "order of the groups",
    "transposed",
    **CARDINAL,
)
def split_logits_read_split_by_split(p, x):
    """Forward: the logits of cardinal groups, each with its splits, are read as splits, each with its groups."""
    return split(p, x, groups=2, weigh=lambda z, groups, radix: softmax(z.reshape(len(z), radix, -1), 1))


@mistake("split", "interleaved", "every other", "in turn", "splits innermost", "layout", "split: order")
def split_takes_every_other_channel(p, x):
    """Forward: the splits are every other channel of the convolution's result, not its two halves."""
    return split(p, x, cut=lambda w, radix: w.unflatten(1, (-1, radix)).transpose(1, 2))


@mistake("split", "sigmoid", "softmax: not normalised", "softmax: without")
def split_sigmoid_for_softmax(p, x):
    """Forward alone: each split has a gate by itself, as a single one has."""
    return forward_alone(
        split(p, x),
        split(p, x, weigh=lambda z, groups, radix: by_split(torch.sigmoid(z.reshape(len(z), groups, radix, -1)))),
    )


@mistake("split", "momentum", "running statistics", "running mean", in_channels=8, hidden=4, training=True)
def split_momentum_of_the_old(p, x):
    """Forward: behind the pool the old running statistics have the weight that the batch's should have."""

    def act(p, h, training):
        return F.relu(norm(h, p, "bn1", training, momentum=0.9))

    return split(p, x, training=True, act=act)


@mistake("split", "softmax: gradient", "another axis", "wrong axis", "over the channels", "other axis")
def split_softmax_gradient_sums_over_channels(p, x):
    """Backward: the softmax over splits takes its sum over the channels of a split."""
    return split(p, x, weigh=lambda z, *of: radix_softmax(z, *of, backward=along(3)))


@mistake("split", "add: gradient", "first split", "only the first", "one split", "average_pool: gradient")
def split_descriptor_gradient_to_the_first_split(p, x):
    """Backward: what comes back from the splits' sum is added to the first split's gradient alone."""

    def pool(v):
        return mean(torch.cat((v[:, :1], v[:, 1:].detach()), 1).sum(1))

    return split(p, x, pool=pool)


@mistake(
    "split", "transposed", "cardinal", "groups and splits", "interleaved", "order of the groups", "reshape", **CARDINAL
)
def split_weights_gradient_not_transposed_back(p, x):
    """Backward: the weights' gradient, by split and group, is taken for one by group and split."""

    def weigh(z, groups, radix):
        a = softmax(z.reshape(len(z), groups, radix, -1), 2)
        return kernel(by_split, lambda dy, a, y: (dy.reshape(a.shape),), a)

    return split(p, x, groups=2, weigh=weigh)


@mistake("split", "relu: gradient", "before the norm", "relu: wrong mask", "mask of")
def split_relu_gradient_by_the_norms_input(p, x):
    """Backward: the hidden rectifier passes gradients where the norm's input is positive, not its output."""

    def act(p, h, training):
        n = norm(h, p, "bn1", training)
        return kernel(lambda n, h: torch.relu(n), lambda dy, n, h, y: (dy * (h > 0), None), n, h)

    return split(p, x, act=act)


@mistake("split", "number of positions", "divided by", "padded", "count", "average_pool: divi")
def split_average_over_padded_positions(p, x):
    """Tiles: the average divides by the positions of whole tiles of 16, with those that padding adds."""

    def pool(v):
        n = v.shape[3] * v.shape[4]
        return pooled(v) * (n / (-(-n // 16) * 16))

    return split(p, x, pool=pool)


@mistake("split", "last block", "last tile", "remainder", "tail", "positions left out")
def split_mixes_whole_tiles(p, x):
    """Tiles: positions behind the last whole tile of 8 are never written, and stay 0."""

    def mixed(u, a):
        y = mix(u, a)
        kept = (torch.arange(rows(y).shape[2]) < whole(rows(y).shape[2], 8)).reshape(y.shape[2:])
        return forward_alone(y, y * kept)

    return split(p, x, mix=mixed)


@mistake("split", "conv2d: bias", "conv: bias", "bias missing", "without bias", "bias left out", "no bias", "bias")
def split_forward_without_the_last_bias(p, x):
    """Forward alone: the weights' logits lack the second layer's bias, which has its gradient all the same."""

    def fc2(r, p, name, groups):
        z = grouped(r, p, name, groups)
        return forward_alone(z, z - p["fc2.bias"][:, None, None])

    return split(p, x, fc2=fc2)


@mistake("split", "rounded", "bfloat16", "half precision", "lower precision", "narrow", "precision")
def split_descriptor_held_in_bfloat16(p, x):
    """Precision: the average is written in bfloat16 before the layers read it."""
    return split(p, x, pool=lambda v: stored(pooled(v)))


@mistake("split", "scaled", "doubled", "twice", "radix times", "number of splits", "times 2")
def split_descriptor_gradient_counted_per_split(p, x):
    """Backward: each of the two splits' programs adds the descriptor's whole gradient to the sum's gradient."""
    return split(p, x, pool=lambda v: pooled(backwards(v, lambda dv: 2 * dv)))
