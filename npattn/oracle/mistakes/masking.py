"""Mistakes in attention with masks: who sees whom, softcap, sink, logsumexp, and queries that see nothing."""

import functools
import math

import numpy as np

from npattn import ops
from npattn.ops.masking import keys_seen
from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.arrays import LOW, TILE, both, longer
from npattn.oracle.mistakes.attention import (
    map_detached,
    merged_interleaved,
    padded_scale,
    running_maximum,
    scale_left_out,
    viewed,
)
from npattn.oracle.mistakes.families import ROW_TAIL, ROW_TAILS
from npattn.oracle.mistakes.masked_weights import (
    capped,
    capped_before_scale,
    clipped,
    pairs_seen,
    slope_of_capped,
    unscaled_logs,
    whole,
)
from npattn.oracle.mistakes.mistake import argument, dropped, gradient, instead, value

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NAME = "masked_attention"
WAYS = "forward", "both"

several_keys = longer(-1, i=1)


def given(option):
    return lambda *_, **options: options[option] is not None


def has_last(_, k, *__, band, **___):
    return band[1] is not None


def has_first(_, k, *__, band, **___):
    return band[0] is not None


def may_be_aligned_otherwise(q, k, *_, band, **__):
    return band[1] in (0, k.shape[-1] - q.shape[-1]) and q.shape[-1] != k.shape[-1]


def aligned_otherwise(q, k, *_, band, **__):
    least, most = band
    return least, 0 if most else k.shape[-1] - q.shape[-1]


def moved(first, last):
    """Move the ends of the band."""
    return lambda *_, band, **__: tuple(n if n is None else n + by for n, by in zip(band, (first, last), strict=True))


def has_dead(q, k, *_, band, lengths, mask, **__):
    seen = pairs_seen(q, k, band, lengths, mask)
    return bool((~seen.any(axis=-1)).any() and seen.any())


def has_tail(_, k, *__, **___):
    return k.shape[-1] % TILE > 0


def with_mistake(name, when=several_keys, way="forward", **mistake):
    """Take attention with one of the mistakes of `whole`."""
    other = functools.partial(whole, **mistake)
    return instead(NAME, name, lambda _, *qkv, **options: other(*qkv, **options), when, way=way)


def not_summed(original, *qkv, **options):
    """Let the gradient of a bias that serves all heads be the first head's alone."""
    right, backward = original(*qkv, **options)
    first = np.zeros(qkv[0].shape[1], qkv[0].dtype)
    first[0] = 1

    def wrong(do, dl=0.0):
        found = [*backward(do, dl)]
        _, of_first = original(*qkv, **options)
        weighed = dl if np.ndim(dl) == 0 else dl * first[:, None]
        found[3] = of_first(do * first[:, None, None], weighed)[3]
        return tuple(found)

    return right, wrong


def serves_heads(q, *_, bias, **__):
    return bias is not None and bias.ndim == 4 and bias.shape[1] == 1 < q.shape[1]


def of_logsumexp(change):
    return lambda pair, *_, **__: (pair[0], change(pair[1]))


def nan_where_dead(pair, *_, **__):
    return np.where(np.isneginf(pair[1])[..., None, :], np.nan, pair[0]), pair[1]


def no_gradient(of):
    """Take the gradients of some arguments as 0."""

    def other(original, *qkv, **options):
        right, backward = original(*qkv, **options)
        return right, lambda *dy: tuple(dropped(g) if i in of else g for i, g in enumerate(backward(*dy)))

    return other


