"""Interrupts that meet what they are meant for."""

from __future__ import annotations

import contextlib
import gc
import signal
from collections.abc import Callable, Iterator
from types import FrameType

CALLED_BACK = "weakref", "_weakrefset"
"""Modules whose collections drop what has gone when they are called back, where nothing is raised to."""


@contextlib.contextmanager
def alarms_within(function: Callable[..., object]) -> Iterator[None]:
    """Let alarms interrupt a function; the last of them ends with the block.

    No garbage is collected meanwhile: what is raised there goes no further than what watches that, as Hypothesis does,
    or than what some other test has left to be finalised.
    """
    handler = signal.signal(signal.SIGALRM, interrupt_within(function))
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        gc.enable()


def interrupt_within(function: Callable[..., object]) -> Callable[[int, FrameType | None], None]:
    """Make a signal's handler that raises KeyboardInterrupt where `function` is under way, and nowhere else.

    A signal goes to any thread of a process, which may have to wait for a core before it takes it: the main thread may
    have gone on meanwhile, and have stopped the timer, to see what the interrupts have left.
    """

    def interrupt(_: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_globals.get("__name__") not in CALLED_BACK:
            if frame.f_code is function.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    return interrupt
