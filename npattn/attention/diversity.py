"""Diversity penalty: heads that look at the same thing are told apart."""

from __future__ import annotations

from npattn import ops
from npattn.array_checks import check_array, check_gradient
from npattn.typing import Array, Backward

__all__ = ["diversity_penalty"]


def diversity_penalty(a: Array) -> tuple[Array, Backward]:
    """Penalise attention rows that overlap, and each that spreads: P = ‖A Aᵀ - I‖²_F.

    The heads' rows of A are compared pair by pair. Off the diagonal of A Aᵀ stand the overlaps of two heads, on it the
    squared lengths of the rows, which for weights that add up to 1 are 1 only where one position has it all.

    Parameters
    ----------
    a : array, (..., heads, N)
        A, the weights of every head; leading axes count examples, which have nothing to do with each other.

    Returns
    -------
    p : array, (...)
        The penalty of each example, 0 where its rows are orthonormal.
    backward : callable
        ``backward(dp)``, with `dp` shaped as `p`, returns ``da``: 4 (A Aᵀ - I) A times dp.

    Raises
    ------
    TypeError
        If `a` or `dp` is no array of floating-point numbers, or they differ in dtype.
    ValueError
        If `a` has fewer than two axes, or `dp` is not shaped as `p`.

    Notes
    -----
    ``derivations/diversity.md`` derives the gradient and says where it vanishes.

    References
    ----------
    Lin et al.: A Structured Self-attentive Sentence Embedding, ICLR 2017: section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> p, backward = diversity_penalty(np.array([[1.0, 0.0], [1.0, 0.0]]))
    >>> p
    array(2.)
    >>> backward(np.array(1.0))
    array([[4., 0.],
           [4., 0.]])
    """
    check_array("diversity_penalty", "a", a, "a", a)
    if a.ndim < 2:
        raise ValueError(
            f"diversity_penalty: a has shape {a.shape}; expected at least 2 axes, (heads, positions)"
            + ("; a single head needs an axis of its own: a[None]" if a.ndim else "")
        )
    heads = a.shape[-2]
    g, back_gram = ops.gram(a)      # (1)
    e = g.reshape(*a.shape[:-2], heads * heads)  # rows end to end: of these, the diagonal is every (heads + 1)-th
    e[..., :: heads + 1] -= 1       # (2)
    p = (e * e).sum(axis=-1)        # (3)
    p = p[...]  # an array for a single example too, which NumPy sums to a scalar

    def backward(dp):
        dp = check_gradient("diversity_penalty", "dp", dp, "the penalty", p)
        de = 2 * dp[..., None] * e  # (3')
        dg = de.reshape(g.shape)    # (2')
        return back_gram(dg)        # (1')

    return p, backward