TUNED_ON = [
    *(argument(NAME, "band", "mask one key late", moved(0, 1), has_last, way=way) for way in WAYS),
    *(argument(NAME, "band", "mask one key early", moved(0, -1), has_last, way=way) for way in WAYS),
    argument(NAME, "band", "wrong alignment", aligned_otherwise, may_be_aligned_otherwise, way="both"),
    argument(NAME, "band", "not causal", lambda *_, **__: (None, None), has_last, way="backward"),
    argument(NAME, "lengths", "padding read", lambda *_, **__: None, given("lengths"), way="both"),
    argument(NAME, "mask", "mask ignored", lambda *_, **__: None, given("mask"), way="both"),
    with_mistake(
        "softcap's derivative left out", given("softcap"), "backward", cap=functools.partial(capped, slope=False)
    ),
    with_mistake("δ left out", way="backward", delta=False),
    with_mistake("last block of keys unmasked", both(several_keys, has_tail), padded=True),
    value(NAME, "NaN where no key is seen", nan_where_dead, has_dead),
    value(NAME, "logsumexp to base 2", of_logsumexp(lambda log_sum: log_sum / math.log(2))),
    instead(NAME, "sink without gradient", no_gradient((4,)), given("sink"), way="backward"),
]
HELD_OUT = [
    argument(NAME, "band", "window one key wide", moved(-1, 0), has_first, way="both"),
    argument(NAME, "band", "window without left end", lambda *_, band, **__: (None, band[1]), has_first, way="both"),
    argument(
        NAME, "lengths", "one key of padding read", lambda *_, lengths, **__: lengths + 1, given("lengths"), way="both"
    ),
    argument(NAME, "sink", "sink ignored", lambda *_, **__: None, given("sink")),
    argument(NAME, "softcap", "softcap ignored", lambda *_, **__: None, given("softcap"), way="both"),
    argument(NAME, 3, "missing scale", lambda *_, **__: 1.0, lambda q, k, v, scale, **_: scale != 1, way="both"),
    with_mistake("bias before the softcap", both(given("softcap"), given("bias")), "both", bias_first=True),
    with_mistake("all keys where none is seen", has_dead, low=LOW),
    with_mistake("gradient of the logsumexp left out", way="backward", through_l=0),
    instead(NAME, "bias without gradient", no_gradient((3,)), given("bias"), way="backward"),
    instead(NAME, "bias of the first head alone", not_summed, serves_heads, way="backward"),
]  # fmt: skip


def swapped(original, q, k, v, scale, **options):
    return original(k, q, v, scale, **options)


def alike(q, k, *_, **__):
    return q.shape == k.shape and q.shape[-1] > 1


def scaled(q, k, v, scale, **_):
    return scale != 1


def without_scale(g, dy, *qkv, **_):
    return g / qkv[3]


def scale_twice(g, dy, *qkv, **_):
    return g * qkv[3]


def turned_over(*_, mask, **__):
    return (mask == 0).astype(mask.dtype)


def hides(q, k, *_, band, lengths, mask, **__):
    """Whether some query sees some keys and not others."""
    seen = pairs_seen(q, k, band, lengths, mask)
    return bool((seen.any(axis=-1) & ~seen.all(axis=-1)).any())


def without_sink(*_, sink, **__):
    return sink is None


def turned_band(*_, band, **__):
    """See what comes after, not what came before."""
    return band[1], None


def aligned_band(q, k, *_, band, **__):
    """Let a window that ends at the last key begin at the first one, or the reverse."""
    offset = k.shape[-1] - q.shape[-1]
    return tuple(n if n is None else n - offset for n in band)


def shifted_band(q, k, *_, band, **__):
    return has_first(q, k, band=band) and q.shape[-1] != k.shape[-1]


def transposed_pairs(q, k, band, lengths, mask):
    """Hide queries where keys should be."""
    seen = pairs_seen(q, k, band, lengths, mask)
    whole_map = np.broadcast_to(seen, (*seen.shape[:-2], q.shape[-1], k.shape[-1]))
    return whole_map.swapaxes(-1, -2)


def padding_alone(q, k, band, lengths, mask):
    """See padding, and nothing else."""
    return pairs_seen(q, k, band, None, mask) & ~pairs_seen(q, k, (None, None), lengths, None)


def mask_ignored(q, k, band, lengths, mask):
    return pairs_seen(q, k, band, lengths, None)


def lengths_of_image_0(*_, lengths, **__):
    return np.broadcast_to(lengths[:1], lengths.shape).copy()


def several_lengths(*_, lengths, **__):
    return lengths is not None and len(lengths) > 1


def by_all_channels(q, *_, **__):
    return (q.shape[1] * q.shape[2]) ** -0.5


def with_heads(q, *_, **__):
    return q.ndim == 4 and q.shape[1] > 1


