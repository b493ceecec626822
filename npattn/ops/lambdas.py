"""Linear maps that positions are handed, applied to their queries."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["apply_lambdas"]


@primitive
def apply_lambdas(q: Array, lambdas: Array) -> tuple[Array, Backward]:
    """Apply to the queries of every position the linear map that it has: y_evn = Σ_k λ_vkn q_ekn.

    Parameters
    ----------
    q : array, (B, E, K, N)
        E queries of K channels for each of N positions.
    lambdas : array, (B, V, K, N)
        For each position a matrix that maps K channels to V.

    Returns
    -------
    y : array, (B, E, V, N)
    backward : callable
        ``backward(dy)`` returns ``(dq, dlambdas)``.

    Notes
    -----
    Bello: LambdaNetworks, ICLR 2021. ``derivations/lambda_layer.md`` derives the gradient.

    Examples
    --------
    >>> q, lambdas = np.array([[[[1.0], [2.0]]]]), np.array([[[[3.0], [4.0]]]])
    >>> y, backward = apply_lambdas(q, lambdas)
    >>> y
    array([[[[11.]]]])
    >>> dq, dlambdas = backward(np.array([[[[10.0]]]]))
    >>> dq.ravel(), dlambdas.ravel()
    (array([30., 40.]), array([10., 20.]))
    """
    y = np.einsum("bekn,bvkn->bevn", q, lambdas)

    def backward(dy):
        return np.einsum("bevn,bvkn->bekn", dy, lambdas), np.einsum("bevn,bekn->bvkn", dy, q)

    return y, backward
