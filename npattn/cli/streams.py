"""What is written to stdout and stderr, and what happens where one of them can't be written to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from npattn.files import one_line

__all__ = ["bar", "describe_error", "drop_unwritable", "progress", "say", "stderr_or_devnull"]

BAR_WIDTH = 20


def progress(text: str) -> None:
    """Say on a terminal what is being done, on one line that is wiped by the next; elsewhere say nothing."""
    if sys.stderr and not sys.stderr.closed and sys.stderr.isatty():
        say(f"\r\033[K{text}")


def bar(done: int, total: int) -> str:
    """Draw how far something is.

    Examples
    --------
    >>> bar(2, 8)
    '[#####...............] 2 of 8'
    """
    filled = BAR_WIDTH * min(done, total) // max(total, 1)
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done} of {total}"


def say(text: str) -> None:
    """Write to stderr. What can't be written there is dropped: it ends no run and changes no exit status."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop_buffer(sys.stderr)


def describe_error(error: Exception) -> str:
    """Return an exception's message on one line.

    Examples
    --------
    >>> describe_error(FileNotFoundError(2, "No such file or directory", "a.npz"))
    'a.npz: No such file or directory'
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(text)


def drop_unwritable() -> None:
    """If stdout can't be written to, drop what waits in its buffer, of which Python would complain again at exit."""
    try:
        print(end="", flush=True)
    except (OSError, ValueError):
        drop_buffer(sys.stdout)


def drop_buffer(stream: TextIO) -> None:
    """Let what a stream still holds, and all that follows, go nowhere."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as devnull:
        os.dup2(devnull.fileno(), stream.fileno())


@contextlib.contextmanager
def stderr_or_devnull() -> Iterator[None]:
    """Where stderr is closed, write to the null device.

    What is meant for it would otherwise go to stdout, and what C libraries write there to the next file that is opened.
    """
    if sys.stderr is not None:
        yield
        return
    with Path(os.devnull).open("w") as devnull, contextlib.redirect_stderr(devnull):
        yield