def several_rows(q, *_, **__):
    return min(q.shape[-2:]) > 1


def heads_served(g, dy, q, *_, **__):
    return g / q.shape[1]


def last_unseen(q, k, band, lengths, mask):
    """See all keys but the last."""
    return pairs_seen(q, k, band, lengths, mask) & (np.arange(k.shape[-1]) < k.shape[-1] - 1)


def padding_zeroed(original, q, k, v, scale, *, lengths, **options):
    """Set padded keys and values to 0, and let them take part."""
    real = keys_seen(q, k, slice(0, 1), band=(None, None), lengths=lengths, mask=None) * np.ones_like(k[..., :1, :1])
    return original(q, k * real, v * real, scale, lengths=None, **options)


def mask_of_image_0(*_, mask, **__):
    return np.broadcast_to(mask[:1], mask.shape).copy()


def several_masks(*_, mask, **__):
    return mask is not None and len(mask) > 1


def lengths_of_neighbour(*_, lengths, **__):
    return np.roll(lengths, 1, axis=0)


def in_pairs(first):
    """Take sinks in another order: heads in pairs are numbered the other way."""
    shape = (2, -1) if first else (-1, 2)
    return lambda *_, sink, **__: sink.reshape(*sink.shape[:-1], *shape).swapaxes(-1, -2).reshape(sink.shape)


def several_pairs(*_, sink, **__):
    return sink is not None and sink.shape[-1] > 2 and sink.shape[-1] % 2 == 0


def sink_forgotten(original, *qkv, sink, **options):
    """Make the weights again without the sink, which gets no gradient."""
    right, _ = original(*qkv, sink=sink, **options)
    _, backward = original(*qkv, sink=None, **options)
    return right, lambda *dy: (*backward(*dy)[:4], np.zeros_like(sink))


def scaled_otherwise(q, k, v, scale, **_):
    return not math.isclose(scale, q.shape[-2] ** -0.5)


def turned_window(*_, band, **__):
    """Exchange the two sides of a window."""
    return tuple(None if n is None else -n for n in band[::-1])


def of_alike_values(q, k, v, *_, **__):
    return k.shape == v.shape


def not_rescaled(tile):
    """Leave out, forward, that a later tile of keys has a larger maximum."""

    def stale(z, highest):
        most = running_maximum(z, tile)
        return np.exp(highest - np.where(most == -np.inf, highest, most))

    words = "" if tile == TILE else f", tiles of {tile}"
    return with_mistake(f"accumulator not rescaled{words}", longer(-1, tile, 1), "both", stale=stale)


