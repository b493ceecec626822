"""Softmax attention written as kernels by the same hand, and mistakes in them."""

import math

from tests.benchmarks.foreign.fresh_pieces import (
    attend,
    attend_backward,
    attend_forward,
    conv,
    conv_backward,
    forward_alone,
    kernel,
    relu,
    rows,
    softmax,
    stored,
    whole,
)
from tests.benchmarks.foreign.pieces import F, backwards, mistake, norm, torch, under


def project(x, p, name):
    """A 1×1 convolution, with positions before channels: (B, N, O)."""
    return rows(x).mT @ p[f"{name}.weight"].flatten(1).T + p[f"{name}.bias"]


def add_scaled(x, o, gamma):
    return x + gamma * o


def pam(p, x, *, attention=attend, add=add_scaled):
    o = attention(*(project(x, p, f"{name}_conv") for name in ("query", "key", "value")))
    return add(x, o.mT.reshape(x.shape), p["gamma"])


def value_of(change):
    """Make of a change of the weights' logits, or of the weights, an attention with the mistake in its value alone."""
    return lambda q, k, v: attend(q, k, v, value=change)


@mistake("pam", "axis", "over the queries", "queries", "columns", "wrong axis", "transposed")
def pam_normalises_over_the_queries(p, x):
    """Forward: the softmax runs over the queries, where it should run over the keys."""
    return pam(p, x, attention=lambda q, k, v: softmax(k @ q.mT).mT @ v)


@mistake("pam", "1/√d", "√d", "scale", "scaled", "sqrt", "square root")
def pam_divides_by_the_root_of_d(p, x):
    """Forward: logits are divided by √d, as in transformers; here they are not."""
    return pam(p, x, attention=lambda q, k, v: attend(q, k, v, q.shape[-1] ** -0.5))


@mistake("pam", "keys", "transpose", "dk", "k's gradient", "key's gradient")
def pam_key_gradient_not_transposed(p, x):
    """Backward: the keys' gradient is dZ q, where the logits' gradient should be transposed."""

    def backward(do, q, k, v, o, *, scale):
        w = torch.softmax(q @ k.mT, -1)
        dz = w * (do @ v.mT - (do * o).sum(-1, keepdim=True))
        return dz @ k, dz @ q, w.mT @ do

    return pam(p, x, attention=lambda *qkv: attend(*qkv, backward=backward))


@mistake("pam", "gamma", "scale: gradient", "output", "γ")
def pam_gamma_gradient_of_the_output(p, x):
    """Backward: γ receives the sum of dy y, of the sum with the input, where the attention's result alone counts."""

    def backward(dy, x, o, gamma, y):
        return dy, gamma * dy, (dy * y).sum().reshape(1)

    return pam(p, x, add=lambda *of: kernel(add_scaled, backward, *of))


@mistake("pam", "rescale", "rescaling", "online", "running maximum", "correction", "tile", "block")
def pam_online_softmax_sums_not_rescaled(p, x):
    """Tiles: when a tile of 8 keys raises the maximum the denominator is rescaled, and the sum of values is not."""

    def value(q, k, v, scale):
        best, total, o = -math.inf * torch.ones_like(q[..., :1]), 0, 0
        for kj, vj in zip(k.split(8, 1), v.split(8, 1), strict=True):
            z = q @ kj.mT
            new = torch.maximum(best, z.amax(-1, keepdim=True))
            e = torch.exp(z - new)
            total = total * torch.exp(best - new) + e.sum(-1, keepdim=True)
            o, best = o + e @ vj, new
        return o / total

    return pam(p, x, attention=value_of(value))


@mistake("pam", "padded", "padding", "last tile", "last block", "beyond the end", "zero keys", "remainder")
def pam_softmax_counts_padded_keys(p, x):
    """Tiles: keys are padded with zeros to whole tiles of 16, and the padded ones take weight: exp(0) each."""

    def value(q, k, v, scale):
        extra = -k.shape[1] % 16
        return attend_forward(q, F.pad(k, (0, 0, 0, extra)), F.pad(v, (0, 0, 0, extra)), scale)

    return pam(p, x, attention=value_of(value))


