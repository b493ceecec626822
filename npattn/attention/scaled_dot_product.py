"""Scaled dot-product attention by itself: what GPU kernels compute, with the options that they come with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import ops
from npattn.array_checks import check_array, check_rows
from npattn.calls import check_axes
from npattn.checks import require_equal_shares
from npattn.fields import boolean, choice, integer, number, positive, two_integers
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import transpose
from npattn.ops.masking import masked_weights
from npattn.parameters import Parameter, zeros
from npattn.typing import Array, Params

AXES = {
    "query": ("batch", "heads", "queries", "head_dim"),
    "key": ("batch", "key_heads", "keys", "head_dim"),
    "value": ("batch", "key_heads", "keys", "value_dim"),
    "bias": ("batch or 1", "heads or 1", "queries", "keys"),
    "mask": ("batch or 1", "heads or 1", "queries", "keys"),
    "lengths": ("batch",),
}
"""What the axes of each input are."""


@dataclass(frozen=True)
class ScaledDotProductAttention(Module):
    """Average values for each query, weighted by the softmax of its products with the keys.

    o_m = Σ_n exp(z_mn - l_m) v_n, with the logits z_mn = scale q_m · k_n and the logsumexp l_m = log Σ_n exp z_mn, over
    the keys n that query m sees. The options change the logits, and what is seen. The M × N weights are never held.

    Parameters
    ----------
    heads : int
        H, heads of the queries.
    key_heads : int, optional
        G, heads of the keys and values, a divisor of H: head h reads key head h // (H / G). By default H.
    head_dim : int
        d, of queries and keys.
    value_dim : int, optional
        e, of values. By default d.
    scale : float, optional
        By default 1/√d.
    causal : {"top-left", "bottom-right"}, optional
        Query m sees the keys n ≤ m; or n ≤ m + N - M, so that the last query sees the last key.
    window : pair of int, optional
        (l, r): query m sees the keys m + N - M - l ≤ n ≤ m + N - M + r.
    softcap : float, optional
        c: logits become c tanh(z / c), before bias and masks.
    bias : bool, default False
        Whether an input ``bias`` is added to the logits.
    mask : bool, default False
        Whether an input ``mask``, of 0 and 1, says which keys a query sees.
    lengths : bool, default False
        Whether an input ``lengths`` says from where on the keys of an image are padding.
    sink : bool, default False
        Whether each head has a logit that takes weight and gives no value.
    logsumexp : bool, default False
        Whether l is a second output.

    Raises
    ------
    TypeError
        If a hyperparameter is of another type, or `head_dim` missing.
    ValueError
        If an integer is below 1, `key_heads` does not divide `heads`, `causal` is another string, `window` is no pair
        of integers of at least 0, `softcap` is not above 0, or it or `scale` is not finite; when called, if an input's
        axes are others, or there are no queries or no keys.

    Notes
    -----
    Inputs: ``query`` (B, H, M, d), ``key`` (B, G, N, d), ``value`` (B, G, N, e), then those that the options ask for,
    in this order: ``bias`` (B or 1, H or 1, M, N), ``mask`` (B or 1, H or 1, M, N), ``lengths`` (B,). All are arrays of
    the query's floating dtype; backward returns None for ``mask`` and ``lengths``. As sizes of a map, height is M and
    width N. Output: (B, H, M, e), with `logsumexp` a tuple of it and l (B, H, M). Parameter, with `sink`: ``sink``
    (H,), 0 at the start.

    What is not seen has weight and gradients exactly 0, whatever stands there, NaN and infinity included. A query that
    sees no key gives output 0, logsumexp -∞ and gradients 0, with a sink too.

    References
    ----------
    Vaswani et al.: Attention Is All You Need, NeurIPS 2017, eq. 1. Grouped queries: Ainslie et al.: GQA, EMNLP 2023.
    Logits capped by tanh: Bello et al.: Neural Combinatorial Optimization, 2016, appendix A.2. Sinks: Xiao et al.:
    Efficient Streaming Language Models with Attention Sinks, ICLR 2024, whose sink is a token.

    Examples
    --------
    >>> import numpy as np
    >>> module = ScaledDotProductAttention(heads=4, key_heads=2, head_dim=8, causal="bottom-right", logsumexp=True)
    >>> query, key, value = np.ones((1, 4, 3, 8)), np.ones((1, 2, 5, 8)), np.ones((1, 2, 5, 8))
    >>> run = module({}, query, key, value)
    >>> run
    Pass(output: float64 (1, 4, 3, 8), float64 (1, 4, 3))
    >>> (dquery, dkey, dvalue), _ = run.backward(run.output)
    >>> dvalue[0, 0, :, 0]
    array([1.56666667, 1.56666667, 1.56666667, 0.9       , 0.4       ])
    """

    key: ClassVar = "sdpa"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Attention Is All You Need",
        authors="Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin",
        venue="NeurIPS",
        year=2017,
        url="https://arxiv.org/abs/1706.03762",
    )
    without_gradient: ClassVar = ("mask", "lengths")

    heads: int = integer(least=1)
    key_heads: int | None = integer(least=1, default=None)
    head_dim: int = integer(least=1, default=None)
    value_dim: int | None = integer(least=1, default=None)
    scale: float | None = number(default=None)
    causal: str | None = choice(("top-left", "bottom-right"), default=None)
    window: tuple[int, int] | None = two_integers(default=None, least=0, names=("left", "right"))
    softcap: float | None = positive(default=None)
    bias: bool = boolean(default=False)
    mask: bool = boolean(default=False)
    lengths: bool = boolean(default=False)
    sink: bool = boolean(default=False)
    logsumexp: bool = boolean(default=False)

    def __post_init__(self) -> None:
        """Refuse, besides, a missing `head_dim`, and heads of keys that heads of queries can't share equally."""
        super().__post_init__()
        if self.head_dim is None:  # it stands behind `key_heads`, which has a default
            raise TypeError(
                f"{type(self).__name__}: missing hyperparameter 'head_dim' (expected {', '.join(vars(self))})"
            )
        require_equal_shares(type(self).__name__, "key_heads", self.groups, "heads", self.heads)

    @classmethod
    def example(cls) -> ScaledDotProductAttention:
        """Return a small instance: 4 heads of 8 that share 2 heads of keys, causal from the top left, with sinks."""
        return cls(heads=4, key_heads=2, head_dim=8, causal="top-left", sink=True)

    @property
    def channels(self) -> int:
        """d, of queries and keys, by the name that other systems give it."""
        return self.head_dim

    @property
    def groups(self) -> int:
        """G, heads of keys and values."""
        return self.key_heads or self.heads

    @property
    def value_channels(self) -> int:
        """e, of values."""
        return self.value_dim or self.head_dim

    @property
    def factor(self) -> float:
        """Factor of the products."""
        return 1 / math.sqrt(self.head_dim) if self.scale is None else self.scale

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs, for `height` queries and `width` keys; bias and mask serve all heads."""
        shapes: dict[str, tuple[int, ...]] = {
            "query": (batch, self.heads, height, self.head_dim),
            "key": (batch, self.groups, width, self.head_dim),
            "value": (batch, self.groups, width, self.value_channels),
        }
        if self.bias:
            shapes["bias"] = batch, 1, height, width
        if self.mask:
            shapes["mask"] = batch, 1, height, width
        if self.lengths:
            shapes["lengths"] = (batch,)
        return shapes

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the averages and, where it is asked for, of the logsumexp."""
        averages = batch, self.heads, height, self.value_channels
        return {"output.0": averages, "output.1": averages[:3]} if self.logsumexp else {"output": averages}

    def draw_inputs(
        self, shapes: Mapping[str, tuple[int, ...]], random: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Draw lengths that hide no mask, nor are hidden by one; the third image, where there is one, has no keys."""
        found = super().draw_inputs(shapes, random)
        if self.lengths:
            queries, keys = shapes["query"][2], shapes["key"][2]
            found["lengths"] = draw_lengths(shapes["lengths"][0], queries, keys, self.band(queries, keys), random)
        return found

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw queries, keys and biases without means, values with one a channel, a mask of 0 and 1."""
        if name == "mask":
            return random.randint(0, 2, shape).astype(float)
        drawn = random.standard_normal(shape)
        return drawn + random.standard_normal((*shape[:2], 1, shape[3])) if name == "value" else drawn

    def parameters(self) -> dict[str, Parameter]:
        """Declare the sinks, if there are any."""
        return {"sink": zeros(self.heads)} if self.sink else {}

    def check_inputs(self, inputs: tuple[Array, ...]) -> None:
        """Refuse inputs whose axes are not those of `input_shapes`; how many images, queries and keys is free."""
        check_axes(self, inputs, AXES)
        for name, a in zip(("query", "key"), inputs, strict=False):
            if 0 in a.shape[2:]:
                raise ValueError(f"{self}: {name} has shape {a.shape}; expected at least one {name}")

    def expected_shapes(self, inputs: tuple[Array, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes that inputs have to have, given the numbers of images, queries and keys; a bias and a mask serve all.

        Their first two axes are what they are if they are 1, else the numbers of images and heads.
        """
        given = dict(zip(self.input_shapes(1, 1, 1), inputs, strict=True))
        expected = self.input_shapes(len(inputs[0]), inputs[0].shape[2], inputs[1].shape[2])
        pairs = [name for name in ("bias", "mask") if name in given]
        return expected | {name: shape_of_pairs(given[name], expected["query"], expected[name]) for name in pairs}

    def forward(self, params: Params, query: Array, key: Array, value: Array, *others: Array) -> Pass:
        """Repeat heads of keys and values, attend. The tags are the equation numbers of the derivation."""
        options = self.attention_options(params, query, key, others)
        shared = self.heads // self.groups
        k, back_key = ops.repeat(key, shared, axis=1)                                  # (1)
        v, back_value = ops.repeat(value, shared, axis=1)                              # (2)
        qkv = map(transpose, (query, k, v))  # positions stand last in `ops`, before the last axis here
        (o, lse), back_attention = ops.masked_attention(*qkv, self.factor, **options)  # (3)

        def backward(dy):
            do, dlse = dy if self.logsumexp else (dy, 0.0)
            dq, dk, dv, dbias, dsink = back_attention(transpose(do), dlse)             # (3')
            dvalue = back_value(transpose(dv))                                         # (2')
            dkey = back_key(transpose(dk))                                             # (1')
            dothers = (dbias,) * self.bias + (None,) * (self.mask + self.lengths)
            return (transpose(dq), dkey, dvalue, *dothers), {"sink": dsink} if self.sink else {}

        return Pass((transpose(o), lse) if self.logsumexp else transpose(o), backward)

    def attention_options(self, params: Params, query: Array, key: Array, others: Sequence[Array]) -> dict[str, Any]:
        """Name what `ops.masked_attention` is given beside queries, keys, values and the scale."""
        given = dict(zip(list(self.input_shapes(1, 1, 1))[3:], others, strict=True))
        return {
            "softcap": self.softcap,
            "bias": given.get("bias"),
            "sink": params["sink"] if self.sink else None,
            "band": self.band(query.shape[2], key.shape[2]),
            "lengths": given["lengths"][:, None] if self.lengths else None,
            "mask": given.get("mask"),
        }

    def band(self, queries: int, keys: int) -> tuple[int | None, int | None]:
        """Return the least and the most that n - m may be for query m to see key n; None where nothing bounds it.

        Examples
        --------
        >>> ScaledDotProductAttention(heads=1, head_dim=8, causal="bottom-right", window=(2, 1)).band(3, 5)
        (0, 2)
        """
        last = keys - queries
        least = None if self.window is None else last - self.window[0]
        bounds = [] if self.window is None else [last + self.window[1]]
        if self.causal is not None:
            bounds.append(0 if self.causal == "top-left" else last)
        return least, min(bounds, default=None)

    def attention_map(
        self, params: Params, query: Array, key: Array, *others: Array, rows: Sequence[int] | None = None
    ) -> Array:
        """Make the weights of all pairs, or of some queries: where they look.

        Parameters
        ----------
        params : mapping of str to array
        query, key : array
        *others : array
            The inputs behind ``value``.
        rows : sequence of int, optional
            Queries; by default all.

        Returns
        -------
        array, (B, H, M, N) or (B, H, len(rows), N)
            Row m holds the weights of all keys for query m; they add up to 1, less what a sink takes.

        Raises
        ------
        TypeError, ValueError
            If an argument is refused by a call, or a row is no query.
        """
        check_array(self, "key", key, "key", key)
        self.check(params, query, key, np.zeros_like(key, shape=(*key.shape[:3], self.value_channels)), *others)
        queries = query.shape[2]
        which = slice(0, queries) if rows is None else check_rows(f"{self}.attention_map", rows, "queries", queries)
        options = self.attention_options(params, query, key, others)
        k, _ = ops.repeat(key, self.heads // self.groups, axis=1)
        return masked_weights(transpose(query), transpose(k), which, self.factor, **options)


def shape_of_pairs(a: Array, query: tuple[int, ...], pairs: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that what belongs to pairs of queries and keys has to have: images and heads may be 1."""
    return *(1 if n == 1 else m for n, m in zip(a.shape[:2], query[:2], strict=True)), *pairs[2:]


def draw_lengths(
    images: int, queries: int, keys: int, band: tuple[int | None, int | None], random: np.random.RandomState
) -> np.ndarray:
    """Draw how many keys each image has, so that lengths or a band that are off by one change what is seen.

    The first of several images has all keys, the third none. Another's last key, and the first that it lacks, are
    within the band for some query; of one image alone the last key is also beyond the band for some query.

    Examples
    --------
    >>> draw_lengths(4, 5, 15, (None, 0), np.random.RandomState(0))
    array([15.,  4.,  0.,  1.])
    """
    least, most = band
    seen = keys if most is None else min(keys, queries + most)
    first = 1 if least is None else max(1, least + 1)
    if images == 1 and most is not None:
        first = max(first, most + 2)
    first = max(1, min(first, seen))
    lengths = random.randint(first, max(first, seen - 1) + 1, images).astype(float)
    if images > 1:
        lengths[0] = keys
    lengths[2:3] = 0
    return lengths
