"""The report of a gradient check."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["GradcheckReport"]


@dataclass(frozen=True)
class GradcheckReport:
    """What a gradient check found.

    Attributes
    ----------
    errors : dict of float
        The worst relative error of each input and parameter that rounding does not explain; NaN or infinite where a
        gradient is.
    method : str
        ``"jacobian"`` or ``"adjoint"``.
    tolerance : float
        The error up to which a gradient is right.
    estimator : str, optional
        Where the module estimates its gradient, the estimator, against whose own definition the gradient was checked.
    zeros : tuple of str
        Inputs and parameters whose gradient was exactly 0, by backward and by complex step, wherever it was looked at.
    allow_zero : bool or frozenset of str
        Which of them may be.
    vanishing : tuple of str
        Those whose gradient is 0 but for rounding, as a bias's is before batch norm: compared with 0, at the size of
        the largest gradient.
    rounding : dict of float
        For those that differ by more than the tolerance, and no more than rounding explains: by how much, relatively.
    faults : tuple of str
        What else a forward or backward pass does that it must not.
    """

    errors: dict[str, float]
    method: str
    tolerance: float
    estimator: str | None = None
    zeros: tuple[str, ...] = ()
    allow_zero: bool | frozenset[str] = False
    vanishing: tuple[str, ...] = ()
    rounding: dict[str, float] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def worst(self) -> str:
        """Name of the input or parameter with the largest error; NaN counts as the largest."""
        return max(self.errors, key=lambda name: math.inf if math.isnan(self.errors[name]) else self.errors[name])

    @property
    def error(self) -> float:
        """The largest error."""
        return self.errors[self.worst]

    @property
    def untested(self) -> tuple[str, ...]:
        """Those of `zeros` that are not allowed."""
        if isinstance(self.allow_zero, bool):
            return () if self.allow_zero else self.zeros
        return tuple(name for name in self.zeros if name not in self.allow_zero)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance, every gradient was tested, and there is no fault."""
        right = all(error <= self.tolerance for error in self.errors.values())
        return right and not self.untested and not self.faults

    def __str__(self) -> str:
        width = max(map(len, self.errors))
        against = f" of the {self.estimator} estimator" if self.estimator else ""
        lines = [f"{self.method}{against}, relative errors, tolerance {self.tolerance:.0e}"]
        lines += [f"{name:<{width}}  {self.verdict(name)}" for name in self.errors]
        return "\n".join([*lines, *(f"FAULT: {fault}" for fault in self.faults)])

    def verdict(self, name: str) -> str:
        """Say how a gradient was found."""
        error = self.errors[name]
        if name in self.untested:
            return f"exactly 0: NOT TESTED; try generic_values, or allow_zero=[{name!r}]"
        if name in self.zeros:
            return "exactly 0: allowed"
        if not error <= self.tolerance:
            return f"{error:8.1e}  WRONG"
        if name in self.vanishing:
            return f"{error:8.1e}  ok, 0 but for rounding: relative to the largest gradient"
        if name in self.rounding:
            return f"{error:8.1e}  ok, beside rounding of up to {self.rounding[name]:.1e}"
        return f"{error:8.1e}  ok"