def gram(r):
    return kernel(lambda r: r @ r.mT, lambda dg, r, g: ((dg + dg.mT) @ r,), r)


def cam(p, x, *, compare=gram, weigh=softmax, mix=torch.matmul, add=add_scaled):
    return add(x, mix(weigh(compare(rows(x))), rows(x)).reshape(x.shape), p["gamma"])


@mistake("cam", "divided", "number of positions", "scaled", "scale", "1/N")
def cam_affinity_divided_by_the_positions(p, x):
    """Forward: inner products of channels are divided by the number of positions."""
    return cam(p, x, compare=lambda r: gram(r) / r.shape[2])


@mistake("cam", "transpose", "columns", "axis")
def cam_mixes_by_columns(p, x):
    """Forward: a channel is mixed by its column of the affinities, where its row should be used."""
    return cam(p, x, mix=lambda s, r: s.mT @ r)


@mistake("cam", "gram: gradient", "one side", "symmetr", "transpose", "half")
def cam_gram_gradient_of_one_factor(p, x):
    """Backward: of the inner products' gradient only dG x is computed; dGᵀ x, through the other factor, is missing."""
    return cam(p, x, compare=lambda r: kernel(lambda r: r @ r.mT, lambda dg, r, g: (dg @ r,), r))


@mistake("cam", "gamma", "twice", "scale: gradient", "squared", "γ")
def cam_gamma_twice_in_backward(p, x):
    """Backward: what comes back to the mixture is multiplied by γ twice."""
    return cam(p, x, add=lambda x, o, gamma: add_scaled(x, backwards(o, lambda d: d * gamma.detach()), gamma))


@mistake("cam", "last block", "last tile", "remainder", "tail", "positions left out", "gram")
def cam_compares_whole_tiles_of_positions(p, x):
    """Tiles: inner products add up whole tiles of 8 positions; what is left over is not added."""
    return cam(p, x, compare=lambda r: gram(r[..., : whole(r.shape[2], 8)]))


@mistake("cam", "bfloat16", "precision", "narrow", "rounded", "logits")
def cam_affinity_in_bfloat16(p, x):
    """Precision: the inner products are rounded to bfloat16 before the softmax exponentiates them."""
    return cam(p, x, compare=lambda r: stored(gram(r)))


def conv_norm_act(x, p, name, training=False, *, convolve=conv, act=relu, momentum=0.1):
    return act(norm(convolve(x, p[f"{name}.0.weight"]), p, f"{name}.1", training, momentum=momentum))


def score(x, p, name):
    return F.conv2d(x, p[f"{name}.1.weight"], p[f"{name}.1.bias"])


def scale_kept(x, drop, rate):
    return x * drop[:, :, None, None] / (1 - rate)


def danet(p, x, *masks, dropout=0.1, training=False, layer=conv_norm_act, fuse=torch.add, drop=scale_kept, enter=None):
    enter = enter or (lambda x: (x, x))
    a, c = (layer(part, p, f"conv5{which}", training) for part, which in zip(enter(x), "ac", strict=True))
    u = layer(pam(under(p, "sa."), a), p, "conv51", training)
    v = layer(cam(under(p, "sc."), c), p, "conv52", training)
    maps = {"conv6": u, "conv7": v, "conv8": fuse(u, v)}
    if masks:
        maps = {name: drop(a, mask, dropout) for (name, a), mask in zip(maps.items(), masks, strict=True)}
    y6, y7, y8 = (score(a, p, name) for name, a in maps.items())
    return y8, y6, y7


@mistake("danet", "half", "averaged", "mean of", "instead of the sum", "instead of sum")
def danet_fuses_by_the_average(p, x):
    """Forward: the two branches are averaged before the fused classifier, where they should be added."""
    return danet(p, x, fuse=lambda u, v: (u + v) / 2)


@mistake("danet", "order", "swapped", "outputs", "permuted", "exchanged")
def danet_outputs_in_the_layers_order(p, x):
    """Forward: outputs stand in the order position, channel, fused, where the fused one should be first."""
    y8, y6, y7 = danet(p, x)
    return y6, y7, y8


