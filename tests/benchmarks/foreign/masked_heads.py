"""Mistakes in what multi-head self-attention sees, and in its bias."""

from functools import partial

from tests.benchmarks.foreign.heads import attend, keys_within, mhsa, seen_causally
from tests.benchmarks.foreign.pieces import backwards, constant, mistake, torch, weights

CAUSAL = {"channels": 16, "heads": 2, "causal": True}
causally = partial(mhsa, causal=True)


@mistake("mhsa", "off by one", "strict", "shift", "diagonal", "mask one key late", **CAUSAL)
def mhsa_sees_one_key_too_many(p, x):
    """Causal mask: query m also sees key m + 1."""
    return causally(p, x, triangle=partial(seen_causally, shift=1))


@mistake("mhsa", "off by one", "strict", "shift", "diagonal", "itself", "mask one key early", **CAUSAL)
def mhsa_does_not_see_itself(p, x):
    """Causal mask: query m sees the keys below m alone, not its own."""
    return causally(p, x, triangle=partial(seen_causally, shift=-1))


@mistake("mhsa", "other way", "upper", "transpose", "future", "reversed", "anti", "inverted", **CAUSAL)
def mhsa_sees_the_future(p, x):
    """Causal mask: query m sees the keys n ≥ m; the triangle is the upper one."""
    return causally(p, x, triangle=lambda n: seen_causally(n).T)


@mistake("mhsa", "mask left out", "ignored", "not masked", "mask", "causal=False for True", **CAUSAL)
def mhsa_mask_ignored(p, x):
    """Causal mask: ignored."""
    return mhsa(p, x)


@mistake("mhsa", "after softmax", "after the softmax", "renormalis", **CAUSAL)
def mhsa_mask_after_softmax(p, x):
    """Causal mask: weights that are not seen are set to 0 after the softmax, and the rest does not add up to 1."""

    def attention(q, k, v, seen, bias):
        return attend(q, k, v, None, None, weigh=lambda z: weights(z) * seen)

    return causally(p, x, attention=attention)


@mistake("mhsa", "zero", "multiplied", "-inf", "infinity", "masked logits 0", **CAUSAL)
def mhsa_logits_multiplied_by_the_mask(p, x):
    """Causal mask: logits that are not seen become 0, not minus infinity."""

    def attention(q, k, v, seen, bias):
        return attend(q, k, v, None, None, weigh=lambda z: weights(z * seen))

    return causally(p, x, attention=attention)


@mistake("mhsa", "mask", "backward", **CAUSAL)
def mhsa_mask_forgotten_in_backward(p, x):
    """Softmax's backward: the weights are made again without the mask."""

    def attention(q, k, v, seen, bias):
        wrong = attend(q, k, v, None, None)
        return wrong + constant(attend(q, k, v, seen, None) - wrong)

    return causally(p, x, attention=attention)


BIASED = {"channels": 16, "heads": 2, "bias": True}
biased = partial(mhsa, bias=True)


@mistake("mhsa", "bias", "scale", "before", **BIASED)
def mhsa_bias_scaled(p, x, bias):
    """Bias: added before the scale, so that it is divided by √d too."""
    return biased(p, x, bias * (x.shape[1] / 2) ** -0.5)


@mistake("mhsa", "bias", "transpose", "rows and columns exchanged", **BIASED)
def mhsa_bias_transposed(p, x, bias):
    """Bias: its rows are read as keys and its columns as queries."""
    return biased(p, x, bias.transpose(-1, -2))


@mistake("mhsa", "bias", "heads", "one head", "first head", "overwritten", "sum", **BIASED)
def mhsa_bias_gradient_of_one_head(p, x, bias):
    """Bias's gradient: that of the last head overwrites those before, though the bias serves all heads."""
    return biased(p, x, torch.cat([constant(bias), bias], 1))


@mistake("mhsa", "bias", "averaged", "mean", "sum", **BIASED)
def mhsa_bias_gradient_averaged(p, x, bias):
    """Bias's gradient: averaged over the heads that it serves."""
    return biased(p, x, backwards(bias, lambda g: g / 2))


PADDED = {"channels": 16, "heads": 2, "padding": True}
padded = partial(mhsa, padding=True)


@mistake("mhsa", "padding", "lengths", "mask", **PADDED)
def mhsa_padding_seen(p, x, lengths):
    """Padding: seen like all other keys."""
    return padded(p, x, torch.full_like(lengths, x.shape[2] * x.shape[3]))


@mistake("mhsa", "padding", "lengths", "off by one", **PADDED)
def mhsa_one_padding_key_seen(p, x, lengths):
    """Padding: the first key of it is seen: n ≤ length."""
    return padded(p, x, lengths + 1)


@mistake("mhsa", "padding", "queries", "rows", "transpose", **PADDED)
def mhsa_queries_masked_for_keys(p, x, lengths):
    """Padding: the mask lies along the queries, so that padded queries see nothing and all others see padding."""

    def within(lengths, n):
        return keys_within(lengths, n).transpose(-1, -2).expand(-1, -1, -1, n)

    return padded(p, x, lengths, within=within)


@mistake("mhsa", "padding", "first image", "batch", "lengths", **PADDED)
def mhsa_lengths_of_the_first_image(p, x, lengths):
    """Padding: all images get the length of the first."""
    return padded(p, x, lengths[:1].expand_as(lengths))


@mistake("mhsa", "padding", "inverted", "mask", **PADDED)
def mhsa_padding_mask_inverted(p, x, lengths):
    """Padding: the padding alone is seen; True means ignore to one side and see to the other."""
    return padded(p, x, lengths, within=lambda lengths, n: ~keys_within(lengths, n))
