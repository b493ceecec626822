"""Attention with masks, all weights at once, and the ways in which it may be got wrong."""

import functools
import math
from typing import Any

import numpy as np

from npattn.ops.attention import transpose
from npattn.ops.masking import keys_seen, sum_to
from npattn.oracle.mistakes.arrays import before, overflowing
from npattn.oracle.mistakes.attention_weights import several_keys
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, instead
from npattn.typing import Array, Backward

__all__: list[str] = []  # for the mistakes of this package alone

NAME = "masked_attention"

Band = tuple[int | None, int | None]
"""Which keys a query sees, by their distance: the least and the largest, None for no limit."""


def pairs_seen(q: Array, k: Array, band: Band, lengths: Array, mask: Array) -> Array:
    return keys_seen(q, k, slice(0, q.shape[-1]), band=band, lengths=lengths, mask=mask)


def capped(z: Array, softcap: float, scale: float, *, slope: bool = True, factor: bool = True) -> tuple[Array, ...]:
    """Return capped logits and their slope."""
    t = np.tanh(z / softcap)
    c = softcap if factor else 1
    return c * t, (1 - t * t) * (c / softcap) if slope else 1


def capped_before_scale(z: Array, softcap: float, scale: float) -> tuple[Array, ...]:
    t = np.tanh(z / (scale * softcap))
    return scale * softcap * t, 1 - t * t


def slope_of_capped(z: Array, softcap: float, scale: float) -> tuple[Array, ...]:
    """Differentiate as if what was capped had not been multiplied by the cap again."""
    y = softcap * np.tanh(z / softcap)
    return y, 1 - y * y


def clipped(z: Array, softcap: float, scale: float) -> tuple[Array, ...]:
    return np.clip(z, -softcap, softcap), (z >= -softcap) & (z <= softcap)


def unscaled_logs(highest: Array, total: Array, of_keys: Array, z: Array, scale: float) -> Array:
    """Return the logsumexp of logits before the scale."""
    most = z.max(axis=-1, keepdims=True) / scale
    return most + np.log(np.exp(z / scale - most).sum(axis=-1, keepdims=True))


def whole(
    q: Array, k: Array, v: Array, scale: Any = 1.0, *,
    softcap: Any, bias: Array | None, sink: Array | None, band: Band, lengths: Array, mask: Array,
    cap: Apply | None = None, delta: bool = True, through_l: float = 1, bias_first: bool = False, low: Any = -np.inf,
    late: bool = False, axis: int = -1, turned: bool = False, see: Apply | None = None, added: Apply | None = None,
    shift_sink: bool = True, base: float = 1, keep: bool = True, log: Apply | None = None, stale: Apply | None = None,
    stale_sum: bool = False, heads: bool = False, met: Apply | None = None, products: Apply | None = None,
    logits: Apply | None = None, saved: tuple[Array, Array] | None = None, largest: float | None = None,
    narrow: Apply | None = None,
) -> tuple[Any, Backward]:  # fmt: skip
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


def filling_seen(q: Array, k: Array, tile: int, *, band: Band, lengths: Array, **_: Any) -> Array:
    """Tell which of the places behind the last key, up to whole tiles, queries see by all rules but that keys end."""
    filled = np.zeros_like(k, shape=(*k.shape[:-1], k.shape[-1] + -k.shape[-1] % tile))
    return pairs_seen(q, filled, band, lengths, None)[..., k.shape[-1] :]


def may_see_filling(tile: int) -> When:
    """Whether some query sees such a place, and other tiles have not as many."""

    def when(q, k, *_, **options):
        n = k.shape[-1]
        apart = n % tile > 0 and all(-n % size != -n % tile for size in before(tile))
        return apart and bool(filling_seen(q, k, tile, **options).any())

    return when


def given(option: str) -> When:
    return lambda *_, **options: options[option] is not None


def with_mistake(name: str, when: When = several_keys, way: str = "forward", **mistake: Any) -> Mistake:
    """Take attention with one of the mistakes of `whole`."""
    other = functools.partial(whole, **mistake)
    return instead(NAME, name, lambda _, *qkv, **options: other(*qkv, **options), when, way=way)


def alike(q: Array, k: Array, *_: Any, **__: Any) -> bool:
    return q.shape == k.shape and q.shape[-1] > 1


def scaled(q: Array, k: Array, v: Array, scale: float, **_: Any) -> bool:
    return scale != 1


def hides(q: Array, k: Array, *_: Any, band: Band, lengths: Array, mask: Array, **__: Any) -> bool:
    """Whether some query sees some keys and not others."""
    seen = pairs_seen(q, k, band, lengths, mask)
    return bool((seen.any(axis=-1) & ~seen.all(axis=-1)).any())