@mistake("danet", "add: gradient", "one summand", "branch", "second summand", "detached")
def danet_fused_gradient_to_positions_alone(p, x):
    """Backward: the fused classifier's gradient reaches the position branch, and not the channel branch."""
    return danet(p, x, fuse=lambda u, v: u + v.detach())


@mistake("danet", "overwrit", "accumulat", "branch", "one branch", "not added", "summand")
def danet_input_gradient_overwritten(p, x):
    """Backward: the second branch's gradient by the input is written over the first's, where it should be added."""
    return danet(p, x, enter=lambda x: (x.detach(), x))


@mistake("danet", "conv2d: gradient", "not flipped", "unflipped", "flip", "rotated", "reversed")
def danet_input_gradient_not_flipped(p, x):
    """Backward: the 3×3 layers' input gradient slides the kernel as it stands, where it should be turned round."""

    def backward(dy, x, w, y, rate):
        return conv_backward(dy, x, w.flip(2, 3), y, rate)[0], conv_backward(dy, x, w, y, rate)[1]

    def layer(*of):
        return conv_norm_act(*of, convolve=lambda x, w: conv(x, w, backward=backward))

    return danet(p, x, layer=layer)


@mistake("danet", "wrap", "border", "padding", "edge", "neighbouring row", "row")
def danet_wraps_to_the_next_row(p, x):
    """Tiles: neighbours left and right are read at n ± 1 of the flat map, so that rows run into each other."""

    def convolve(x, w):
        n, width = rows(x).shape[2], x.shape[3]
        padded = F.pad(rows(x), (width + 1, width + 1))
        taps = [padded[:, :, i * width + j : i * width + j + n] for i in range(3) for j in range(3)]
        y = torch.einsum("bckn,ock->bon", torch.stack(taps, 2), w.flatten(2))
        return y.reshape(len(x), len(w), *x.shape[2:])

    return danet(p, x, layer=lambda *of: conv_norm_act(*of, convolve=convolve))


@mistake(
    "danet",
    "dropout",
    "inverted",
    "not kept",
    "dropped",
    "mask",
    in_channels=16,
    classes=5,
    dropout=0.25,
    training=True,
)
def danet_keeps_what_should_be_dropped(p, x, *masks):
    """Forward: the keep mask is taken for a mask of what is dropped."""
    return danet(p, x, *masks, dropout=0.25, training=True, drop=lambda x, drop, rate: scale_kept(x, 1 - drop, rate))


def in_order(u, heads):
    """Queries, keys and values: three of (B, heads, N, d)."""
    return u.reshape(len(u), 3, heads, -1, u.shape[2]).mT.unbind(1)


def brought_together(o):
    return o.mT.flatten(1, 2)


def mhsa(p, x, heads=2, *, split=in_order, attention=attend, merge=brought_together):
    u = p["in_proj_weight"] @ rows(x) + p["in_proj_bias"][:, None]
    q, k, v = split(u, heads)
    o = merge(attention(q, k, v, q.shape[-1] ** -0.5))
    return (p["out_proj.weight"] @ o + p["out_proj.bias"][:, None]).reshape(x.shape)


@mistake("mhsa", "scale", "channels", "√C", "all channels", "of the heads", "head")
def mhsa_divides_by_the_root_of_all_channels(p, x):
    """Forward: logits are divided by √C, of all channels, where a head's own count."""
    return mhsa(p, x, attention=lambda q, k, v, scale: attend(q, k, v, x.shape[1] ** -0.5))


@mistake("mhsa", "order", "interleav", "layout", "split", "heads")
def mhsa_reads_heads_before_queries_keys_values(p, x):
    """Forward: the projection is split into heads first, and each head into query, key and value."""
    return mhsa(p, x, split=lambda u, heads: u.reshape(len(u), heads, 3, -1, u.shape[2]).mT.unbind(2))


@mistake("mhsa", "interleav", "layout", "order", "heads", "transposed", "merge")
def mhsa_brings_heads_together_interleaved(p, x):
    """Forward: outputs are brought together with the head as the fastest index, where a head's channels adjoin."""
    return mhsa(p, x, merge=lambda o: o.permute(0, 3, 1, 2).flatten(1, 2))


