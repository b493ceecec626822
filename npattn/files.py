"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["whole_file"]


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Hand out a temporary path beside `path`, and move it there once the block has ended well.

    A reader sees the old file or the new one, never half of one; if the block raises, nothing has changed.

    Parameters
    ----------
    path : path
    force : bool, default False
        Whether a file that is already there may be replaced.

    Raises
    ------
    FileExistsError
        If there is one and `force` is False.
    IsADirectoryError
        If `path` is a folder.
    OSError
        If the folder is missing or can't be written to.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(os.path.join(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_text("all of it")
    ...     os.listdir(folder)
    ['a.txt']
    """
    path = Path(path)
    check_free(path, force)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".npattn-", suffix=path.suffix)
    except OSError as error:
        error.filename = str(path)  # the temporary name would tell the caller nothing
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~current_umask())
        check_free(path, force)  # another may have written it meanwhile
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(path: Path, force: bool) -> None:
    """Refuse a folder; refuse a file, or a link to nowhere, that would be replaced without being asked to."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    if (path.exists() or path.is_symlink()) and not force:
        raise FileExistsError(f"{path} exists already; only --force (in Python force=True) replaces it")


def current_umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
