"""Who hears of what a pass computes."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from npattn.tracing.copies import Copies
from npattn.tracing.steps import Step

__all__ = ["RECORDING", "Recording"]


@dataclass(frozen=True)
class Recording:
    """The steps of one pass, as they come.

    Attributes
    ----------
    owner : object
        Whose pass it is.
    backward : bool
        Whether it is on its way back.
    copies : Copies
        The steps' values.
    steps : list of Step
    scopes : dict
        By their parts, the functions whose lines are steps, each with its arguments.
    """

    owner: object
    backward: bool
    copies: Copies
    steps: list[Step] = field(default_factory=list)
    scopes: dict[tuple[str, ...], tuple[FunctionType, Mapping[str, Any]]] = field(default_factory=dict)


RECORDING: ContextVar[Recording | None] = ContextVar("npattn.tracing", default=None)
"""What is being recorded in this context."""
