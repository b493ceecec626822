"""Where wires end: values, and what comes back through them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from npattn.tracing.steps import Step
from npattn.tracing.text import to_numbers

__all__ = ["Port", "with_gradients"]


@dataclass(frozen=True)
class Port:
    """Where a wire ends.

    Attributes
    ----------
    name : str
    value : array, optional
    gradient_name : str
    gradient : array, optional
        What comes back.
    source : int, optional
        The node that the wire is from; -1 of a parameter, None of an input.
    """

    name: str
    value: Any = None
    gradient_name: str = ""
    gradient: Any = None
    source: int | None = None


def with_gradients(ports: list[Port], backward: list[Step], known: set[str]) -> list[Port]:
    """Give each wire what comes back through it: the gradient of its name, else one of its shape, else of its size.

    The gradient of another value that is `known` by name is none of its own.
    """
    left = [step for step in backward if not step.name.endswith(".grad")]
    claimed: dict[int, Step] = {}
    for fits in (of_name, of_start, of_shape, of_size):
        if fits is of_shape:
            left = [step for step in left if step.name.removeprefix("d") not in known]
        for i, port in enumerate(ports):
            found = next((step for step in left if i not in claimed and fits(port, step)), None)
            if found is not None:
                claimed[i] = found
                left.remove(found)
    return [
        replace(port, gradient_name=claimed[i].name, gradient=claimed[i].value) if i in claimed else port
        for i, port in enumerate(ports)
    ]


def of_name(port: Port, step: Step) -> bool:
    """Whether a step is named as the gradient of a wire."""
    return step.name == f"d{port.name}"


def of_start(port: Port, step: Step) -> bool:
    """Whether a step is named as a part of the gradient of a wire: dx_skip."""
    return step.name.startswith(f"d{port.name}_")


def of_shape(port: Port, step: Step) -> bool:
    """Whether a step has the shape of a wire's value."""
    return port.value is not None and to_numbers(step.value).shape == to_numbers(port.value).shape


def of_size(port: Port, step: Step) -> bool:
    """Whether a step has as many numbers as a wire's value."""
    return port.value is not None and to_numbers(step.value).size == to_numbers(port.value).size > 1
