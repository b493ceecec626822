"""How far a golden case is: the passes that it takes, counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from npattn.wording import brief, describe_type

__all__ = ["Passes", "check_progress"]


class Passes:
    """Count the passes of a case that have ended, and tell of each.

    Parameters
    ----------
    tell : callable, optional
        Called as ``tell(done, expected)``.

    Examples
    --------
    >>> passes = Passes(print)
    >>> passes.expect(2)
    >>> passes.end()
    1 2
    """

    def __init__(self, tell: Callable[[int, int], object] | None = None) -> None:
        self.tell = tell
        self.done = self.expected = 0
        self.lock = threading.Lock()

    def expect(self, count: int) -> None:
        """Count passes that are to come."""
        self.expected += count

    def drop(self) -> None:
        """Expect no more of those that have not ended."""
        self.expected = self.done

    def end(self) -> None:
        """Count a pass that has ended, in whichever thread."""
        with self.lock:
            self.done += 1
            if self.tell is not None:
                self.tell(self.done, self.expected)


def check_progress(call: str, progress: Any) -> None:
    """Refuse what can't be called.

    Raises
    ------
    TypeError
    """
    if progress is not None and not callable(progress):
        raise TypeError(
            f"{call}: progress={brief(progress)} is {describe_type(progress)}; expected a function of two numbers, the "
            "passes that have ended and all, such as print"
        )
