"""What is written to stdout and stderr, and what happens where one of them can't be written to."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from npattn.files import one_line

__all__ = [
    "bar",
    "complain",
    "describe_error",
    "drop_unwritable",
    "progress",
    "say",
    "stderr_or_devnull",
    "terminal_width",
]

BAR_WIDTH = 20
DEFAULT_WIDTH = 80


def progress(text: str) -> None:
    """Say on a terminal what is being done, on one line that is wiped by the next; elsewhere say nothing."""
    if on_terminal():
        say(f"\r\033[K{text}")


def on_terminal() -> bool:
    """Tell whether stderr is a terminal."""
    return bool(sys.stderr and not sys.stderr.closed and sys.stderr.isatty())


def terminal_width() -> int:
    """Return the columns of the terminal that stderr is, whatever stdout is; 80 where nobody knows."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or DEFAULT_WIDTH
    return DEFAULT_WIDTH


def complain(line: str) -> None:
    """Write a line to stderr; on a terminal that is narrower it is broken between words."""
    lines = [line]
    if on_terminal():
        lines = textwrap.wrap(
            line, terminal_width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    say("".join(f"{one}\n" for one in lines))


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
