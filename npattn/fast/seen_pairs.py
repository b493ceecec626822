"""Which pairs of queries and keys are seen, and their logits, block by block: what attention with masks computes on."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.fast.attention import difference_in, product_in
from npattn.fast.blas import add_product, is_small_product
from npattn.fast.threads import Memory
from npattn.ops.attention import transpose
from npattn.ops.masking import sum_to
from npattn.typing import Array

__all__ = ["Pairs"]

MAX_KEPT_WEIGHTS = 2**21
"""Weights of all pairs that are kept from forward to backward, at most."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of queries and keys: their logits, and which are seen.

    Attributes
    ----------
    q, k : numpy.ndarray, (*lead, d, M), (*lead, d, N)
        The queries are scaled, by `factor`.
    scale : float
        What products of queries and keys are multiplied with.
    unit : float
        What logits are multiplied with at last; without a softcap, the queries are already.
    softcap, bias, band, lengths, mask
        As `npattn.ops.masked_attention` has them.
    """

    q: Array
    k: Array
    scale: float
    unit: float
    softcap: float | None
    bias: Array | None
    band: tuple[int | None, int | None]
    lengths: Array | None
    mask: Array | None

    @property
    def factor(self) -> float:
        """What the queries are multiplied with."""
        return self.scale * self.unit_of_queries

    @property
    def unit_of_queries(self) -> float:
        """The part of `factor` that is no scale."""
        return self.unit if self.softcap is None else 1

    @functools.cached_property
    def hides_by_bias(self) -> bool:
        """Whether the bias says what the mask hides too: where both together are no larger than what is given."""
        if self.mask is None:
            return False
        shapes = self.mask.shape, () if self.bias is None else self.bias.shape
        return math.prod(np.broadcast_shapes(*shapes)) <= self.q.size + self.k.size

    @functools.cached_property
    def added(self) -> Array | None:
        """The bias, seen as one for each image and head, times the unit; none that would be as large as all logits."""
        if self.bias is None or self.unit == 1:
            added = self.bias
        else:
            large = self.bias.size == math.prod(self.shape) and not self.hides_by_bias
            added = None if large else self.unit * self.bias
        if self.hides_by_bias:
            added = np.where(self.mask == 0, -np.inf, 0 if added is None else added).astype(self.q.dtype, copy=False)
        return None if added is None else np.broadcast_to(added, self.shape)

    @functools.cached_property
    def allowed(self) -> Array | None:
        """The mask, seen likewise, where it is not in the bias."""
        return None if self.mask is None or self.hides_by_bias else np.broadcast_to(self.mask, self.shape)

    @functools.cached_property
    def counts(self) -> Array | None:
        """The lengths, seen likewise."""
        return None if self.lengths is None else np.broadcast_to(self.lengths, self.shape[:-2])

    @property
    def has_own_biases(self) -> bool:
        """Whether each pair has a bias of its own, added at last, and no block leaves out keys."""
        own = self.bias is not None and self.bias.size == math.prod(self.shape)
        return own and self.softcap is None and self.band == (None, None) and self.lengths is None

    @functools.cached_property
    def kept(self) -> Array | None:
        """Memory for the weights, where there are few, and the bias is as large: to make them anew would take longer.

        It is asked for before there are threads that share it.
        """
        if not self.has_own_biases or math.prod(self.shape) > MAX_KEPT_WEIGHTS:
            return None
        return np.empty_like(self.q, shape=self.shape, order="C")

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

    def logits(
        self, at: Any, m: slice, n: slice, memory: Memory, least: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Make a block of logits, less a number for each query, and the softcap's slope, if there is one."""
        q, k, slope = transpose(self.q[at][..., m]), self.k[at][..., n], None
        added, unit = (self.bias, self.unit) if self.added is None else (self.added, 1)
        if added is not None:
            added = np.broadcast_to(added, self.shape)[at][..., m, n]
        if added is not None and self.softcap is None and not is_small_product(q, k):
            z, less = memory(added.shape), 0 if least is None else least[at][..., m, None]
            if unit == 1:
                np.subtract(added, less, out=z)
            else:
                np.multiply(unit, added, out=z)
                if least is not None:
                    z -= less
            z, added = add_product(q, k, z), None
        elif least is not None and self.softcap is None:
            z = difference_in(memory, transpose(q), k, least[at][..., m])
        else:
            z = product_in(memory, q, k)
        if self.softcap is not None:
            z /= self.softcap
            np.tanh(z, out=z)
            slope = 1 - z * z
            z *= self.softcap * self.unit
            if least is not None:
                z -= least[at][..., m][..., None]
        if added is not None:
            z += added if unit == 1 else unit * added
        hidden = self.hidden(at, m, n)
        if hidden is not None:
            np.copyto(z, -np.inf, where=hidden)
        return z, slope

    def hidden(self, at: Any, m: slice, n: slice) -> Array | None:
        """Tell which pairs of a block are hidden; None where none is."""
        least, most = self.band
        found: list[Array] = []
        behind = least is not None and n.start - (m.stop - 1) < least
        ahead = most is not None and n.stop - 1 - m.start > most
        if behind or ahead:
            distance = np.arange(n.start, n.stop) - np.arange(m.start, m.stop)[:, None]
            found += ([distance < least] if behind else []) + ([distance > most] if ahead else [])
        if self.counts is not None and not (self.counts[at] >= n.stop).all():
            found.append(~(np.arange(n.start, n.stop) < self.counts[at][..., None, None]))
        if self.allowed is not None:
            found.append(self.allowed[at][..., m, n] == 0)
        return functools.reduce(np.logical_or, found) if found else None

    def add_to_bias(self, dbias: Array, block: tuple[Any, slice, slice], dz: Array) -> None:
        """Add a block of gradients where the bias stands that serves it: dz summed over what it serves."""
        at, m, n = block
        own = dbias.reshape(*(1,) * (len(self.shape) - dbias.ndim), *dbias.shape)
        index = tuple(
            i if length > 1 else slice(None) if isinstance(i, slice) else 0
            for i, length in zip(at, own.shape, strict=False)
        )
        place = own[index][..., m, n]
        place += sum_to(dz, place.shape)
