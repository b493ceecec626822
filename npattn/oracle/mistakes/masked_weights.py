"""Attention with masks, all weights at once, and the ways in which it may be got wrong."""

import functools
import math

import numpy as np

from npattn.ops.attention import transpose
from npattn.ops.masking import keys_seen, sum_to
from npattn.oracle.mistakes.arrays import before, overflowing
from npattn.oracle.mistakes.attention_weights import several_keys
from npattn.oracle.mistakes.mistake import instead

__all__: list[str] = []  # for the mistakes of this package alone

NAME = "masked_attention"


def pairs_seen(q, k, band, lengths, mask):
    return keys_seen(q, k, slice(0, q.shape[-1]), band=band, lengths=lengths, mask=mask)


def capped(z, softcap, scale, *, slope=True, factor=True):
    """Return capped logits and their slope."""
    t = np.tanh(z / softcap)
    c = softcap if factor else 1
    return c * t, (1 - t * t) * (c / softcap) if slope else 1


def capped_before_scale(z, softcap, scale):
    t = np.tanh(z / (scale * softcap))
    return scale * softcap * t, 1 - t * t


def slope_of_capped(z, softcap, scale):
    """Differentiate as if what was capped had not been multiplied by the cap again."""
    y = softcap * np.tanh(z / softcap)
    return y, 1 - y * y


def clipped(z, softcap, scale):
    return np.clip(z, -softcap, softcap), (z >= -softcap) & (z <= softcap)


def unscaled_logs(highest, total, of_keys, z, scale):
    """Return the logsumexp of logits before the scale."""
    most = z.max(axis=-1, keepdims=True) / scale
    return most + np.log(np.exp(z / scale - most).sum(axis=-1, keepdims=True))


def whole(
    q, k, v, scale=1.0, *, softcap, bias, sink, band, lengths, mask,
    cap=None, delta=True, through_l=1, bias_first=False, low=-np.inf, late=False, axis=-1,
    turned=False, see=None, added=None, shift_sink=True, base=1, keep=True, log=None, stale=None, stale_sum=False,
    heads=False, met=None, products=None, logits=None, saved=None, largest=None, narrow=None,
):  # fmt: skip
    """Attention with all weights at once; the last arguments are mistakes.

    Of what was `saved`, another output and logsumexp, backward makes its weights.
    """
    seen = pairs_seen(q, k, band, lengths, mask) if see is None else see(q, k, band, lengths, mask)
    z, bend = transpose(q) @ k, 1
    z = scale * (z if products is None else products(z))
    if bias is not None and bias_first:
        z = z + bias
    if softcap is not None:
        z, bend = (cap or capped)(z, softcap, scale)
    if bias is not None and not bias_first:
        z = z + bias
    if added is not None:
        z = z + added(mask)
    if base != 1:
        z, sink = z * math.log(base), None if sink is None else sink * math.log(base)
    z = z if logits is None else logits(z)
    around = narrow or (lambda a: a)  # of what softmax takes and gives
    z = around(z)
    if not late:
        z = np.where(seen, z, z.dtype.type(-softcap if low == "cap" else low))
    none = z.max(axis=axis, keepdims=True) == -np.inf
    highest = np.where(none, 0, z.max(axis=axis, keepdims=True))
    if largest is not None:
        highest = 0 * highest
    e = np.exp(z - highest) if largest is None else overflowing(z, largest)
    old = 1 if stale is None else stale(z, highest)
    total = of_keys = (e * old if stale_sum else e).sum(axis=axis, keepdims=True)
    if sink is not None:
        total = total + np.where(none, 0, np.exp(sink[..., None, None] - (highest if shift_sink else 0)))
    total = np.where(total == 0, 1, total)
    s = np.where(seen, e / total, 0) if late or not keep else e / total
    s = around(s)
    w = s if met is None else met(s, highest, total)
    o = v @ (s if turned else transpose(w if stale is None else s * old))
    log_sum = highest + np.log(total) if log is None else log(highest, total, of_keys, z, scale)
    log_sum = np.where(none | (~seen.any(axis=-1, keepdims=True) if log else False), -np.inf, log_sum)
    log_sum = log_sum[..., 0] if axis == -1 else log_sum[..., 0, :] + np.zeros_like(o[..., 0, :])

    if saved is not None:
        o, log_sum = saved
        s = w = np.where(seen, np.exp(z - np.where(log_sum == -np.inf, np.inf, log_sum)[..., None]), 0)

    def backward(do, dl=0.0):
        row = (do * (o if met is None else v @ transpose(s))).sum(axis=-2) if delta else np.zeros_like(log_sum)
        row = row.sum(axis=1, keepdims=True) if heads else row
        row = (row - through_l * dl)[..., None]
        dz = around(s * (around(transpose(do) @ v) - row))
        dt = bend * dz
        dbias = None if bias is None else sum_to(dz, bias.shape)
        shift = np.where(none[..., 0], np.inf, log_sum if shift_sink else np.log(total)[..., 0])
        dsink = None
        if sink is not None:
            dsink = sum_to(-np.exp(sink[..., None] - shift) * row[..., 0], (*sink.shape, 1))[..., 0]
        return scale * (k @ transpose(dt)), scale * (q @ dt), do @ w, dbias, dsink

    return (o, log_sum), backward


def filling_seen(q, k, tile, *, band, lengths, **_):
    """Tell which of the places behind the last key, up to whole tiles, queries see by all rules but that keys end."""
    filled = np.zeros_like(k, shape=(*k.shape[:-1], k.shape[-1] + -k.shape[-1] % tile))
    return pairs_seen(q, filled, band, lengths, None)[..., k.shape[-1] :]


def may_see_filling(tile):
    """Whether some query sees such a place, and other tiles have not as many."""

    def when(q, k, *_, **options):
        n = k.shape[-1]
        apart = n % tile > 0 and all(-n % size != -n % tile for size in before(tile))
        return apart and bool(filling_seen(q, k, tile, **options).any())

    return when


def given(option):
    return lambda *_, **options: options[option] is not None


def with_mistake(name, when=several_keys, way="forward", **mistake):
    """Take attention with one of the mistakes of `whole`."""
    other = functools.partial(whole, **mistake)
    return instead(NAME, name, lambda _, *qkv, **options: other(*qkv, **options), when, way=way)


def alike(q, k, *_, **__):
    return q.shape == k.shape and q.shape[-1] > 1


def scaled(q, k, v, scale, **_):
    return scale != 1


def hides(q, k, *_, band, lengths, mask, **__):
    """Whether some query sees some keys and not others."""
    seen = pairs_seen(q, k, band, lengths, mask)
    return bool((seen.any(axis=-1) & ~seen.all(axis=-1)).any())
