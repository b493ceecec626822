"""Interrupts that meet what they are meant for."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any

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


ENTERING = "contextlib.py", "npattn/ops/context.py", "npattn/ops/primitive.py"
"""Files of what enters blocks and leaves them."""


def interrupted_calls(function: Callable[[], object], events: Collection[str], step: int = 1) -> Iterator[None]:
    """Call a function over and over until nothing interrupts it; go on after each interrupt.

    Each comes some steps later than the one before, as a function begins, or a line of it, which enters blocks or
    leaves them.

    Parameters
    ----------
    function : callable
    events : collection of {"call", "line"}
    step : int, default 1
        How many of the events later.
    """
    return (None for _ in interruptions(function, lambda frame, event: is_entering(frame) and event in events, step))


def is_entering(frame: FrameType) -> bool:
    """Tell whether a function enters blocks, or leaves them."""
    return frame.f_code.co_filename.endswith(ENTERING)


def interruptions(
    function: Callable[[], object], meets: Callable[[FrameType, str], bool], step: int = 1
) -> Iterator[KeyboardInterrupt]:
    """Call a function over and over until nothing interrupts it; yield every interrupt, which is kept meanwhile.

    Each comes `step` events later than the one before, of the calls and lines of Python's that it is to meet.
    """
    left = 0

    def interrupt(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        left -= meets(frame, event)
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt if is_entering(frame) else None

    moment, before = 0, sys.gettrace()
    while True:
        left = moment
        sys.settrace(interrupt)
        try:
            function()
        except KeyboardInterrupt as error:
            sys.settrace(before)
            yield error
        else:
            return
        finally:
            sys.settrace(before)
        moment += step
