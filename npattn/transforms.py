"""Spatial transforms: linear maps of a map's positions, each with its exact adjoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import numpy as np

from npattn.array_checks import check_gradient, check_map
from npattn.checks import require_booleans, require_choice, require_integers
from npattn.ops.resizing import resize_bilinear
from npattn.scalars import python_scalar
from npattn.typing import Array, Backward
from npattn.wording import brief, describe_type

__all__ = ["Compose", "Flip", "QuarterTurns", "Rescale", "Transform", "Translate"]


@dataclass(frozen=True)
class Transform(ABC):
    """A linear map T from maps to maps: ``transform(x)`` returns T x, and a closure that applies the adjoint T'.

    Examples
    --------
    >>> y, backward = Flip("horizontal")(np.array([[[[1.0, 2.0, 3.0]]]]))
    >>> y
    array([[[[3., 2., 1.]]]])
    >>> backward(np.array([[[[1.0, 0.0, 0.0]]]]))
    array([[[[0., 0., 1.]]]])
    """

    def __post_init__(self) -> None:
        """Keep NumPy's scalars as Python's: as these are, they wrap, and lift arrays to their own dtype."""
        for field in fields(self):
            object.__setattr__(self, field.name, python_scalar(getattr(self, field.name)))

    def __call__(self, x: Array) -> tuple[Array, Backward]:
        """Transform a map.

        Parameters
        ----------
        x : array, (B, C, H, W)

        Returns
        -------
        y : array, (B, C, H', W')
        backward : callable
            ``backward(dy)`` returns ``dx`` = T' dy.

        Raises
        ------
        TypeError
            If `x` is no array of floating-point numbers, or `dy` none like `y`.
        ValueError
            If `x` has not four axes, or no positions, or `dy` is not shaped as `y`.
        """
        check_map(self, "x", x)
        y, back = self.apply(x)
        return y, lambda dy: back(check_gradient(self, "dy", dy, "y", y))

    @abstractmethod
    def apply(self, x: Array) -> tuple[Array, Backward]:
        """Transform a map that has been checked."""


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror a map: left and right change places, or top and bottom.

    Parameters
    ----------
    direction : str
        "horizontal" for left and right, "vertical" for top and bottom.

    Raises
    ------
    TypeError, ValueError
        If `direction` is neither.

    Examples
    --------
    >>> y, backward = Flip("horizontal")(np.array([[[[1.0, 2.0]]]]))
    >>> y, backward(np.array([[[[10.0, 20.0]]]]))
    (array([[[[2., 1.]]]]), array([[[[20., 10.]]]]))
    """

    direction: str

    def __post_init__(self) -> None:
        require_choice("Flip", ("horizontal", "vertical"), direction=self.direction)
        super().__post_init__()

    def apply(self, x: Array) -> tuple[Array, Backward]:
        """Mirror; the adjoint is the same."""
        axis = 3 if self.direction == "horizontal" else 2
        return np.flip(x, axis).copy(), lambda dy: np.flip(dy, axis).copy()


@dataclass(frozen=True)
class QuarterTurns(Transform):
    """Turn a map by right angles; an odd number of them exchanges height and width.

    Parameters
    ----------
    turns : int, default 1
        Anticlockwise; clockwise if negative.

    Raises
    ------
    TypeError
        If `turns` is no integer.

    Examples
    --------
    >>> y, backward = QuarterTurns()(np.array([[[[1.0, 2.0]]]]))
    >>> y[0, 0], backward(y)
    (array([[2.],
           [1.]]), array([[[[1., 2.]]]]))
    """

    turns: int = 1

    def __post_init__(self) -> None:
        require_integers("QuarterTurns", least=None, turns=self.turns)
        super().__post_init__()

    def apply(self, x: Array) -> tuple[Array, Backward]:
        """Turn; the adjoint turns back."""
        turns = self.turns % 4
        return np.rot90(x, turns, (2, 3)).copy(), lambda dy: np.rot90(dy, -turns, (2, 3)).copy()


