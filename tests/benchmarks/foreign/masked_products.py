"""Mistakes in what queries of scaled dot-product attention see, in its bias, its cap and its logsumexp."""

import math
from functools import partial

from tests.benchmarks.foreign.pieces import backwards, by_hand, constant, mistake, torch, weights
from tests.benchmarks.foreign.products import capped, sdpa, seen_by, with_sink

BASE = {"heads": 2, "head_dim": 8}

CORNER = {**BASE, "causal": "bottom-right", "logsumexp": True}
corner = partial(sdpa, causal="bottom-right", logsumexp=True)


@mistake("sdpa", "top-left", "top left", "align", "corner", **CORNER)
def sdpa_causal_from_the_top_left(p, *qkv):
    """Causal mask: aligned to the top left corner, where the bottom right is asked for."""
    return sdpa(p, *qkv, causal="top-left", logsumexp=True)


@mistake("sdpa", "dead", "no key", "sees nothing", "fully masked", "nothing", **CORNER)
def sdpa_dead_rows_average_the_values(p, query, key, value):
    """Masks: a query that sees no key gets the mean of all values, since its logits are all equally low."""
    o, log_sum = corner(p, query, key, value)
    dead = ~seen_by(query.shape[2], key.shape[2], "bottom-right").any(-1, keepdim=True)
    return o + dead * value.mean(2, keepdim=True), log_sum


@mistake("sdpa", "base", "log2", "logsumexp", "power of two", **CORNER)
def sdpa_logsumexp_to_the_base_of_two(p, *qkv):
    """Logsumexp: to the base of 2, as the kernel keeps it."""
    o, log_sum = corner(p, *qkv)
    return o, log_sum * math.log2(math.e)


@mistake("sdpa", "logsumexp", "maximum", **CORNER)
def sdpa_logsumexp_without_the_maximum(p, *qkv):
    """Logsumexp: the log of the sum alone; the row's maximum is not added again."""
    return corner(p, *qkv, weigh=lambda z, sink: (weights(z), z.logsumexp(-1) - z.amax(-1)))


@mistake("sdpa", "logsumexp", "scale", **CORNER)
def sdpa_logsumexp_of_unscaled_logits(p, query, *kv):
    """Logsumexp: of the products before the scale."""

    def weigh(z, sink):
        return (weights(z), (z * query.shape[-1] ** 0.5).logsumexp(-1))

    return corner(p, query, *kv, weigh=weigh)


@mistake("sdpa", "logsumexp", "gradient of the second", "ignored", "detach", **CORNER)
def sdpa_logsumexp_detached(p, *qkv):
    """Logsumexp's backward: the gradient that comes in by it is ignored."""
    return corner(p, *qkv, weigh=lambda z, sink: (weights(z), backwards(z.logsumexp(-1), torch.zeros_like)))


@mistake("sdpa", "logsumexp", "sign", "delta", **CORNER)
def sdpa_logsumexp_gradient_of_the_wrong_sign(p, *qkv):
    """Logsumexp's backward: its gradient is added to δ, from which it should be taken."""
    return corner(p, *qkv, weigh=lambda z, sink: (weights(z), backwards(z.logsumexp(-1), torch.neg)))


WINDOW = {**BASE, "window": (2, 1)}


@mistake("sdpa", "window", "left and right", "swapped", "exchanged", **WINDOW)
def sdpa_window_turned_round(p, *qkv):
    """Window: its left and right are exchanged."""
    return sdpa(p, *qkv, window=(1, 2))


@mistake("sdpa", "window", "off by one", "narrow", **WINDOW)
def sdpa_window_too_narrow(p, *qkv):
    """Window: on the left one key less is seen; the size is taken to count the query's own."""
    return sdpa(p, *qkv, window=(1, 1))


@mistake("sdpa", "window", "align", "corner", "top-left", "top left", "offset", **WINDOW)
def sdpa_window_from_the_top_left(p, *qkv):
    """Window: around key m, not around key m + N - M."""

    def seen(queries, keys, causal, window):
        distance = torch.arange(keys) - torch.arange(queries)[:, None]
        return (-window[0] <= distance) & (distance <= window[1])

    return sdpa(p, *qkv, window=(2, 1), seen=seen)


