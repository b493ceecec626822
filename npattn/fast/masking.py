"""Softmax attention in which queries see some keys: blocks that nothing sees are left out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.fast.attention import cut, is_worth_blocks, sum_columns
from npattn.fast.blas import serial_product
from npattn.fast.blocks import are_machine_floats
from npattn.fast.threads import parallel_for
from npattn.ops.attention import transpose
from npattn.ops.masking import masked_attention, sink_gradient
from npattn.typing import Array, Backward

__all__ = ["Pairs", "attention_in_seen_blocks"]


def is_worth_seen_blocks(q: Array, k: Array, v: Array, scale: float = 1.0, **options: Any) -> bool:
    """Tell whether there are many logits, of the machine's floats, and no shapes that the definition refuses."""
    given = {name: a for name, a in options.items() if name in ("bias", "mask", "sink", "lengths") and a is not None}
    pairs = q.shape[-1:] + k.shape[-1:]
    fitting = all(given[name].shape[-2:] == pairs for name in ("bias", "mask") if name in given)
    return fitting and is_worth_blocks(q, k, v) and are_machine_floats(q, *given.values())


@masked_attention.faster(suits=is_worth_seen_blocks)
def attention_in_seen_blocks(
    q: Array,
    k: Array,
    v: Array,
    scale: float = 1.0,
    *,
    softcap: float | None = None,
    bias: Array | None = None,
    sink: Array | None = None,
    band: tuple[int | None, int | None] = (None, None),
    lengths: Array | None = None,
    mask: Array | None = None,
) -> tuple[tuple[Array, Array], Backward]:
    """Attend block by block, on all cores, where keys are seen.

    The blocks are those of `attention_in_blocks`; of each the keys that no query of it sees, by the band or by lengths,
    are left out. Where NaN or infinity stands among queries, keys, values or gradients, the definition computes.
    """
    options = {"softcap": softcap, "bias": bias, "sink": sink, "band": band, "lengths": lengths, "mask": mask}
    exactly = functools.partial(masked_attention.definition, q, k, v, scale, **options)
    if not all(np.isfinite(a).all() for a in (q, k, v)):
        return exactly()
    shapes = q.shape, k.shape, v.shape
    lead, queries, keys = q.shape[:-2] or (1,), q.shape[-1], k.shape[-1]
    q, k, v = (a.reshape(*lead, *a.shape[-2:]) for a in (q, k, v))
    scaled = scale * q
    pairs = Pairs(scaled, k, softcap, bias, band, lengths, mask)
    sinks = None if sink is None else np.broadcast_to(sink, lead)
    o = np.empty_like(q, shape=(*lead, v.shape[-2], queries))
    log_sum_exp = np.empty_like(q, shape=(*lead, queries))

    def attend(block):
        at, m = block
        n = pairs.keys_seen(at, m, slice(0, keys))
        e, total, log_sums = exponentials(pairs.logits(at, m, n)[0], None if sinks is None else sinks[at])
        np.divide(serial_product(v[at][..., n], transpose(e)), transpose(total), out=o[at][..., m])
        log_sum_exp[at][..., m] = log_sums[..., 0]

    forward_blocks, backward_blocks = cut(lead, queries, keys)
    parallel_for(attend, forward_blocks, products=True)
    dead = log_sum_exp == np.inf

    def backward(do, dl=0.0):
        if not (np.isfinite(do).all() and np.isfinite(dl).all()):
            return exactly()[1](do, dl)
        do = np.where(dead[..., None, :], 0, do.reshape(o.shape))
        delta = np.where(dead, 0, (do * o).sum(axis=-2) - (dl if np.ndim(dl) == 0 else dl.reshape(dead.shape)))
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        dbias = None if bias is None else np.zeros_like(bias)

        def differentiate(block):
            ats, m, columns, part = block
            for at in ats:
                n = pairs.keys_seen(at, m, columns)
                if n.start == n.stop:
                    continue
                s, *rest = pairs.logits(at, m, n)
                s -= log_sum_exp[at][..., m, None]
                np.exp(s, out=s)
                dv[at][..., n] += serial_product(do[at][..., m], s)
                dz = serial_product(transpose(do[at][..., m]), v[at][..., n])
                dz -= delta[at][..., m, None]
                dz *= s
                pairs.differentiate((at, m, n), dz, rest, dbias)
                part[at] += sum_columns(k[at][..., n], dz)
                dk[at][..., n] += serial_product(scaled[at][..., m], dz)

        for m, columns in backward_blocks:
            parts = [np.zeros_like(q[..., m]) for _ in columns]  # of dq, to which all keys add
            # A bias may serve several images and heads, whose blocks then follow each other.
            each = [
                (some, m, n, part)
                for (n, ats), part in zip(columns, parts, strict=True)
                for some in ([ats] if dbias is not None else [[at] for at in ats])
            ]
            parallel_for(differentiate, each, products=True)
            dq[..., m] = scale * functools.reduce(np.add, parts)
        dsink = sink_gradient(sink, *(a.reshape(*shapes[0][:-2], queries) for a in (log_sum_exp, delta)))
        return *(a.reshape(shape) for a, shape in zip((dq, dk, dv), shapes, strict=True)), dbias, dsink

    value = np.where(dead, -np.inf, log_sum_exp).reshape(*shapes[0][:-2], queries)
    return (o.reshape(*shapes[0][:-2], *o.shape[-2:]), value), backward


