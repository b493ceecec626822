"""A folder of .npy files read like an archive of them, of which nothing is trusted either."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from npattn.files import describe_kind
from npattn.oracle.golden_files.archives import Members, quote, refusal

__all__ = ["Folder", "open_folder"]


@dataclass(frozen=True)
class Folder(Members):
    """A folder whose .npy files are the members."""

    def read(self, name: str, most: int | None = None) -> bytes:
        """Read a file, or its first bytes."""
        size = self.sizes[name] if most is None else min(most, self.sizes[name])
        with (Path(self.path) / name).open("rb") as file:
            data = file.read(size)
        if len(data) != size:
            raise self.error(f"{quote(name)} is cut off or altered")
        return data


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """List a folder's files; those whose names begin with a dot are none of ours.

    Raises
    ------
    ValueError
        If it holds anything but regular files. (It is an `npattn.oracle.ArchiveError`.)
    OSError
        If it can't be read.
    """
    sizes = {}
    for member in sorted(Path(path).iterdir()):
        if member.name.startswith("."):
            continue
        status = member.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = describe_kind(status.st_mode)
            raise refusal(os.fspath(path), f"holds {quote(member.name)}, which is {kind}; expected .npy files alone")
        sizes[member.name] = status.st_size
    return Folder(os.fspath(path), sizes)
