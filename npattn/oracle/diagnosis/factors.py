"""A wrong result that is a multiple of the exact one, off by a constant, or the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.diagnosis.axes import list_words
from npattn.oracle.diagnosis.evidence import Candidate, Evidence
from npattn.oracle.golden_files.described import axes_of

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["known_factors", "read_constant", "read_factor", "read_offset"]

MAX_DIGITS = 5
"""Digits of a fitted number that are told at most."""
AXES_IN_FORMULAS = {"maps": ("B", "C", "H", "W"), "heads": ("B", "heads", "N", "d")}
MAX_NAMES = 3
"""Names of a factor: of more it is none."""


def known_factors(case: Case) -> dict[str, float]:
    """List factors that mistakes make, by name: of the case's sizes, and of logarithms in base 2.

    Examples
    --------
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), batch=3, height=2, width=5)
    >>> factors = known_factors(case)
    >>> factors["1/(H W)"], factors["sqrt(C)"], factors["B"]
    (0.1, 2.0, 3.0)
    """
    first, shape = next((name, a.shape) for name, a in case.inputs.items())
    axes = axes_of(case.module)
    names = AXES_IN_FORMULAS.get(axes, [f"{first}.shape[{axis}]" for axis in range(len(shape))])
    sizes = {name: float(n) for name, n in zip(names, shape, strict=False)}
    if axes == "heads":
        sizes["keys"] = float(case.inputs["key"].shape[-2])
    if len(shape) == 4 and "H" in sizes:
        sizes["H W"] = float(shape[2] * shape[3])
    for field in ("heads", "key_heads", "head_dim", "head_channels", "groups"):
        value = getattr(case.module, field, None)
        if isinstance(value, int):
            sizes.setdefault({"head_dim": "d", "head_channels": "d"}.get(field, field), float(value))
    if sizes.get("heads") and sizes.get("key_heads", sizes["heads"]) != sizes["heads"]:
        sizes["heads/key_heads"] = sizes["heads"] / sizes["key_heads"]
    factors = {"2": 2.0, "0.5": 0.5, "ln 2": math.log(2), "1/ln 2": 1 / math.log(2)}
    for name, n in sizes.items():
        wrapped = f"({name})" if " " in name or "/" in name else name
        factors |= {name: n, f"1/{wrapped}": 1 / n}
        if name in ("C", "d", f"{first}.shape[{len(shape) - 1}]"):
            factors |= {f"sqrt({name})": n**0.5, f"1/sqrt({name})": n**-0.5}
    count = math.prod(shape) // shape[1] if len(shape) > 1 else 1
    if case.module.buffer_shapes() and count > 1:
        factors |= {"n/(n-1), n = B H W": count / (count - 1), "(n-1)/n, n = B H W": (count - 1) / count}
    return {name: factor for name, factor in factors.items() if factor != 1}


def scaled(evidence: Evidence, factor: float) -> Candidate:
    """Claim that a result is the exact one times a factor."""
    return lambda i: (factor * evidence.expected[i], abs(factor) * evidence.budget[i])


def read_factor(evidence: Evidence, known: dict[str, float]) -> Iterator[str]:
    """Say by what the exact result is multiplied."""
    factor = fit_factor(evidence, evidence.sample)
    if factor is None or not (evidence.units(scaled(evidence, factor), evidence.sample) <= evidence.limits[0]).all():
        return
    factor = fit_factor(evidence, evidence.judged)
    if factor is None:
        return
    if abs(factor + 1) < 0.05 and evidence.supports(scaled(evidence, -1.0)):
        yield "expected with the other sign"
        return
    close = {name: value for name, value in known.items() if abs(value - factor) <= 0.02 * abs(factor)}
    close = {name: value for name, value in close.items() if evidence.supports(scaled(evidence, value))}
    if close:
        nearest = min(close.values(), key=lambda value: abs(value - factor))
        names = list(dict.fromkeys(name for name in close if name != f"{nearest:.4g}"))
        told = f" ({list_words(names, 'or')})" if 0 < len(names) <= MAX_NAMES else ""
        yield f"{nearest:.4g} times expected{told}"
    else:
        shortest = find_shortest(factor, lambda value: evidence.supports(scaled(evidence, value), fitted=1))
        if shortest or evidence.supports(scaled(evidence, factor), fitted=1):  # of 1/189 all digits are told by float32
            yield f"{shortest or f'{factor:.{MAX_DIGITS}g}'} times expected"


def find_shortest(number: float, supported: Callable[[float], bool]) -> str:
    """Write a fitted number with as few digits as still fit; nothing if none do."""
    texts = [f"{number:.{digits}g}" for digits in range(1, MAX_DIGITS + 1)]
    return next((text for text in texts if supported(float(text))), "")


def fit_factor(evidence: Evidence, indices: np.ndarray) -> float | None:
    """Fit a factor by least squares, in units of budget; none where nothing is to be fitted."""
    expected, got = evidence.expected[indices], evidence.got[indices]
    with np.errstate(all="ignore"):
        weights = expected / np.square(evidence.budget[indices])
        factor = np.sum(weights * got) / np.sum(weights * expected)
    return float(factor) if np.isfinite(factor) and factor else None


def read_offset(evidence: Evidence) -> Iterator[str]:
    """Say by what constant a result is off."""
    for indices in (evidence.sample, evidence.judged):
        weights = np.square(1 / evidence.rounded(evidence.got[indices], evidence.budget[indices]))
        offset = float(np.sum(weights * (evidence.got[indices] - evidence.expected[indices])) / np.sum(weights))
        if not np.isfinite(offset) or not evidence.supports(displaced(evidence, offset), fitted=1):
            return
    shortest = find_shortest(abs(offset), lambda v: evidence.supports(displaced(evidence, np.copysign(v, offset))))
    yield f"expected {'plus' if offset > 0 else 'minus'} {shortest or f'{abs(offset):.4g}'} everywhere"


def displaced(evidence: Evidence, offset: float) -> Candidate:
    """Claim that a result is the exact one plus a number."""
    return lambda i: (evidence.expected[i] + offset, evidence.budget[i])


def read_constant(evidence: Evidence) -> Iterator[str]:
    """Say that a result is the same everywhere, where it should not be."""
    if evidence.sample.size < 2:
        return
    first, exact = evidence.got[evidence.sample[0]], evidence.expected[evidence.sample[0]]
    for indices in (evidence.sample, evidence.judged):
        got, expected = evidence.got[indices], evidence.expected[indices]
        if not ((got == first) | np.isnan(got) & np.isnan(first)).all() or not (
            first == 0 or (expected != exact).any()
        ):
            return
    yield f"{'NaN' if np.isnan(first) else f'{first + 0.0:.4g}'} everywhere"