@mistake("sdpa", "window", "ignored", "left", "one side", **WINDOW)
def sdpa_window_bounds_the_right_alone(p, *qkv):
    """Window: its left side is ignored."""
    return sdpa(p, *qkv, window=(100, 1))


CAPPED = {**BASE, "softcap": 1.5, "causal": "top-left"}
with_cap = partial(sdpa, softcap=1.5, causal="top-left")


@mistake("sdpa", "cap", "tanh", "derivative", "slope", **CAPPED)
def sdpa_cap_without_its_derivative(p, *qkv):
    """Cap's backward: 1 - tanh² is left out."""
    return with_cap(p, *qkv, cap=lambda z, c: z + constant(capped(z, c) - z))


@mistake("sdpa", "cap", "tanh", "derivative", "slope", **CAPPED)
def sdpa_cap_derivative_by_the_capped_logit(p, *qkv):
    """Cap's backward: 1 - z² with the capped logit z, which was never divided by c again."""

    def cap(z, c):
        return by_hand(z, lambda z: capped(z, c), lambda dy, z, y: dy * (1 - y * y))

    return with_cap(p, *qkv, cap=cap)


@mistake("sdpa", "cap", "tanh", "multiplied", "factor", **CAPPED)
def sdpa_cap_not_multiplied_again(p, *qkv):
    """Cap: tanh(z / c); the factor c is left out."""
    return with_cap(p, *qkv, cap=lambda z, c: torch.tanh(z / c))


@mistake("sdpa", "cap", "before the scale", "scale", "order", **CAPPED)
def sdpa_cap_before_the_scale(p, query, *kv):
    """Cap: of the products, which are scaled afterwards."""
    root = query.shape[-1] ** 0.5
    return with_cap(p, query, *kv, cap=lambda z, c: capped(z * root, c) / root)


@mistake("sdpa", "cap", "mask", "order", "after", "leak", **CAPPED)
def sdpa_cap_behind_the_mask(p, *qkv):
    """Cap: behind the mask, so that logits of minus infinity become -c."""

    def hide(z, hidden):
        return z.masked_fill(hidden, -1.5)

    return with_cap(p, *qkv, hide=hide)


@mistake("sdpa", "cap", "left out", "ignored", **CAPPED)
def sdpa_without_cap(p, *qkv):
    """Cap: ignored."""
    return with_cap(p, *qkv, cap=lambda z, c: z)


@mistake("sdpa", "cap", "clip", "clamp", "tanh", **CAPPED)
def sdpa_clipped_for_capped(p, *qkv):
    """Cap: logits are clipped to ±c."""
    return with_cap(p, *qkv, cap=lambda z, c: z.clamp(-c, c))


MASKED = {**BASE, "bias": True, "mask": True}
masked = partial(sdpa, bias=True, mask=True)


@mistake("sdpa", "mask", "inverted", "complement", **MASKED)
def sdpa_mask_inverted(p, *inputs):
    """Mask: keys are hidden where it is 1, as `key_padding_mask` has it."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, bias, 1 - mask)


@mistake("sdpa", "mask", "added", "additive", "bias", **MASKED)
def sdpa_mask_added(p, *inputs):
    """Mask: its zeros and ones are added to the logits, as a mask of floats is."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, bias + mask, torch.ones_like(mask))


@mistake("sdpa", "after softmax", "after the softmax", "renormalis", "mask", **MASKED)
def sdpa_mask_after_softmax(p, *inputs):
    """Mask: weights are set to 0 after the softmax."""
    return masked(p, *inputs, hide=lambda z, hidden: z)


@mistake("sdpa", "finite", "-inf", "infinity", "leak", "mask", "large", **MASKED)
def sdpa_mask_of_minus_five(p, *inputs):
    """Mask: 5 is taken off hidden logits, too little to hide them."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, bias - 5 * (1 - mask), torch.ones_like(mask))


@mistake("sdpa", "mask", "first image", "batch", **MASKED)
def sdpa_mask_of_the_first_image(p, *inputs):
    """Mask: all images get that of the first."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, bias, mask[:1])


