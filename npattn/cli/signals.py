"""How a signal ends the command: at once, and leaving nothing half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from npattn.cli.streams import progress
from npattn.files import discard_unfinished

__all__ = ["signals_as_exits"]


@contextlib.contextmanager
def signals_as_exits() -> Iterator[None]:
    """Let SIGTERM and SIGHUP remove half-written files before they end the process, with status 128 and their number.

    They end it at once: an exception, as Ctrl-C raises it, waits for the threads that compute, which takes minutes.
    """

    def exit_at_once(number: int, _: Any) -> NoReturn:
        discard_unfinished()
        with contextlib.suppress(RuntimeError):  # stderr is being written to just now
            progress("")
        os._exit(128 + number)

    numbers = []
    if threading.current_thread() is threading.main_thread():  # the only one that may
        found = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
        # One that is ignored, as nohup does, stays so; one that the caller handles is the caller's.
        numbers = [number for number in found if number and signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, exit_at_once)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