@mistake("mhsa", "scale", "queries", "unscaled", "not scaled", "dq")
def mhsa_query_gradient_not_scaled(p, x):
    """Backward: the queries' gradient lacks the factor 1/√d, which the keys' has."""

    def backward(*of, scale):
        dq, dk, dv = attend_backward(*of, scale=scale)
        return dq / scale, dk, dv

    return mhsa(p, x, attention=lambda *of: attend(*of, backward=backward))


@mistake("mhsa", "rowsum", "row sum", "row's sum", "all heads", "delta", "across heads", "softmax: gradient")
def mhsa_row_sums_over_all_heads(p, x):
    """Backward: rowsum(dO ∘ O), which is taken off the weights' gradient, is added up over all heads."""

    def backward(do, q, k, v, o, *, scale):
        w = torch.softmax(scale * q @ k.mT, -1)
        dz = w * (do @ v.mT - (do * o).sum((1, 3), keepdim=True))
        return scale * dz @ k, scale * dz.mT @ q, w.mT @ do

    return mhsa(p, x, attention=lambda *of: attend(*of, backward=backward))


@mistake("mhsa", "last block", "last tile", "remainder", "tail", "keys left out", "last keys")
def mhsa_whole_tiles_of_keys(p, x):
    """Tiles: queries see whole tiles of 16 keys; the keys behind them are never loaded."""

    def attention(q, k, v, scale):
        n = whole(k.shape[2], 16)
        return attend(q, k[:, :, :n], v[:, :, :n], scale)

    return mhsa(p, x, attention=attention)


@mistake("mhsa", "bfloat16", "precision", "weights", "rounded", "narrow")
def mhsa_unnormalised_weights_in_float8(p, x):
    """Precision: exponentials are held in float8_e4m3 for the product with the values, whatever the format."""

    def value(q, k, v, scale):
        z = scale * q @ k.mT
        e = torch.exp(z - z.amax(-1, keepdim=True))
        return stored(e, torch.float8_e4m3fn) @ v / e.sum(-1, keepdim=True)

    return mhsa(p, x, attention=lambda *of: attend(*of, value=value))


def band(queries, keys, causal, window):
    """Tell which keys a query sees, by position alone."""
    m, n = torch.arange(queries)[:, None], torch.arange(keys)
    last = keys - queries
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen &= n <= (m if causal == "top-left" else m + last)
    if window:
        seen &= (n >= m + last - window[0]) & (n <= m + last + window[1])
    return seen


def shared(a, times):
    return a.repeat_interleave(times, 1)


def capped(z, c):
    return c * torch.tanh(z / c)


def weighted(z, seen, v, sink):
    """The average of the values, and the logsumexp, which is -inf where nothing is seen."""
    z = z.masked_fill(~seen, -math.inf)
    tops = z if sink is None else torch.cat([z, sink[:, None, None].expand(len(z), -1, z.shape[2], 1)], -1)
    best = tops.amax(-1, keepdim=True).detach()
    best = torch.where(best.isfinite(), best, 0)
    e = torch.exp(z - best)
    total = e.sum(-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink[:, None, None] - best)
    none = ~seen.any(-1, keepdim=True)
    total = total.masked_fill(none, 1)
    return e @ v / total, (best + torch.log(total)).masked_fill(none, -math.inf)[..., 0]


