"""Numbers as the page writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.tracing.text import RESIDUE, to_numbers, write_number

__all__ = ["minus", "short", "statistics", "write_shape"]


def short(number: Any) -> str:
    """Write a number with three digits, whole ones up to a million in full, and a minus that is as wide as a plus.

    Examples
    --------
    >>> short(-1.0), short(0.12345), short(-1234.5)
    ('−1', '0.123', '−1234')
    """
    if abs(number) <= RESIDUE:
        return "0"
    return minus(f"{number:.0f}" if 1000 <= abs(number) < 1e6 else f"{number:.3g}")


def minus(text: str) -> str:
    """Write minus signs as such."""
    return text.replace("-", "\N{MINUS SIGN}")


def write_shape(value: Any) -> str:
    """Write a shape.

    Examples
    --------
    >>> write_shape(np.zeros((1, 32, 3)))
    '1×32×3'
    """
    return "×".join(map(str, np.shape(to_numbers(value)))) if value is not None else ""


def statistics(numbers: np.ndarray) -> str:
    """Summarise numbers: shape, mean, root mean square, least and largest."""
    shape = write_shape(numbers) or "one number"
    if not numbers.size:
        return f"{shape}, empty"
    with np.errstate(all="ignore"):
        values = numbers.mean(), np.sqrt(np.square(numbers).mean()), numbers.min(), numbers.max()
    words = zip(("mean", "rms", "least", "largest"), values, strict=True)
    written = ", ".join(f"{word} {minus(write_number(value))}" for word, value in words)
    lost = int(numbers.size - np.isfinite(numbers).sum())
    return f"{shape}: {written}" + (f"; {lost} not finite" if lost else "")
