"""Floating-point formats: what numbers a kernel can hold, and how far apart they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.checks import require_choice

__all__ = ["FLOAT64", "FORMATS", "Format", "find_format", "representable", "ulp"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes
    ----------
    name : str
    precision : int
        Significant bits, the hidden one included.
    least_exponent : int
        Exponent of the smallest normal number, 2 ** least_exponent; below it numbers are evenly spaced.
    largest : float
        The largest finite number.
    operand_precision : int
        Significant bits of the operands of matrix products and convolutions: fewer than `precision` in tf32 alone,
        which keeps its results in float32.
    saturates : bool
        Whether what is too large becomes the largest number, as in kernels that write 8-bit floats, and not infinity.
    """

    name: str
    precision: int
    least_exponent: int
    largest: float
    operand_precision: int
    saturates: bool = False

    @property
    def unit(self) -> float:
        """The unit roundoff 2 ** -precision: the largest relative error of one rounding to nearest."""
        return 2.0**-self.precision

    @property
    def smallest(self) -> float:
        """The distance of the numbers around 0."""
        return 2.0 ** (self.least_exponent - self.precision + 1)

    @property
    def storage(self) -> type:
        """NumPy's format in which its numbers are held: one whose own rounding is far finer."""
        return np.float32 if self.precision <= 16 else np.float64


FORMATS = {
    format.name: format
    for format in (
        Format("float32", 24, -126, float(np.finfo(np.float32).max), 24),
        Format("tf32", 24, -126, float(np.finfo(np.float32).max), 11),
        Format("bfloat16", 8, -126, float.fromhex("0x1.fep127"), 8),
        Format("float16", 11, -14, 65504.0, 11),
        Format("float8_e4m3", 4, -6, 448.0, 4, saturates=True),
        Format("float8_e5m2", 3, -14, 57344.0, 3, saturates=True),
    )
}
"""The formats that the oracle knows, by name. The 8-bit ones are those of Micikevicius et al., arXiv:2209.05433."""

FLOAT64 = Format("float64", 53, -1022, float(np.finfo(np.float64).max), 53)
"""The format of the reference itself: nothing is rounded that float64 doesn't round."""


def find_format(name: Any, call: str) -> Format:
    """Look up a format by its name, or by NumPy's or another library's dtype of that name.

    Raises
    ------
    TypeError, ValueError
        If it is none of them.

    Examples
    --------
    >>> find_format("float16", "golden") is find_format(np.float16, "golden")
    True
    """
    if not isinstance(name, str):
        name = getattr(name, "__name__", None) or str(name)
    name = name.rpartition(".")[2]
    require_choice(call, FORMATS, dtype=name)
    return FORMATS[name]


def representable(values: np.ndarray, format: Format) -> np.ndarray:
    """Round to the nearest number of a format, ties to even; in tf32, of its operands.

    Parameters
    ----------
    values : numpy.ndarray, float64
    format : Format

    Returns
    -------
    numpy.ndarray, float64

    Examples
    --------
    >>> representable(np.array([1.001, 1.006, 1e39, 1e-50]), FORMATS["bfloat16"])
    array([1.       , 1.0078125,       inf, 0.       ])
    """
    # The spacing is a power of two, so dividing and multiplying by it is exact; rint takes ties to even.
    spacing = ulp(values, format, format.operand_precision)
    with np.errstate(over="ignore"):
        rounded = np.rint(values / spacing) * spacing
    beyond = format.largest if format.saturates else np.inf
    return np.where(np.abs(rounded) > format.largest, np.copysign(beyond, rounded), rounded)


def ulp(values: np.ndarray, format: Format, precision: int | None = None) -> np.ndarray:
    """Return the unit in the last place: the distance of a format's numbers around each value.

    Parameters
    ----------
    values : numpy.ndarray, float64
    format : Format
    precision : int, optional
        Other than the format's own.

    Returns
    -------
    numpy.ndarray, float64

    Examples
    --------
    >>> ulp(np.array([0.0, 1.0, -1.9, 2.0]), FORMATS["float16"])
    array([5.96046448e-08, 9.76562500e-04, 9.76562500e-04, 1.95312500e-03])
    """
    precision = precision or format.precision
    _, exponent = np.frexp(np.where(np.isfinite(values), values, 0))  # values = m 2^exponent with 1/2 <= |m| < 1
    exponent = np.where(values == 0, format.least_exponent, exponent - 1)
    return np.ldexp(1.0, np.maximum(exponent, format.least_exponent) - precision + 1)
