import contextlib
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.oracle import ArchiveError, load
from npattn.oracle.golden_files import read_results
from npattn.oracle.golden_files.header import HEADER
from tests.memory import peak_memory
from tests.oracle.golden_files.packing import (
    TEXT,
    assert_brief,
    assert_refused,
    npy,
    npy_claiming,
    pack,
    replaced,
    resealed,
    results_file,
    unpack,
)


@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(case, good, scratch, share):
    assert_refused(scratch, good[: int(share * len(good))])
    results = results_file(case, zipfile.ZIP_DEFLATED)
    assert_refused(scratch, results[: int(share * len(results))], read=lambda path: read_results(path, case))


def test_files_that_cannot_be_read_raise_what_the_system_says(case, tmp_path):
    for read in (load, lambda path: read_results(path, case)):
        for missing in (tmp_path / "missing.npz", ""):
            with pytest.raises(FileNotFoundError):
                read(missing)
        for impossible in ("a\0b", "half\ud800"):
            with pytest.raises(OSError, match="no path holds NUL"):
                read(impossible)
    with pytest.raises((IsADirectoryError, PermissionError)):
        load(tmp_path)
    with pytest.raises(ArchiveError, match="holds no results"):  # which may lie in a folder
        read_results(tmp_path, case)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX's pipes")
def test_streams_are_refused(case, good):
    reader, writer = os.pipe()
    os.write(writer, good[:100])
    os.close(writer)
    with pytest.raises(ArchiveError, match="a FIFO, no file on a disk; expected a golden file"):
        load(f"/dev/fd/{reader}")
    os.close(reader)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX's pipes")
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(case, tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for read in (load, lambda path: read_results(path, case)):
        with pytest.raises(ArchiveError, match="a FIFO, no file on a disk; expected a"):
            read(tmp_path / "pipe.npz")


def test_a_path_that_is_no_text_for_a_terminal_is_told_on_one_line(tmp_path):
    path = tmp_path / "red \x1b[31m\nnext.npz"
    path.write_bytes(b"text")
    with pytest.raises(ArchiveError) as caught:
        load(path)
    assert str(caught.value).isprintable()
    assert r"red \x1b[31m next.npz: no .npz archive" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["an empty file; expected a golden file"]),
        (b"some text\n", ["no .npz archive; expected a golden file"]),
        (b"\0" * 1000, ["no .npz archive"]),
        (npy(np.zeros(3)), ["a single array (.npy); expected a golden file"]),
        (pack({}), ["holds no header.json; expected a golden file"]),
        (pack({"x.npy": npy(np.zeros(3))}), ["holds no header.json"]),
        (pack({"x.npy": npy(np.zeros(3))}, zipfile.ZIP_DEFLATED), ["holds no header.json"]),
        (pack({HEADER: "{}"}), ["header.json: its format is not 'npattn golden case'"]),
        (pack({HEADER: "[1, 2]"}), ["header.json: its format is not 'npattn golden case'"]),
        (pack({HEADER: '{"format": "PNG", "version": 1}'}), ["its format is not"]),
    ],
)
def test_foreign_files_are_refused_for_what_they_are(scratch, data, words):
    assert_refused(scratch, data, *words)


@pytest.mark.parametrize("more", [b"\0", b"PK\x05\x06", b"x" * 22, b"x" * 70_000])
def test_a_file_with_bytes_behind_its_end_is_refused_as_altered(case, good, scratch, more):
    assert_refused(scratch, good + more, "cut off or altered")
    results = results_file(case, zipfile.ZIP_STORED)
    assert_refused(scratch, results + more, "cut off or altered", read=lambda path: read_results(path, case))


def test_an_archive_with_a_comment_is_read(case, scratch):
    scratch.write_bytes(results_file(case, zipfile.ZIP_STORED))
    with zipfile.ZipFile(scratch, "a") as archive:
        archive.comment = b"made elsewhere"
    assert read_results(scratch, case).keys() == case.expected.keys()


NAMES = TEXT.filter(lambda text: text.partition("\0")[0])
"""Names that zipfile writes: it ends them at a NUL, and none may be empty."""


@given(st.lists(NAMES, min_size=1, max_size=3), st.booleans())
@settings(max_examples=60)
def test_members_of_any_name_are_refused_briefly(case, good, scratch, names, listed):
    def change(header, members):
        if listed:
            header["inputs"] += names
        members |= dict.fromkeys((f"inputs/{name}.npy" if listed else name for name in names), b"")

    scratch.write_bytes(resealed(good, change))
    with pytest.raises(ArchiveError) as caught:
        load(scratch)
    assert_brief(scratch, caught.value)
    scratch.write_bytes(pack({f"{name}.npy": b"" for name in names}))
    with pytest.raises(ArchiveError) as caught:
        read_results(scratch, case)
    assert_brief(scratch, caught.value)