@dataclass(frozen=True)
class Translate(Transform):
    """Move a map by whole pixels; what leaves it is lost, and zeros move in.

    Parameters
    ----------
    rows : int, default 0
        Downwards; upwards if negative.
    columns : int, default 0
        To the right; to the left if negative.

    Raises
    ------
    TypeError
        If one of them is no integer.

    Examples
    --------
    >>> Translate(columns=1)(np.array([[[[1.0, 2.0, 3.0]]]]))[0]
    array([[[[0., 1., 2.]]]])
    """

    rows: int = 0
    columns: int = 0

    def __post_init__(self) -> None:
        require_integers("Translate", least=None, rows=self.rows, columns=self.columns)
        super().__post_init__()

    def apply(self, x: Array) -> tuple[Array, Backward]:
        """Move; the adjoint moves back, with zeros for what was lost."""
        return moved(x, self.rows, self.columns), lambda dy: moved(dy, -self.rows, -self.columns)


@dataclass(frozen=True)
class Rescale(Transform):
    """Bring a map to another size by bilinear interpolation: `resize_bilinear`.

    Parameters
    ----------
    size : tuple of int
        New height and width.
    align_corners : bool, default False

    Raises
    ------
    TypeError, ValueError
        If `size` is no tuple of two integers of at least 1, or `align_corners` no bool.

    Examples
    --------
    >>> y, backward = Rescale((1, 4))(np.array([[[[0.0, 4.0]]]]))
    >>> y, backward(np.ones_like(y))
    (array([[[[0., 1., 3., 4.]]]]), array([[[[2., 2.]]]]))
    """

    size: tuple[int, int]
    align_corners: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.size, tuple) or len(self.size) != 2:
            kind = TypeError if not isinstance(self.size, tuple) else ValueError
            raise kind(f"Rescale: size={brief(self.size)}; expected a tuple of two integers, (height, width)")
        height, width = self.size
        require_integers("Rescale", height=height, width=width)
        require_booleans("Rescale", align_corners=self.align_corners)
        object.__setattr__(self, "size", (height, width))
        super().__post_init__()

    def apply(self, x: Array) -> tuple[Array, Backward]:
        """Interpolate."""
        return resize_bilinear(x, self.size, self.align_corners)


@dataclass(frozen=True)
class Compose(Transform):
    """Apply transforms one after the other.

    Parameters
    ----------
    parts : tuple of Transform
        The first is applied first. None at all leave the map as it is.

    Raises
    ------
    TypeError
        If `parts` is no tuple, or holds what is no transform.

    Examples
    --------
    >>> turned = Compose((QuarterTurns(1), Flip("vertical")))
    >>> turned(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))[0]
    array([[[[1., 3.],
             [2., 4.]]]])
    """

    parts: tuple[Transform, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple):
            raise TypeError(f"Compose: parts={brief(self.parts)} is {describe_type(self.parts)}; expected a tuple")
        for part in self.parts:
            if not isinstance(part, Transform):
                raise TypeError(
                    f"Compose: parts holds {brief(part)}, {describe_type(part)}; expected transforms, such as "
                    "Flip('horizontal')"
                )

    def apply(self, x: Array) -> tuple[Array, Backward]:
        """Apply the transforms; the adjoint applies theirs in the opposite order."""
        y, backs = x.copy(), []
        for part in self.parts:
            y, back = part.apply(y)
            backs.append(back)

        def backward(dy):
            dx = dy.copy()
            for back in reversed(backs):
                dx = back(dx)
            return dx

        return y, backward


def moved(x: Array, rows: int, columns: int) -> Array:
    """Move a map downwards and to the right; zeros move in."""
    y = np.zeros_like(x)
    (to_row, from_row), (to_column, from_column) = (
        (slice(max(step, 0), length + min(step, 0)), slice(max(-step, 0), length - max(step, 0)))
        for step, length in zip((rows, columns), x.shape[2:], strict=True)
    )
    if max(abs(rows) - x.shape[2], abs(columns) - x.shape[3]) < 0:
        y[:, :, to_row, to_column] = x[:, :, from_row, from_column]
    return y
