"""Interrupts that meet what they are meant for."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import FrameType

CALLED_BACK = "weakref", "_weakrefset"
"""Modules whose collections drop what has gone when they are called back, where nothing is raised to."""


def interrupt_within(function: Callable[..., object]) -> Callable[[int, FrameType | None], None]:
    """Make a signal's handler that raises KeyboardInterrupt where `function` is under way, and nowhere else.

    A signal goes to any thread of a process, which may have to wait for a core before it takes it: the main thread may
    have gone on meanwhile, and have stopped the timer, to see what the interrupts have left. And what is raised while
    garbage is collected goes no further than what watches that, as Hypothesis does, or than a weak dictionary, which
    drops what has gone.
    """

    def interrupt(_: int, frame: FrameType | None) -> None:
        watching = [getattr(callback, "__code__", None) for callback in gc.callbacks]
        while frame is not None and frame.f_code not in watching and frame.f_globals.get("__name__") not in CALLED_BACK:
            if frame.f_code is function.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    return interrupt
