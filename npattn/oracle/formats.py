"""Floating-point formats: what numbers a kernel can hold, and how far apart they lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.wording import brief, describe_type, did_you_mean, suggest

__all__ = ["FLOAT32", "FLOAT64", "FORMATS", "Format", "find_format", "representable", "ulp"]


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
    infinite : bool
        Whether it has infinities. Where it has none, a cast that does not saturate makes NaN of what is too large.

    Examples
    --------
    >>> FORMATS["bfloat16"].unit_roundoff
    0.00390625
    """

    name: str
    precision: int
    least_exponent: int
    largest: float
    operand_precision: int
    saturates: bool = False
    infinite: bool = True

    @property
    def unit_roundoff(self) -> float:
        """2 ** -precision: the largest relative error of one rounding to nearest."""
        return 2.0**-self.precision

    @property
    def smallest(self) -> float:
        """The distance of the numbers around 0."""
        return 2.0 ** (self.least_exponent - self.precision + 1)

    @property
    def shortens(self) -> bool:
        """Whether operands of matrix products lose digits of the format's numbers."""
        return self.operand_precision < self.precision

    @property
    def is_accumulator(self) -> bool:
        """Whether sums are accumulated in the format itself, so that their errors are all there is."""
        return self.is_single_precision and not self.shortens

    @property
    def is_single_precision(self) -> bool:
        """Whether results have float32's digits, as those of tf32 do too."""
        return self.precision == 24

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
        Format("float8_e4m3", 4, -6, 448.0, 4, saturates=True, infinite=False),
        Format("float8_e5m2", 3, -14, 57344.0, 3, saturates=True),
    )
}
"""The formats that the oracle knows, by name. The 8-bit ones are those of Micikevicius et al., arXiv:2209.05433."""
FLOAT32 = FORMATS["float32"]
"""What kernels of narrower formats compute in."""
FLOAT64 = Format("float64", 53, -1022, float(np.finfo(np.float64).max), 53)
"""The format of the reference itself: nothing is rounded that float64 doesn't round."""

ALIASES = {
    "float32": "fp32 f32 f4 single",
    "tf32": "tfloat32 tensorfloat32",
    "bfloat16": "bf16 bfloat",
    "float16": "fp16 f16 f2 half",
    "float8_e4m3": "e4m3 e4m3fn fp8e4m3 fp8e4m3fn float8e4m3fn f8e4m3 f8e4m3fn fp8e4nv",
    "float8_e5m2": "e5m2 fp8e5m2 f8e5m2 fp8e5",
}
"""What else the formats are called, in lower case and without the marks between the words."""
NAMES = {re.sub(r"[\W_]", "", alias): name for name, others in ALIASES.items() for alias in (name, *others.split())}
"""The formats' names by all that they are called."""
REASONS = {
    r"(float|fp|f)(64|96|128)|double|longdouble": "; the exact results are in float64 already, and a kernel's "
    "are judged in a format that rounds more",
    r"float": "; it is float32 in PyTorch and float64 in NumPy" + suggest(["float32"]),
    r"(float|fp|f)8": suggest(["float8_e4m3", "float8_e5m2"]),
    r".*fnuz|fp8e(4b8|4b15|5b16)": "; FNUZ formats are others, with another exponent bias and no negative zero",
    r".*e(3m4|8m0|2m1|2m3|3m2).*|(mx|nv)?(float|fp|f)[46]": "; it is another format, which the oracle doesn't know",
    r"u?int\d*|[iu]\d|bool|complex\d*|object|str": "; it is no floating-point format",
}
"""Why a name is refused, as the clause of a message, by a pattern of the name without the marks between its words."""


def find_format(given: Any, call: str) -> Format:
    """Look up a format by its name, by another name that is usual, or by a dtype of NumPy or another library.

    Parameters
    ----------
    given : str or dtype
        "float8_e4m3" is the format that PyTorch and ml_dtypes call ``float8_e4m3fn``.
    call : str
        What an error message begins with.

    Returns
    -------
    Format

    Raises
    ------
    TypeError
        If it is neither a name nor a dtype.
    ValueError
        If it names no format that the oracle knows, or more than one; those that may be meant are said.

    Examples
    --------
    >>> find_format("bf16", "golden") is FORMATS["bfloat16"]
    True
    >>> find_format(np.float16, "golden") is find_format("half", "golden")
    True
    >>> find_format("fp8", "golden")
    Traceback (most recent call last):
    ValueError: golden: dtype='fp8'; did you mean 'float8_e4m3' or 'float8_e5m2'? (expected 'float32' or ...)
    """
    listed = " or ".join(map(repr, FORMATS))
    name = given if isinstance(given, str) else name_of(given)
    if name is None:
        raise TypeError(f"{call}: dtype={brief(given)} is {describe_type(given)}; expected a name or dtype: {listed}")
    key = re.sub(r"[\W_]", "", name.strip().rpartition(".")[2].lower())
    if key == "float8e4m3" and not isinstance(given, (str, Format)):
        why = "; the dtype of this name has infinities and ends at 240" + suggest(["float8_e4m3fn"])
    elif key in NAMES:
        return FORMATS[NAMES[key]]
    else:
        reasons = (reason for pattern, reason in REASONS.items() if re.fullmatch(pattern, key))
        why = next(reasons, did_you_mean(name, FORMATS, 0.6))
    raise ValueError(f"{call}: dtype={brief(name)}{why} (expected {listed})")


def name_of(dtype: Any) -> str | None:
    """Return the name of a dtype of any library; None of what is no dtype."""
    if isinstance(dtype, np.dtype) or dtype is float:
        return np.dtype(dtype).name
    if isinstance(dtype, type):
        return dtype.__name__
    if isinstance(dtype, Format) or "dtype" in type(dtype).__name__.lower():
        return getattr(dtype, "name", str(dtype))
    return None


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
    spacing = binades(values, format.least_exponent) * 2.0 ** (1 - format.operand_precision)
    with np.errstate(over="ignore"):
        rounded = np.asarray(np.rint(values / spacing) * spacing, np.float64)
    too_large = np.abs(rounded) > format.largest
    if not too_large.any():
        return rounded
    beyond = format.largest if format.saturates else np.inf
    return np.where(too_large, np.copysign(beyond, rounded), rounded)


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
    return np.asarray(binades(values, format.least_exponent), np.float64) * 2.0 ** (1 - (precision or format.precision))


def binades(values: np.ndarray, least_exponent: int) -> np.ndarray:
    """Return the largest power of two that each number reaches, 2 ** least_exponent at least.

    Parameters
    ----------
    values : numpy.ndarray, float32 or float64
    least_exponent : int

    Returns
    -------
    numpy.ndarray
        Of the same dtype; 1/2 of infinity and NaN.

    Examples
    --------
    >>> binades(np.array([0.0, 1.0, -1.9, 6.0]), -14).tolist()
    [6.103515625e-05, 1.0, 1.0, 4.0]
    """
    values = np.asarray(values)
    if values.dtype == np.float32:
        powers = (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    else:
        values = np.asarray(values, np.float64)
        powers = (values.view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)
    powers = np.maximum(powers, powers.dtype.type(2.0**least_exponent))
    return np.where(np.isfinite(powers), powers, powers.dtype.type(0.5))
