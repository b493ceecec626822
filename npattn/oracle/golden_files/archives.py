"""Reading .npz archives of which nothing is trusted: neither names nor sizes, headers nor bytes."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npattn.files import check_path, describe_kind, one_line
from npattn.wording import brief

__all__ = ["Archive", "ArchiveError", "Layout", "Members", "decode", "open_archive", "quote", "refusal", "repeated"]

END, END_SIZE = b"PK\x05\x06", 22
"""What an archive's last record begins with, and its bytes, behind which a comment may stand."""
MAX_NPY_HEADER_SIZE = 4096
"""Bytes of an .npy file before its numbers; a plain array's take 128."""
MAX_EXPANSION = 1100
"""How many bytes deflate can make of one (1032), and a little more."""
MAX_SIZE_BITS = 48
"""No array claims more than 2 ** 48 elements."""
MAX_REASON_LENGTH, MAX_NAME_LENGTH = 280, 100
"""Characters of a message after the path, and of a name in it."""


class ArchiveError(ValueError):
    """A file is not what it should be; the message is one line that names the file and says why.

    Whatever the file holds, the line is printable and has fewer than 300 characters after the file's path.
    """


class Layout(NamedTuple):
    """What the header of an .npy member says.

    Attributes
    ----------
    dtype : str
        As in the header: ``"<f4"``.
    shape : tuple of int
    fortran : bool
        Whether the first index runs fastest.
    start : int
        Bytes before the first number.
    """

    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Members(ABC):
    """Arrays by name, with what is read of each: those of an archive, or a folder.

    Attributes
    ----------
    path : str
    sizes : dict of int
        Bytes of each member, by name, as the directory claims them.
    """

    path: str
    sizes: dict[str, int]

    def error(self, reason: str) -> ArchiveError:
        """Return an exception that names the file."""
        return refusal(self.path, reason)

    @abstractmethod
    def read(self, name: str, most: int | None = None) -> bytes:
        """Read a member, or its first bytes: no more than `most`, and no more than the directory claims.

        Raises
        ------
        ArchiveError
            If it is damaged.
        """

    def read_layout(self, name: str) -> Layout:
        """Read the header of an .npy member and hold it against the member's size.

        Raises
        ------
        ArchiveError
            If it is no such header, or says another size than the directory.
        """
        start = self.read(name, MAX_NPY_HEADER_SIZE)
        if start[:6] != b"\x93NUMPY":
            raise self.error(f"{quote(name)} is no .npy array")
        width = {b"\x01\x00": 2, b"\x02\x00": 4}.get(start[6:8])
        if width is None:
            raise self.error(f"{quote(name)} has an unknown version of .npy; expected 1.0 or 2.0")
        end = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
        found = parse_header(start[8 + width : end]) if end <= len(start) else None
        if found is None:
            raise self.error(f"{quote(name)} has a malformed .npy header")
        layout = Layout(*found, end)
        if "O" in layout.dtype:
            raise self.error(f"{quote(name)} holds pickled objects; expected floating-point numbers")
        if re.fullmatch(r"[<>|=]?[aSUT]\d*", layout.dtype):
            raise self.error(
                f"{quote(name)} holds text, of dtype {brief(layout.dtype)}; expected floating-point numbers"
            )
        if math.prod(max(length, 1) for length in layout.shape) >= 2**MAX_SIZE_BITS or len(layout.shape) > 32:
            raise self.error(f"{quote(name)} claims a shape that no array can have")
        item = re.fullmatch(r"[<>|=]?[a-zA-Z](\d{1,4})", layout.dtype)
        if item is None:
            raise self.error(f"{quote(name)} has dtype {brief(layout.dtype)}; expected floating-point numbers")
        length = end + layout.size * int(item[1])
        if length != self.sizes[name]:
            raise self.error(
                f"{quote(name)} of shape {layout.shape} would take {length} bytes; it has {self.sizes[name]}: "
                "cut off or altered"
            )
        return layout

    def read_numbers(self, name: str, layout: Layout) -> np.ndarray:
        """Read an .npy member whose header has been read; return an array of the machine's own byte order."""
        return decode(self.read(name), layout)


@dataclass(frozen=True)
class Archive(Members):
    """An open .npz file.

    Attributes
    ----------
    path : str
    sizes : dict of int
        Uncompressed bytes of each member, by name, as the directory claims them. Together they can be no more than what
        the file on the disk could hold.
    zip : zipfile.ZipFile
    """

    zip: zipfile.ZipFile

    def read(self, name: str, most: int | None = None) -> bytes:
        """Read a member, or its first bytes: no more than `most`, and no more than the directory claims.

        Raises
        ------
        ArchiveError
            If it is damaged.
        """
        size = self.sizes[name] if most is None else min(most, self.sizes[name])
        with told_as_damage(self.path), self.zip.open(name) as member:
            data = member.read(size)  # which compares the zip's own checksum once all is read
        if len(data) != size:
            raise self.error(f"{quote(name)} is cut off or altered")
        return data


