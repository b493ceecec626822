"""Equivariance: where an image is flipped, turned, moved or rescaled, attention should be so too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npattn.array_checks import check_array, check_gradient, check_map
from npattn.typing import Array, Backward
from npattn.wording import describe_type

__all__ = ["equivariance_loss"]


def equivariance_loss(
    of_transformed: Array, of_original: Array, transform: Callable[[Array], tuple[Array, Backward]]
) -> tuple[Array, Backward]:
    """Measure how far attention is from going along with a transform: the mean of |att(T x) - T att(x)|.

    No label is needed for it: an image and its transform teach each other.

    Parameters
    ----------
    of_transformed : array, (B, C, H', W')
        att(T x), attention or class maps of the transformed image.
    of_original : array, (B, C, H, W)
        att(x), those of the image.
    transform : Transform
        T: `Flip`, `QuarterTurns`, `Translate`, `Rescale` or `Compose`, or whatever returns a value and its adjoint as
        these do.

    Returns
    -------
    value : number
    backward : callable
        ``backward(dvalue=1.0)``, with a number `dvalue`, returns the gradients ``(dof_transformed, dof_original)``, in
        the dtype of the maps. Where the two agree exactly the slope is 0, as in PyTorch.

    Raises
    ------
    TypeError
        If a map is no array of floating-point numbers, the two differ in dtype, `transform` can't be called, or
        `dvalue` is no number.
    ValueError
        If they are no maps, `transform` makes another shape of the second than the first has, or `dvalue` is several
        numbers.

    Notes
    -----
    Attention that is the same everywhere, or saturated, has no loss either: a task has to keep it from there.
    ``derivations/equivariance.md`` derives the gradients and trains by them.

    References
    ----------
    Wang, Zhang, Kan, Shan, Chen: Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
    Segmentation, CVPR 2020: the equivariant regularisation.

    Examples
    --------
    >>> from npattn import Flip
    >>> attention = np.array([[[[0.1, 0.5, 0.9]]]])
    >>> value, backward = equivariance_loss(attention, attention, Flip("horizontal"))
    >>> print(f"{value:.4f}")
    0.5333
    >>> dof_transformed, dof_original = backward()
    >>> 3 * dof_transformed
    array([[[[-1.,  0.,  1.]]]])
    """
    call = "equivariance_loss"
    check_map(call, "of_original", of_original)
    check_array(call, "of_transformed", of_transformed, "of_original", of_original)
    if not callable(transform):
        raise TypeError(f"{call}: transform is {describe_type(transform)}; expected one such as Flip('horizontal')")
    t, back_transform = transform(of_original)  # (1)
    if of_transformed.shape != t.shape:
        raise ValueError(
            f"{call}: of_transformed has shape {of_transformed.shape}; expected {t.shape}, which {transform} makes of "
            f"of_original's {of_original.shape}"
        )
    if t.size == 0:
        raise ValueError(f"{call}: of_transformed has shape {t.shape}; expected at least one element to take a mean of")
    d = of_transformed - t                      # (2)
    sign = np.sign(d.real)
    value = (sign * d).mean()                   # (3)

    def backward(dvalue=1.0):
        dvalue = check_gradient(call, "dvalue", dvalue, "value", value)
        dd = sign * (dvalue / d.size)           # (3')
        dof_transformed, dt = dd, -dd           # (2')
        dof_original = back_transform(dt)       # (1')
        return dof_transformed, dof_original

    return value, backward