@mistake("sdpa", "bias", "scale", "before", **MASKED)
def sdpa_bias_scaled(p, *inputs):
    """Bias: added before the scale."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, bias * qkv[0].shape[-1] ** -0.5, mask)


@mistake("sdpa", "bias", "ignored", "left out", **MASKED)
def sdpa_without_bias(p, *inputs):
    """Bias: ignored."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, 0 * bias, mask)


@mistake("sdpa", "bias", "sign", "subtracted", **MASKED)
def sdpa_bias_subtracted(p, *inputs):
    """Bias: taken off, as a distance is that should have been negative."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, -bias, mask)


@mistake("sdpa", "bias", "base", "log2", **MASKED)
def sdpa_bias_to_the_other_base(p, *inputs):
    """Bias: added to logits that were already multiplied by log₂ e, itself not multiplied."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, bias * math.log(2), mask)


@mistake("sdpa", "bias", "scale", "gradient", **MASKED)
def sdpa_bias_gradient_scaled(p, *inputs):
    """Bias's gradient: multiplied by 1/√d, as dq is."""
    *qkv, bias, mask = inputs
    return masked(p, *qkv, backwards(bias, lambda g: g * qkv[0].shape[-1] ** -0.5), mask)


PADDED = {**BASE, "lengths": True}
padded = partial(sdpa, lengths=True)


@mistake("sdpa", "lengths", "padding", "ignored", **PADDED)
def sdpa_padding_seen(p, q, k, v, lengths):
    """Lengths: ignored; the padding is seen."""
    return sdpa(p, q, k, v)


@mistake("sdpa", "lengths", "off by one", "padding", "last key of each image hidden", **PADDED)
def sdpa_last_key_of_each_image_hidden(p, q, k, v, lengths):
    """Lengths: n < length - 1; the last key of each image is hidden."""
    return padded(p, q, k, v, lengths - 1)


@mistake("sdpa", "set to 0", "padding", "zero", "denominator", "lengths", **PADDED)
def sdpa_padding_zeroed_and_not_masked(p, q, k, v, lengths):
    """Lengths: padded keys and values are set to 0, and still take part in the softmax by logits of 0."""
    keep = (torch.arange(k.shape[2]) < lengths[:, None])[:, None, :, None]
    return sdpa(p, q, k * keep, v * keep)


@mistake("sdpa", "batch", "order", "next image", "lengths", **PADDED)
def sdpa_lengths_of_the_next_image(p, q, k, v, lengths):
    """Lengths: every image gets those of the one before it."""
    return padded(p, q, k, v, lengths.roll(1))


OTHER = {"heads": 2, "head_dim": 8, "value_dim": 4, "scale": 0.5}


@mistake("sdpa", "scale", "ignored", "default", **OTHER)
def sdpa_scale_ignored(p, *qkv):
    """Logits: 1/√d, though another scale is given."""
    return sdpa(p, *qkv)


@mistake("sdpa", "scale", "value", **OTHER)
def sdpa_scale_applied_to_both(p, *qkv):
    """Logits: queries and keys are both multiplied by the scale."""
    return sdpa(p, *qkv, scale=0.25)


@mistake("sdpa", "value_dim", "value", "scale", "channels", **OTHER)
def sdpa_last_value_channel_left_out(p, query, key, value):
    """Values: channels are processed in twos and the last two forgotten."""
    return sdpa(p, query, key, torch.cat([value[..., :2], 0 * value[..., 2:]], -1), scale=0.5)


SINKING = {**BASE, "sink": True, "logsumexp": True}


@mistake("sdpa", "sink", "logsumexp", **SINKING)
def sdpa_logsumexp_without_the_sink(p, *qkv):
    """Logsumexp: over the keys alone; the sink is left out of it, though it takes weight."""

    def weigh(z, sink):
        return (with_sink(z, sink)[0], z.logsumexp(-1))

    return sdpa(p, *qkv, logsumexp=True, weigh=weigh)