def quote(name: str) -> str:
    """Write a member's name on one line, cut to what a message can hold."""
    return one_line(repr(name), MAX_NAME_LENGTH)


def refusal(path: str, reason: str) -> ArchiveError:
    """Return an exception that names a file and says what is wrong with it."""
    return ArchiveError(f"{one_line(path)}: {one_line(reason, MAX_REASON_LENGTH)}")


def repeated(names: Iterable[str]) -> list[str]:
    """List the names that stand there more than once.

    Examples
    --------
    >>> repeated(["x", "y", "x"])
    ['x']
    """
    return [name for name, times in Counter(names).items() if times > 1]


def decode(data: bytes, layout: Layout) -> np.ndarray:
    """Return the numbers of an .npy file's bytes, in the machine's own byte order."""
    dtype = np.dtype(layout.dtype)
    values = np.frombuffer(data, dtype, offset=layout.start)
    values = values.reshape(layout.shape, order="F" if layout.fortran else "C")
    return values.astype(dtype.newbyteorder("="), order="C")


def parse_header(data: bytes) -> tuple[str, tuple[int, ...], bool] | None:
    """Read dtype, shape and order from the text of an .npy header; None if it is not the text of a plain array's.

    The text is a Python literal. It is turned into JSON rather than evaluated, so that nothing else is understood.
    """
    text = data.decode("latin1")
    for python, other in (("'", '"'), ("(", "["), (")", "]"), ("True", "true"), ("False", "false")):
        text = text.replace(python, other)
    try:
        found = json.loads(re.sub(r",\s*([\]}])", r"\1", text))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"descr", "fortran_order", "shape"}:
        return None
    dtype, fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    if not (isinstance(fortran, bool) and isinstance(shape, list)):
        return None
    if not all(type(length) is int and 0 <= length < 2**MAX_SIZE_BITS for length in shape):
        return None
    return str(dtype), tuple(shape), fortran


@contextlib.contextmanager
def open_archive(
    path: str | os.PathLike[str], expected: str, *, holds: str = "", deflated: bool = False
) -> Iterator[Archive]:
    """Open an .npz file and look through its directory; nothing else is read yet.

    Parameters
    ----------
    path : path
    expected : str
        What the file should be, for messages: "a golden file".
    holds : str, optional
        A member that it must have.
    deflated : bool, default False
        Whether members may be compressed.

    Raises
    ------
    ArchiveError
        If it is no .npz file, is damaged, or holds what no reader needs: encrypted, repeated or oddly compressed
        members, or sizes that the file can't hold.
    OSError
        If it can't be read.
    """
    name = os.fspath(path)
    mode = check_path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a FIFO would be waited for; of a folder the system complains
        raise refusal(name, f"{describe_kind(mode)}, no file on a disk; expected {expected}")
    with Path(path).open("rb") as file:
        start = file.read(6)
        if start[:4] not in (b"PK\x03\x04", END):  # a member, or the end of an empty archive
            kind = "a single array (.npy)" if start == b"\x93NUMPY" else "no .npz archive"
            raise refusal(name, f"{kind if start else 'an empty file'}; expected {expected}")
        length = os.fstat(file.fileno()).st_size
        with told_as_damage(name):
            archive = zipfile.ZipFile(file)
        file.seek(-END_SIZE - len(archive.comment), os.SEEK_END)
        if file.read(len(END)) != END:  # zipfile takes the last that it finds, wherever it stands
            raise refusal(name, "holds bytes behind its end: cut off or altered")
        members = archive.infolist()
        opened = Archive(name, {member.filename: member.file_size for member in members}, archive)
        twice = repeated(member.filename for member in members)
        if twice:
            raise opened.error(f"holds {quote(twice[0])} twice")
        if holds and holds not in opened.sizes:
            raise opened.error(f"holds no {holds}; expected {expected}")
        expansion = {zipfile.ZIP_STORED: 1} | ({zipfile.ZIP_DEFLATED: MAX_EXPANSION} if deflated else {})
        for member in members:
            if member.flag_bits & 1:
                raise opened.error(f"{quote(member.filename)} is encrypted")
            if member.compress_type not in expansion:
                known = "stored or deflated" if deflated else "stored"
                raise opened.error(
                    f"{quote(member.filename)} is compressed by method {member.compress_type}; expected {known} members"
                )
            if member.file_size > member.compress_size * expansion[member.compress_type]:
                raise opened.error(f"{quote(member.filename)} claims more bytes than it can hold: cut off or altered")
        if sum(member.compress_size for member in members) > length:
            raise opened.error("its members claim more bytes than the file has: cut off or altered")
        yield opened


@contextlib.contextmanager
def told_as_damage(path: str) -> Iterator[None]:
    """Make one line of what `zipfile` raises on a damaged file, which is of many kinds."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError) as error:
        raise refusal(path, f"cut off or altered ({error})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the file's beginning, where a false directory points
            raise
        raise refusal(path, "cut off or altered (its directory points outside of it)") from None