def sdpa(
    p,
    query,
    key,
    value,
    *others,
    causal=None,
    window=None,
    softcap=None,
    bias=False,
    lengths=False,
    logsumexp=False,
    repeat=shared,
    cap=capped,
    see=band,
    soft=weighted,
):
    others = list(others)
    k, v = (repeat(a, query.shape[1] // key.shape[1]) for a in (key, value))
    z = query @ k.mT / query.shape[-1] ** 0.5
    if softcap:
        z = cap(z, softcap)
    if bias:
        z = z + others.pop(0)
    seen = see(*z.shape[2:], causal, window).expand(z.shape)
    if lengths:
        seen = seen & (torch.arange(z.shape[3]) < others.pop(0)[:, None, None, None])
    y, lse = soft(z, seen, v, p.get("sink"))
    return (y, lse) if logsumexp else y


SMALL = {"heads": 2, "head_dim": 8}


@mistake("sdpa", "group", "repeat", "modulo", "interleav", "h %", "key head", "tiled")
def sdpa_heads_share_keys_in_turn(p, q, k, v):
    """Forward: head h reads key head h mod G, where h // (H/G) is meant."""
    return sdpa(p, q, k, v, causal="top-left", repeat=lambda a, times: a.repeat(1, times, 1, 1))


@mistake("sdpa", "off by one", "diagonal", "strict", "causal", "itself")
def sdpa_causal_without_the_diagonal(p, q, k, v):
    """Forward: query m sees the keys n < m, and not its own."""
    return sdpa(p, q, k, v, causal="top-left", see=lambda m, n, causal, _: torch.ones(m, n).tril(-1).bool())


@mistake("sdpa", "group", "repeat: gradient", "one head", "last head", "overwrit", "accumulat", "sum over")
def sdpa_key_gradients_of_the_last_head(p, q, k, v):
    """Backward: heads that share keys and values write their gradients over each other's: the last one's remain."""

    def repeat(a, times):
        return kernel(lambda a: shared(a, times), lambda d, a, y: (d[:, times - 1 :: times],), a)

    return sdpa(p, q, k, v, causal="top-left", repeat=repeat)


@mistake("sdpa", "sink", "sign")
def sdpa_sink_gradient_of_the_other_sign(p, q, k, v):
    """Backward: the sinks' gradient has the wrong sign."""
    return sdpa({"sink": backwards(p["sink"], torch.neg)}, q, k, v, causal="top-left")


@mistake("sdpa", "sink", "twice", "tile", "block", "counted")
def sdpa_sink_in_every_tile_of_keys(p, q, k, v):
    """Tiles: every tile of 2 keys starts its denominator with the sink, so the sink counts once a tile."""
    return sdpa({"sink": p["sink"] + math.log(-(-k.shape[2] // 2))}, q, k, v, causal="top-left")


@mistake(
    "sdpa", "no key", "sees nothing", "empty", "uniform", "all masked", "fully masked", "finite", **SMALL, lengths=True
)
def sdpa_without_keys_averages_all(p, q, k, v, lengths):
    """Forward: masked logits are set to a finite -1e4, so that a query that sees no key averages all of them."""

    def soft(z, seen, v, sink):
        return weighted(z.masked_fill(~seen, -1e4), torch.ones_like(seen), v, sink)

    return sdpa(p, q, k, v, lengths, lengths=True, soft=soft)


@mistake("sdpa", "softcap", "tanh", "cap", **SMALL, softcap=1.5, causal="top-left")
def sdpa_cap_without_slope(p, q, k, v):
    """Backward: logits' gradients pass the softcap as they are, without the slope of tanh."""
    return sdpa(p, q, k, v, softcap=1.5, causal="top-left", cap=lambda z, c: forward_alone(z, capped(z, c)))


@mistake("sdpa", "logsumexp", "lse", **SMALL, causal="bottom-right", logsumexp=True)
def sdpa_logsumexp_without_gradient(p, q, k, v):
    """Backward: the gradient that comes by the logsumexp is ignored."""
    y, lse = sdpa(p, q, k, v, causal="bottom-right", logsumexp=True)
    return y, backwards(lse, torch.zeros_like)


@mistake("sdpa", "logsumexp", "maximum", "max", "base", "lse", **SMALL, sink=True, logsumexp=True)
def sdpa_writes_a_logsumexp_that_lacks_the_sink(p, q, k, v):
    """Forward alone: the logsumexp that is written out leaves out the sink."""
    y, lse = sdpa(p, q, k, v, logsumexp=True)
    return y, forward_alone(lse, sdpa({}, q, k, v, logsumexp=True)[1])


@mistake("sdpa", "window", "align", "offset", "top-left", "bottom-right", **SMALL, window=(2, 1))
def sdpa_window_not_moved_to_the_last_key(p, q, k, v):
    """Forward: the window lies at m - l to m + r, where the last query should lie on the last key."""

    def see(queries, keys, causal, window):
        distance = torch.arange(keys) - torch.arange(queries)[:, None]
        return (distance >= -window[0]) & (distance <= window[1])

    return sdpa(p, q, k, v, window=(2, 1), see=see)