class Bomb:
    """Whoever unpickles it finds a file written."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_never_opened(case, good, scratch, tmp_path):
    bomb = npy(np.array([Bomb(tmp_path / "exploded")], object), allow_pickle=True)
    assert_refused(scratch, resealed(good, replaced("inputs/x.npy", bomb)), "'inputs/x.npy' holds pickled objects")
    fields = npy(np.zeros(3, [("a", "<f4"), ("b", object)]), allow_pickle=True)
    assert_refused(scratch, resealed(good, replaced("inputs/x.npy", fields)), "'inputs/x.npy' holds pickled objects")
    raw = npy(np.zeros(1))[:0] + bomb[128:]
    assert_refused(scratch, resealed(good, replaced("inputs/x.npy", raw)), "'inputs/x.npy' is no .npy array")
    read = read_results
    for data in (bomb, raw):
        assert_refused(scratch, pack({"output.npy": data}), "'output.npy'", read=lambda path: read(path, case))
    assert list(tmp_path.iterdir()) == []


def test_repeated_members_are_refused(case, good, scratch):
    for name, data in unpack(good).items():
        assert_refused(scratch, pack([*unpack(good).items(), (name, data)]), f"holds {name!r} twice")
    twice = pack([("output.npy", npy(np.zeros(3)))] * 2)
    assert_refused(scratch, twice, "holds 'output.npy' twice", read=lambda path: read_results(path, case))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_golden_files_are_refused(good, scratch, method):
    assert_refused(scratch, pack(unpack(good), method), f"is compressed by method {method}; expected stored members")


def patch_directory(data, name, at, layout, value):
    """Overwrite a field of a member's entry in the zip's central directory."""
    data = bytearray(data)
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    struct.pack_into(layout, data, entry + at, value)
    return bytes(data)


def test_directories_that_lie_about_sizes_are_refused(case, good, scratch):
    name = "inputs/x.npy"
    size = len(unpack(good)[name])
    claims = patch_directory(good, name, 24, "<I", 2**32 - 2)
    assert_refused(scratch, claims, f"{name!r} claims more bytes than it can hold")
    both = patch_directory(claims, name, 20, "<I", 2**32 - 2)
    assert_refused(scratch, both, "its members claim more bytes than the file has")
    for more in (-1, 1):
        longer = patch_directory(good, name, 24, "<I", size + more)
        assert_refused(scratch, patch_directory(longer, name, 20, "<I", size + more))
    encrypted = patch_directory(good, name, 8, "<H", 1)
    assert_refused(scratch, encrypted, f".npz: {name!r} is encrypted")
    elsewhere = patch_directory(good, name, 42, "<I", 2**32 - 2)
    assert_refused(scratch, elsewhere, "cut off or altered")
    deflated = results_file(case, zipfile.ZIP_DEFLATED)
    claims = patch_directory(deflated, "x.grad.npy", 24, "<I", 2**32 - 2)
    assert_refused(
        scratch, claims, "'x.grad.npy' claims more bytes than it can hold", read=lambda path: read_results(path, case)
    )


def test_names_that_are_no_text_are_refused(good, scratch):
    at = good.rindex(b"inputs/x.npy")
    data = patch_directory(good, "inputs/x.npy", 8, "<H", 0x800)  # said to be UTF-8
    assert_refused(scratch, data[:at] + b"\xff" + data[at + 1 :], "cut off or altered")


def test_deflated_bytes_that_end_before_the_claimed_size_are_refused(case, scratch):
    short = npy(case.expected["output"])[:-8]
    data = pack({"output.npy": short}, zipfile.ZIP_DEFLATED)
    data = patch_directory(data, "output.npy", 24, "<I", len(short) + 8)
    assert_refused(scratch, data, "'output.npy' is cut off or altered", read=lambda path: read_results(path, case))


def test_claims_and_bombs_take_no_memory(case, good, scratch):
    million = "{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000,), }\n"

    def refuse():
        with pytest.raises(ArchiveError):
            load(scratch)

    def judge():
        with contextlib.suppress(ArchiveError):
            assert not case.compare(read_results(scratch, case)).passed

    attacks = [
        resealed(good, replaced("inputs/x.npy", npy_claiming(million))),
        resealed(good, replaced("inputs/x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(99))),
        pack(unpack(good) | {"inputs/x.npy": bytes(2**25)}, zipfile.ZIP_DEFLATED),
    ]
    for data in attacks:
        scratch.write_bytes(data)
        assert peak_memory(refuse) < 2**20
    shape = case.expected["output"].shape
    bombs = [
        npy(np.zeros(2**22)),
        npy(np.zeros(shape)) + bytes(2**25),
        bytes(2**25),
        b"\x93NUMPY\x01\x00" + bytes(2**25),
    ]
    for bomb in bombs:
        scratch.write_bytes(pack({"output.npy": bomb}, zipfile.ZIP_DEFLATED))
        assert peak_memory(judge) < 2**20