def exponentials(z: Array, sink: Array | None) -> tuple[Array, Array, Array]:
    """Return exponentials of logits less the largest, in their place, sums and logsumexp: +∞ where no key is seen."""
    highest = z.max(axis=-1, keepdims=True, initial=-np.inf)
    none = highest == -np.inf
    if sink is not None:
        np.maximum(highest, sink[..., None, None], out=highest)
    highest[none] = np.inf  # exp(z - highest) is 0 there
    z -= highest
    np.exp(z, out=z)
    total = z.sum(axis=-1, keepdims=True)
    if sink is not None:
        total += np.exp(sink[..., None, None] - highest)
    total[none] = 1
    return z, total, highest + np.log(total)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of queries and keys: their logits, and which are seen.

    Attributes
    ----------
    q, k : numpy.ndarray, (*lead, d, M), (*lead, d, N)
        The queries are scaled.
    softcap, bias, band, lengths, mask
        As `npattn.ops.masked_attention` has them.
    """

    q: Array
    k: Array
    softcap: float | None
    bias: Array | None
    band: tuple[int | None, int | None]
    lengths: Array | None
    mask: Array | None

    @functools.cached_property
    def added(self) -> Array | None:
        """The bias, seen as one for each image and head."""
        return None if self.bias is None else np.broadcast_to(self.bias, self.shape)

    @functools.cached_property
    def allowed(self) -> Array | None:
        """The mask, seen likewise."""
        return None if self.mask is None else np.broadcast_to(self.mask, self.shape)

    @functools.cached_property
    def counts(self) -> Array | None:
        """The lengths, seen likewise."""
        return None if self.lengths is None else np.broadcast_to(self.lengths, self.shape[:-2])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all logits."""
        return (*self.q.shape[:-2], self.q.shape[-1], self.k.shape[-1])

    def keys_seen(self, at: Any, m: slice, n: slice) -> slice:
        """Narrow a range of keys to those that a query of a block may see; it may be empty."""
        start, stop = n.start, n.stop
        least, most = self.band
        if least is not None:
            start = max(start, m.start + least)
        if most is not None:
            stop = min(stop, m.stop + most)
        if self.counts is not None:
            stop = min(stop, int(np.ceil(np.clip(np.nan_to_num(self.counts[at]), 0, stop)).max(initial=0)))
        return slice(min(start, n.stop), max(min(start, n.stop), stop))

    def logits(self, at: Any, m: slice, n: slice) -> tuple[Array, Array | None, Array | None]:
        """Make a block of logits: them, the softcap's slope, and which pairs are hidden; None where there is none."""
        z = serial_product(transpose(self.q[at][..., m]), self.k[at][..., n])
        slope = None
        if self.softcap is not None:
            z /= self.softcap
            np.tanh(z, out=z)
            slope = 1 - z * z
            z *= self.softcap
        if self.added is not None:
            z += self.added[at][..., m, n]
        hidden = self.hidden(at, m, n)
        if hidden is not None:
            np.copyto(z, -np.inf, where=hidden)
        return z, slope, hidden

    def hidden(self, at: Any, m: slice, n: slice) -> Array | None:
        """Tell which pairs of a block are hidden; None where none is."""
        least, most = self.band
        found: list[Array] = []
        distance = np.arange(n.start, n.stop) - np.arange(m.start, m.stop)[:, None]
        if least is not None and n.start - (m.stop - 1) < least:
            found.append(distance < least)
        if most is not None and n.stop - 1 - m.start > most:
            found.append(distance > most)
        if self.counts is not None and not (self.counts[at] >= n.stop).all():
            found.append(~(np.arange(n.start, n.stop) < self.counts[at][..., None, None]))
        if self.allowed is not None:
            found.append(self.allowed[at][..., m, n] == 0)
        return functools.reduce(np.logical_or, found) if found else None

    def differentiate(
        self, block: tuple[Any, slice, slice], dz: Array, slope_and_hidden: list[Array | None], dbias: Array | None
    ) -> None:
        """Go back from logits to products, in place; what comes to the bias is added where it stands."""
        slope, hidden = slope_and_hidden
        if hidden is not None:
            np.copyto(dz, 0, where=hidden)
        if dbias is not None:
            self.add_to_bias(dbias, block, dz)
        if slope is not None:
            dz *= slope

    def add_to_bias(self, dbias: Array, block: tuple[Any, slice, slice], dz: Array) -> None:
        """Add a block of gradients where the bias stands that serves it: dz summed over what it serves."""
        at, m, n = block
        lead = self.shape[:-2]
        own = dbias.reshape(*(1,) * (len(lead) + 2 - dbias.ndim), *dbias.shape)
        *outer, last = at
        index = [0 if length == 1 else i for i, length in zip(outer, own.shape, strict=False)]
        if own.shape[len(lead) - 1] == 1:
            own[(*index, 0)][m, n] += dz.sum(axis=0)
        else:
            own[(*index, last)][:, m, n] += dz
