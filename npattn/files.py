"""Files that others look at too: written whole or not at all, never in the place of a device, named on one line."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from npattn.wording import brief, describe_type

__all__ = ["check_path", "describe_kind", "discard_unfinished", "one_line", "whole_file"]

LONGEST_SUFFIX = 16
"""Characters of a suffix that the temporary name keeps; a longer one names no format, and may leave no room."""
FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
UNFINISHED: set[Path] = set()
"""Temporary files of blocks that are running."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Hand out a temporary path beside `path`, and move it there once the block has ended well.

    A reader sees the old file or the new one, never half of one; if the block raises anything, KeyboardInterrupt and
    SystemExit included, nothing has changed and nothing is left. (A signal that ends the process without an exception,
    as SIGTERM does by default, leaves the temporary file unless its handler calls `discard_unfinished`.) Only a regular
    file is ever replaced. A symbolic link is followed: the file that it leads to is written, and the link stays.

    Parameters
    ----------
    path : path
    force : bool, default False
        Whether a regular file that is already there may be replaced.

    Raises
    ------
    FileExistsError
        If there is a file and `force` is False; if a FIFO, a socket, a device or a link to nothing is there, or a link
        that leads elsewhere than when the block began.
    IsADirectoryError
        If `path` is a folder, or written as one.
    OSError
        If the path is none, or the folder is missing or can't be written to.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(os.path.join(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_text("all of it")
    ...     os.listdir(folder)
    ['a.txt']
    """
    given = check_path(path)
    _, name = os.path.split(os.fspath(path))  # Path drops a slash at the end
    if name in ("", os.curdir, os.pardir):
        verb = "is" if given.is_dir() else "names"
        raise IsADirectoryError(f"{os.fspath(path)} {verb} a folder; expected the name of a file")
    target = find_target(given, force)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{given}: there is no folder {given.parent}")
    # The name is chosen before the file is made, so that an interruption in between finds what to remove.
    suffix = given.suffix if len(given.suffix) <= LONGEST_SUFFIX else ""
    temporary = target.with_name(f".npattn-{secrets.token_hex(8)}{suffix}")
    UNFINISHED.add(temporary)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        if find_target(given, force) != target:  # another may have put something there meanwhile
            raise FileExistsError(f"{given} leads to another file than before; nothing is written")
        temporary.replace(target)
    except OSError as error:
        if error.strerror and error.filename in (None, temporary, str(temporary)):
            error.filename = str(given)  # a full disk names no file, and the temporary name would tell nothing
        raise
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk, whose own complaint is under way
            temporary.unlink(missing_ok=True)
        UNFINISHED.discard(temporary)


def discard_unfinished() -> None:
    """Remove the temporary files of blocks that are running, for a signal's handler that ends the process."""
    for temporary in list(UNFINISHED):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def find_target(path: Path, force: bool) -> Path:
    """Follow links to the file that is to be written; refuse what is there, unless it may be replaced."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise FileExistsError(f"{path} is a symbolic link to nothing; expected the name of a file") from None
    else:
        if not stat.S_ISREG(mode):
            refused = IsADirectoryError if stat.S_ISDIR(mode) else FileExistsError
            link = "a symbolic link to " if path.is_symlink() else ""
            raise refused(f"{path} is {link}{describe_kind(mode)}; expected the name of a file, new or regular")
        if not force:
            raise FileExistsError(f"{path} exists already; only --force (in Python force=True) replaces it")
    return Path(os.path.realpath(path))


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as a Path; refuse what names no file on any system.

    Raises
    ------
    TypeError
        If it is none, of text.
    FileNotFoundError
        If it is empty.
    OSError
        If it holds NUL, or characters that no file name can have.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path={brief(path)} is {describe_type(path)}; expected a str, or a pathlib.Path")
    found, text = Path(path), os.fspath(path)
    if not text:
        raise FileNotFoundError(errno.ENOENT, "an empty path; expected the name of a file")
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise OSError(errno.EINVAL, "no path holds NUL or half a character; expected the name of a file", text)
    return found


def describe_kind(mode: int) -> str:
    """Name what is no regular file, with its article, by its mode."""
    return FILE_KINDS.get(stat.S_IFMT(mode), "no regular file")


def one_line(text: str, longest: int | None = None) -> str:
    r"""Write text on one line of printable characters; of a text above `longest` characters leave out the middle.

    Examples
    --------
    >>> print(one_line("red: \x1b[31m\nnext"))
    red: \x1b[31m next
    >>> one_line("a" * 50 + "z" * 50, 13)
    'aaaaaa...zzzz'
    """
    text = " ".join(filter(None, (line.strip() for line in text.splitlines())))
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if longest is None or len(text) <= longest:
        return text
    kept = longest - 3
    return f"{text[: kept - 2 * kept // 5]}...{text[len(text) - 2 * kept // 5 :]}"
