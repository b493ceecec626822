"""Golden files and results as bytes: packed, unpacked, altered, and what is said of those that are refused."""

import hashlib
import io
import json
import struct
import time
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

from npattn.oracle import ArchiveError, load
from npattn.oracle.golden_files.header import CHECKSUM, GROUPS, HEADER
from tests.strategies import CHARACTERS


def same(one, other):
    """Whether two cases are equal, the arrays bit for bit and in the same order."""
    arrays = [
        {
            (group, name): (a.dtype.str, a.shape, a.tobytes())
            for group in GROUPS
            for name, a in getattr(c, group).items()
        }
        for c in (one, other)
    ]
    rest = [
        (c.module, c.dtype, c.seed, c.values, repr(c.limits), repr(c.freedom), repr(c.digits), list(arrays[0]))
        for c in (one, other)
    ]
    return arrays[0] == arrays[1] and list(arrays[0]) == list(arrays[1]) and rest[0] == rest[1]


def unpack(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # members of one name
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return file.getvalue()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_claiming(text, data=b""):
    text = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def resealed(good, change):
    """A golden file with a changed header and members, and checksums that are right."""
    members = unpack(good)
    header, _ = json.loads(members.pop(HEADER)), members.pop(CHECKSUM)
    changed = change(header, members) or header
    described = header["members"] if isinstance(header["members"], dict) else {}
    for name, data in members.items():
        if isinstance(described.get(name), dict):
            described[name]["sha256"] = hashlib.sha256(data).hexdigest()
    return pack(sealed(json.dumps(changed)) | members)


def sealed(header):
    """A header and its checksum, as members."""
    header = header.encode() if isinstance(header, str) else header
    return {HEADER: header, CHECKSUM: hashlib.sha256(header).hexdigest()}


def assert_refused(path, data, *words, read=load):
    path.write_bytes(data)
    with pytest.raises(ArchiveError) as caught:
        read(path)
    assert_brief(path, caught.value)
    for word in words:
        assert word in str(caught.value)


def assert_brief(path, error):
    """Whether a complaint is one printable line that names the file, and below 300 characters after that."""
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message.removeprefix(f"{path}: ")) < 300


def assert_refused_or_same(path, data, read, agrees):
    path.write_bytes(data)
    try:
        found = read(path)
    except ArchiveError as error:
        assert_brief(path, error)
    else:
        assert agrees(found)


@st.composite
def corrupted(draw, data):
    """Bytes with one flipped, some replaced, left out or put in, or the rest cut off."""
    start = draw(st.integers(0, len(data) - 1) | st.integers(max(0, len(data) - 900), len(data) - 1))
    kind = draw(st.sampled_from(["flip", "replace", "insert", "remove", "cut"]))
    if kind == "flip":
        return data[:start] + bytes([data[start] ^ draw(st.integers(1, 255))]) + data[start + 1 :]
    if kind == "cut":
        return data[:start]
    some = draw(st.binary(min_size=1, max_size=9))
    stop = start if kind == "insert" else start + draw(st.integers(1, 9))
    return data[:start] + (b"" if kind == "remove" else some) + data[stop:]


def results_file(case, method):
    return pack({f"{name}.npy": npy(y.astype(np.float16)) for name, y in case.expected.items()}, method)


def put(*path, value):
    """Make a change of the header: one value."""

    def change(header, members):
        place = header
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


HYPERPARAMETERS = {"channels": 3, "kernel_size": 3, "gamma": 2, "b": 1}
TEXT = st.text(CHARACTERS, max_size=9) | st.builds(
    lambda text, n: text * n, st.text(CHARACTERS, min_size=1, max_size=5), st.integers(60, 99)
)


def names_and_one_twice(n):
    return [*map(str, range(n)), str(n - 1)]


def cpu_time(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def replaced(member, data):
    def change(header, members):
        assert member in members
        members[member] = data

    return change


X = np.zeros((1, 3, 2, 3), np.float32)