def counted(tile):
    """Count the sink once for each tile of keys: the change, and when that is another number than with other tiles."""

    def times(k, size):
        return -(-k.shape[-1] // size)

    def change(_, k, *__, sink, **___):
        return sink + math.log(times(k, tile))

    def when(_, k, *__, sink, **___):
        smaller = (times(k, 2**i) for i in range(1, 7) if 2**i < tile)
        return sink is not None and times(k, tile) > 1 and times(k, tile) not in smaller

    return change, when


def zeros_hidden(q, k, band, lengths, mask):
    """Hide keys that are 0, as those are that stand in a margin of zeros."""
    return pairs_seen(q, k, band, lengths, mask) & (k != 0).any(axis=-2)[..., None, :]


def has_zeros(q, k, *_, **__):
    zeros = (k == 0).all(axis=-2)
    return bool(zeros.any() and not zeros.all())


def zeros_counted(tile):
    """Count keys that fill up the last tile, with logit 0, in weights, not in their gradients."""

    def met(s, highest, total):
        return s * (total / (total + -s.shape[-1] % tile * np.exp(-highest)))

    return with_mistake(
        f"zeros that fill up to a multiple of {tile} counted in the weights",
        *(lambda q, k, *_, **__: k.shape[-1] % tile > 0, "both"),
        met=met,
    )


def in_narrow(s, highest, total):
    return arrays.in_bfloat16(s)


def by_untransposed(g, dy, *qkv, **options):
    """Multiply by the map where its transpose is meant."""
    q, k, _, *others = qkv
    eye = np.broadcast_to(np.eye(k.shape[-1], dtype=k.dtype), (*k.shape[:-2], k.shape[-1], k.shape[-1]))
    (s, _), _ = ops.masked_attention(q, k, eye, *others, **options)
    return dy @ s


def of_windows(g, dy, q, *_, **__):
    """Average over all that the bias serves: images, and what lies among them."""
    return g / np.prod(q.shape[:-3], dtype=int)


ADDED = [
    with_mistake("keys of zeros, as in a margin, hidden", has_zeros, see=zeros_hidden),
    *map(zeros_counted, (TILE, *arrays.TILES)),
    with_mistake("weights in bfloat16 where they meet the values", way="both", met=in_narrow),
    gradient(NAME, 2, "dv by the map, not its transpose", by_untransposed, alike),
    gradient(NAME, 3, "of the bias averaged over images and windows", of_windows, given("bias")),
    argument(NAME, "mask", "mask ignored", lambda *_, **__: None, given("mask"), way="backward"),
    value(
        NAME,
        "heads brought together interleaved",
        lambda pair, *_, **__: (merged_interleaved(pair[0]), pair[1]),
        with_heads,
    ),
    *(
        argument(
            NAME,
            2,
            f"{f.name} of the values",
            lambda q, k, v, *_, f=f, **__: f.change(v),
            lambda q, k, *_, f=f, **__: f.when(k),
        )
        for f in (ROW_TAIL, *ROW_TAILS)
    ),
    *map(not_rescaled, (TILE, *arrays.TILES)),
    with_mistake("δ added up over all heads", with_heads, "backward", heads=True),
    *(argument(NAME, "sink", f"sink counted once a tile of {2**i} keys", *counted(2**i)) for i in range(1, 7)),
    with_mistake("last key never read", see=last_unseen),
    instead(
        NAME, "keys taken for values", lambda original, q, k, v, *a, **o: original(q, k, k, *a, **o), of_alike_values
    ),
    instead(
        NAME, "values taken for keys", lambda original, q, k, v, *a, **o: original(q, v, v, *a, **o), of_alike_values
    ),
    instead(NAME, "queries taken for keys", lambda original, q, k, *a, **o: original(q, q, *a, **o), alike),
    argument(NAME, "band", "window's sides exchanged", turned_window, has_first, way="both"),
    argument(NAME, "band", "window one key narrow", moved(1, 0), has_first, way="both"),
    argument(NAME, 3, "scaled by 1/√d", lambda q, *_, **__: q.shape[-2] ** -0.5, scaled_otherwise),
    with_mistake("base 2, in bias and sink too", base=2),
    with_mistake("logsumexp without the maximum", log=lambda highest, total, *_: np.log(total)),
    with_mistake("logsumexp of logits before the scale", scaled, log=unscaled_logs),
    with_mistake(
        "logsumexp without the sink", given("sink"), log=lambda highest, total, keys, *_: highest + np.log(keys)
    ),
    with_mistake(
        "all values averaged where no key is seen",
        has_dead,
        low=LOW,
        log=lambda highest, total, *_: highest + np.log(total),
    ),
    *(with_mistake("sink added without the maximum taken off", given("sink"), w, shift_sink=False) for w in WAYS),
    argument(NAME, "sink", "sink of 0, whatever was learnt", lambda *_, sink, **__: 0 * sink, given("sink")),
    argument(
        NAME, "sink", "sink scaled as the logits are", lambda q, k, v, scale, sink, **_: scale * sink, given("sink")
    ),
    argument(NAME, "sink", "sinks in the order of key heads first", in_pairs(True), several_pairs),
    argument(NAME, "sink", "sinks in the order of groups first", in_pairs(False), several_pairs),
    gradient(NAME, 4, "of the sink averaged over images", lambda g, dy, q, *_, **__: g / len(q), given("sink")),
    instead(NAME, "weights made again without the sink", sink_forgotten, given("sink"), way="backward"),
    with_mistake("softcap's derivative by the capped logit", given("softcap"), "backward", cap=slope_of_capped),
    with_mistake("softcap not multiplied again", given("softcap"), cap=functools.partial(capped, factor=False)),
    with_mistake("softcap before the scale", both(given("softcap"), scaled), cap=capped_before_scale),
    with_mistake("clipped, not capped by tanh", given("softcap"), cap=clipped),
    with_mistake(
        "softcap behind the mask, hidden keys in the sum alone", both(given("softcap"), hides), low="cap", keep=False
    ),
    argument(NAME, "mask", "mask of the first image for all", mask_of_image_0, several_masks, way="both"),
    argument(
        NAME, "bias", "bias scaled as the logits are", lambda q, k, v, scale, bias, **_: scale * bias, given("bias")
    ),
    gradient(NAME, 3, "of the bias scaled as dq is", lambda g, dy, q, k, v, scale, **_: scale * g, given("bias")),
    instead(NAME, "padded keys and values set to 0, not hidden", padding_zeroed, given("lengths")),
    argument(NAME, "lengths", "lengths of the image before", lengths_of_neighbour, several_lengths, way="both"),
    argument(NAME, "band", "window not aligned with the last key", aligned_band, shifted_band, way="both"),
    with_mistake("mask transposed: queries hidden for keys", both(alike, hides), see=transposed_pairs),
    with_mistake("padding alone seen", given("lengths"), see=padding_alone),
    with_mistake("softcap behind the mask", both(given("softcap"), hides), low="cap"),
    with_mistake("mask added to the logits", given("mask"), see=mask_ignored, added=lambda mask: mask * 1.0),
    argument(NAME, "lengths", "lengths of the first image for all", lengths_of_image_0, several_lengths, way="both"),
    argument(
        NAME,
        "lengths",
        "last key of each image hidden",
        lambda *_, lengths, **__: lengths - 1,
        given("lengths"),
        way="both",
    ),
    with_mistake("gradient of the logsumexp with its sign turned", way="backward", through_l=-1),
    gradient(NAME, 4, "of the sink with its sign turned", lambda g, *_, **__: -g, given("sink")),
    gradient(NAME, 3, "of the bias with its sign turned", lambda g, *_, **__: -g, given("bias")),
    gradient(NAME, 3, "of the bias averaged over heads", heads_served, serves_heads),
    argument(NAME, "bias", "bias in base 2", lambda *_, bias, **__: bias * math.log(2), given("bias")),
    argument(NAME, 0, "base 2", lambda q, *_, **__: q * math.log(2), several_keys),
    argument(NAME, 3, "scaled by the channels of all heads", by_all_channels, with_heads),
    value(NAME, "output viewed without a transpose", lambda pair, *_, **__: (viewed(pair[0]), pair[1]), several_rows),
    instead(NAME, "scale missing in dq and dk", scale_left_out, scaled, way="backward"),
    instead(NAME, "queries and keys swapped", swapped, alike),
    with_mistake("mask after softmax", hides, late=True),
    with_mistake("softmax over the wrong axis", both(alike, without_sink), axis=-2),
    with_mistake("map transposed", alike, turned=True),
    with_mistake("masked logits 0, not -∞", hides, low=0.0),
    argument(NAME, "band", "causal mask the other way round", turned_band, has_last, way="both"),
    argument(NAME, "mask", "mask inverted", turned_over, given("mask"), way="both"),
    argument(NAME, "bias", "bias lost", lambda *_, **__: None, given("bias")),
    argument(NAME, "bias", "bias twice", lambda *_, bias, **__: 2 * bias, given("bias"), way="both"),
    argument(NAME, "bias", "bias taken off", lambda *_, bias, **__: -bias, given("bias"), way="both"),
    *(gradient(NAME, i, f"scale missing in {d}", without_scale, scaled) for i, d in ((0, "dq"), (1, "dk"))),
    *(gradient(NAME, i, f"scale twice in {d}", scale_twice, scaled) for i, d in ((0, "dq"), (1, "dk"))),
    argument(NAME, 3, "scale twice", lambda q, k, v, scale, **_: scale**2, scaled),
    argument(NAME, 3, "scaled by the padded head dim", padded_scale, lambda q, *_, **__: q.shape[-2] % TILE > 0),
    argument(NAME, "band", "wrong alignment", aligned_otherwise, may_be_aligned_otherwise),
    instead(NAME, "map detached", map_detached, several_keys, way="backward"),
]
