"""Every step of a pass by name: its value, its line of code, its equation.

`trace` runs a system from its own text, in which every line with an equation number reports what it assigns
(`rewriting`); where it is, in systems that are made of systems, is a `Place`.
"""

from npattn.tracing.steps import Step
from npattn.tracing.traces import Trace, trace

__all__ = ["Step", "Trace", "trace"]
