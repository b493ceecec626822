import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn.oracle import FORMATS, ArchiveError, Case, golden, load
from npattn.oracle.budgets import Budget, limits_of
from npattn.oracle.golden_files import read_results, writing
from npattn.oracle.golden_files.header import CHECKSUM, FIELDS, GROUPS, HEADER
from tests.oracle.made_up import made_up
from tests.strategies import SYSTEMS, modules


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


@pytest.fixture(scope="module")
def case():
    return golden(npattn.EfficientChannelAttention(channels=3, kernel_size=3), height=2, width=3)


@pytest.fixture(scope="module")
def good(case, tmp_path_factory):
    """The bytes of a golden file."""
    path = tmp_path_factory.mktemp("good") / "good.npz"
    case.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that every example may write anew."""
    return tmp_path_factory.mktemp("scratch") / "case.npz"


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


@given(modules(), st.sampled_from(list(FORMATS)), st.integers(0, 2**31))
@settings(max_examples=40)
def test_loading_gives_what_was_saved(scratch, module, dtype, seed):
    before = made_up(module, dtype, seed)
    before.save(scratch, force=True)
    data = scratch.read_bytes()
    after = load(scratch)
    assert same(before, after)
    after.save(scratch, force=True)
    assert scratch.read_bytes() == data


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.key)
def test_every_system_has_its_golden_file(scratch, system):
    before = made_up(system.example(), seed=3)
    before.save(scratch, force=True)
    assert same(before, load(scratch))


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_golden_case_judges_after_loading_as_before(scratch, dtype):
    before = golden(npattn.ChannelAttention(channels=2), height=2, width=2, dtype=dtype)
    before.save(scratch, force=True)
    after = load(scratch)
    assert same(before, after)
    got = {name: y + 3 * before.budget[name] for name, y in before.expected.items()}
    assert str(after.compare(got)) == str(before.compare(got))
    after.inputs["x"][0] = 0  # arrays of its own, as a new case's are


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (npattn.CBAM(channels=4, pools=["avg"]), npattn.CBAM(channels=4, pools=("avg",))),
        (npattn.EfficientChannelAttention(np.int64(4), gamma=np.float32(2)), npattn.EfficientChannelAttention(4)),
        (npattn.Residual(npattn.Residual(npattn.CBAM(4))), npattn.Residual(npattn.Residual(npattn.CBAM(4)))),
    ],
)
def test_hyperparameters_are_kept_whatever_type_they_had(scratch, given, kept):
    made_up(given).save(scratch, force=True)
    assert load(scratch).module == kept


def test_the_same_case_gives_the_same_bytes_at_any_time(case, good, tmp_path, monkeypatch):
    for name, year in [("a.npz", 2001), ("b.npz", 2033)]:
        monkeypatch.setattr("time.time", lambda year=year: 365.25 * 86400 * (year - 1970))
        case.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == good


def test_numpy_opens_a_golden_file_without_pickles(case, good):
    with np.load(io.BytesIO(good), allow_pickle=False) as file:
        names = [f"{group}/{name}" for group in GROUPS for name in getattr(case, group)]
        assert file.files == [HEADER, CHECKSUM, *names]
        for name in names:
            group, _, rest = name.partition("/")
            np.testing.assert_array_equal(file[name], getattr(case, group)[rest])
            assert file[name].dtype.str == GROUPS[group]
        assert json.loads(file[HEADER])["members"].keys() == {f"{name}.npy" for name in names}


def test_header_alone_tells_how_to_judge(case, good):
    header = json.loads(unpack(good)[HEADER])
    found = {name: y + 0.5 * case.budget[name] for name, y in case.expected.items()}
    judgements = case.compare(found).judgements
    for result in header["results"]:
        judgement = judgements[result["name"]]
        assert (result["worst_limit"], result["rms_limit"]) == (judgement.worst_limit, judgement.rms_limit)
        assert result["judged"] == np.isfinite(case.budget[result["name"]]).sum()
    assert [result["name"] for result in header["results"]] == list(case.expected)
    assert header["inputs"] == ["x"]
    assert header["system"] == {
        "key": "eca",
        "hyperparameters": {"channels": 3, "kernel_size": 3, "gamma": 2, "b": 1},
    }


def test_headers_that_could_not_be_read_back_are_not_written(case, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MAX_HEADER_SIZE", 1000)
    with pytest.raises(ValueError, match=r"can't be saved: its header has \d+ bytes, of 1000 at most"):
        case.save(tmp_path / "case.npz")
    assert list(tmp_path.iterdir()) == []


def test_systems_beyond_the_catalogue_are_refused_before_anything_is_written(tmp_path):
    class Own(npattn.EfficientChannelAttention):
        pass

    with pytest.raises(ValueError, match=r"Own\(channels=3.*can't be saved: it is no system of the catalogue"):
        made_up(Own(channels=3)).save(tmp_path / "own.npz")
    with pytest.raises(ValueError, match=r"Own\(channels=3"):
        made_up(npattn.Residual(Own(channels=3))).save(tmp_path / "own.npz")
    assert list(tmp_path.iterdir()) == []


def test_exact_infinities_are_read_back_and_judged(case, tmp_path):
    expected, budget = case.expected["x.grad"].copy(), case.budget["x.grad"].copy()
    expected[0, 0, 0], budget[0, 0, 0] = -np.inf, 1.0
    limits = case.limits | {"x.grad": limits_of(Budget(budget, case.freedom["x.grad"]))}
    infinite = dataclasses.replace(
        case, expected=case.expected | {"x.grad": expected}, budget=case.budget | {"x.grad": budget}, limits=limits
    )
    infinite.save(tmp_path / "case.npz")
    again = load(tmp_path / "case.npz")
    np.testing.assert_array_equal(again.expected["x.grad"], expected)
    assert again.compare({"x.grad": expected}).passed
    assert not again.compare({"x.grad": np.where(np.isinf(expected), 0, expected)}).passed


def test_existing_file_is_replaced_only_by_force(case, good, tmp_path):
    path = tmp_path / "case.npz"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"case\.npz exists already"):
        case.save(path)
    assert path.read_bytes() == b"precious"
    case.save(str(path), force=True)
    assert path.read_bytes() == good


def test_a_case_may_be_saved_to_the_file_that_it_was_read_from(good, tmp_path):
    path = tmp_path / "case.npz"
    path.write_bytes(good)
    case = load(path)
    with pytest.raises(FileExistsError, match="exists already"):
        case.save(path)
    case.save(path, force=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"case.npz": good}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_write_that_fails_halfway_changes_nothing(case, tmp_path, monkeypatch, force, error):
    path = tmp_path / "case.npz"
    if force:
        path.write_bytes(b"old")
    writestr, written = zipfile.ZipFile.writestr, []

    def fail(self, *arguments, **options):
        if len(written) == 4:
            raise error
        written.append(arguments)
        return writestr(self, *arguments, **options)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(type(error)):
        case.save(path, force=force)
    assert len(written) == 4
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"case.npz": b"old"} if force else {})


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


@given(st.data())
@settings(max_examples=400)
def test_corrupted_golden_file_is_refused_and_never_loads_as_another(case, good, scratch, data):
    bad = data.draw(corrupted(good))
    assert_refused_or_same(scratch, bad, load, lambda found: same(found, case))


def results_file(case, method):
    return pack({f"{name}.npy": npy(y.astype(np.float16)) for name, y in case.expected.items()}, method)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@given(data=st.data())
@settings(max_examples=200)
def test_corrupted_results_are_refused_and_never_read_as_others(case, scratch, method, data):
    bad = data.draw(corrupted(results_file(case, method)))

    def agrees(found):
        return all(np.array_equal(y, case.expected[name].astype(np.float16)) for name, y in found.items())

    assert_refused_or_same(scratch, bad, lambda path: read_results(path, case), agrees)


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
            read(tmp_path)


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["header.json: "]),
        ("", ["header.json: "]),
        (b"\xff\xfe", ["header.json: "]),
        ('{"seed": NaN}', ["header.json: NaN is no finite number"]),
        ('{"seed": -Infinity}', ["header.json: -Infinity is no finite number"]),
        ('{"seed": 1e999}', ["header.json: 1e999 is no finite number"]),
        ('{"seed": 1, "seed": 1}', ["header.json: 'seed' stands there twice"]),
        ("[" * 100_000, ["header.json: "]),
        ('{"seed": ' + "1" * 10_000 + "}", ["header.json: "]),
        (" " * (2**20 + 1), ["header.json has 1048577 bytes; expected no more than 1048576"]),
    ],
)
def test_headers_that_are_not_strict_json_are_refused(scratch, text, words):
    assert_refused(scratch, pack({HEADER: text}), *words)


def put(*path, value):
    """Make a change of the header: one value."""

    def change(header, members):
        place = header
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


HYPERPARAMETERS = {"channels": 3, "kernel_size": 3, "gamma": 2, "b": 1}


def nested(depth):
    system = {"key": "eca", "hyperparameters": HYPERPARAMETERS}
    for _ in range(depth):
        system = {"key": "residual", "hyperparameters": {"inner": system}}
    return system


def nested_lists(depth):
    return [nested_lists(depth - 1)] if depth else []


def renamed_input(header, members):
    header["inputs"] = ["y"]
    members["inputs/y.npy"] = members.pop("inputs/x.npy")
    header["members"]["inputs/y.npy"] = header["members"].pop("inputs/x.npy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed_input, ["lists the inputs y; expected x"]),
        (put("version", value=1), ["version 1 of the format", "reads version 2", "npattn golden makes the case again"]),
        (put("version", value=3), ["version 3 of the format"]),
        (put("version", value=True), ["version True"]),
        (put("version", value="1"), ["version '1'"]),
        (put("extra", value=0), ["unknown field 'extra'"]),
        (lambda header, _: header.pop("seed") and None, []),
        (put("seed", value="7"), ["seed is '7'; expected int"]),
        (put("seed", value=-1), ["seed is -1"]),
        (put("dtype", value="float12"), ["dtype is 'float12'", "bfloat16"]),
        (put("dtype", value=["float16"]), ["dtype is ['float16']; expected str"]),
        (put("system", "key", value="ecaa"), ["unknown system 'ecaa'; did you mean 'eca'?"]),
        (put("system", "key", value=["eca"]), ["unknown system ['eca']"]),
        (put("system", value={"key": "eca"}), ["expected a key and hyperparameters"]),
        (put("system", "hyperparameters", value=[3]), ["hyperparameters of 'eca' are [3]"]),
        (put("system", "hyperparameters", "depth", value=1), ["'depth'", "expected channels, kernel_size, gamma, b"]),
        (put("system", "hyperparameters", "kernel_size", value=4), ["kernel_size=4"]),
        (put("system", "hyperparameters", "channels", value=10**18), ["x has shape (1, 3, 2, 3)"]),
        (put("system", "hyperparameters", "channels", value="3"), ["channels='3' is a str"]),
        (put("system", "hyperparameters", "channels", value=3.0), ["channels=3.0"]),
        (put("system", "hyperparameters", "kernel_size", value=5), ["params/conv.weight.npy has shape"]),
        (put("system", "hyperparameters", "gamma", value=10**400), []),
        (put("system", value=nested(1)), ["params: 'inner.conv.weight' is missing"]),
        (put("system", value=nested(49)), ["params: 'inner.inner.", "..."]),
        (put("system", value=nested(50)), ["hyperparameters are nested more than 50 times"]),
        (put("system", value=nested(300)), ["hyperparameters are nested more than 50 times"]),
        (put("system", "hyperparameters", "channels", value=nested_lists(400)), ["nested more than 50 times"]),
        (put("inputs", value=["y"]), ["'inputs/x.npy', of which header.json says nothing"]),
        (put("inputs", value=["x", "x"]), ["lists 'x'"]),
        (put("inputs", value=["x", ["x"]]), ["lists ['x']"]),
        (put("inputs", value=["x", "../x"]), ["lacks 'inputs/../x.npy'"]),
        (put("params", value=[]), ["'params/conv.weight.npy', of which header.json says nothing"]),
        (put("members", "inputs/x.npy", value=7), ["'inputs/x.npy' is altered"]),
        (put("members", "inputs/x.npy", "dtype", value="<f8"), ["members.inputs/x.npy.dtype is '<f8'; expected '<f4'"]),
        (put("members", "inputs/x.npy", "shape", value=[1, 3, 3, 2]), ["shape[2] is 3; expected 2"]),
        (put("members", "more", value=7), ["members is {"]),
        (put("results", value=[7]), ["results holds 7"]),
        (put("results", 0, "name", value=7), ["lists 7"]),
        (put("results", 0, "name", value="x.grad"), ["lists 'x.grad'"]),
        (put("results", 0, "freedom", value=0.5), ["results holds"]),
        (put("results", 0, "freedom", value=10**400), ["results holds"]),
        (put("results", 0, "digits", value="many"), ["results holds"]),
        (put("results", 0, "more", value=1), ["results[0] is {"]),
        (put("results", 0, "judged", value=17), ["results[0].judged is 17; expected 18"]),
        (put("results", 1, "worst_limit", value=-1.0), ["results holds", "expected name, limits"]),
        (put("results", 1, "rms_limit", value=True), ["results holds", "expected name, limits"]),
        (put("values", value="odd"), ["values is 'odd'; expected one of generic, large, ties, zeros"]),
    ],
)
def test_headers_that_do_not_fit_are_refused_by_the_field(good, scratch, change, words):
    assert_refused(scratch, resealed(good, change), "header.json" if not words else words[0], *words)


def leaves(value, path=()):
    """List the paths of all values in JSON that hold no others."""
    if isinstance(value, (dict, list)) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, one in pairs for leaf in leaves(one, (*path, name))]
    return [path]


def at(header, path):
    """What stands in a header at a path."""
    for step in path:
        header = header[step]
    return header


def test_every_value_in_the_header_is_covered_by_its_checksum(good, scratch):
    members = unpack(good)
    paths = leaves(json.loads(members[HEADER]))
    assert {path[0] for path in paths} == FIELDS.keys()
    for path in paths:
        header = json.loads(members[HEADER])
        old = at(header, path)
        put(*path, value=f"{old}x" if isinstance(old, str) else 2 * (old or 0) + 1)(header, {})
        bad = pack(members | {HEADER: json.dumps(header, indent=1) + "\n"})
        assert_refused(scratch, bad, "header.json is altered: header.sha256 has another sha256")


def test_another_spelling_of_the_same_header_is_altered_too(good, scratch):
    members = unpack(good)
    for text in (members[HEADER] + b" ", json.dumps(json.loads(members[HEADER])).encode()):
        assert_refused(scratch, pack(members | {HEADER: text}), "header.json is altered")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: text[:-1],
        lambda text: text + b"\n",
        lambda text: text + bytes(2**20),
        lambda text: (b"1" if text[:1] == b"0" else b"0") + text[1:],
        lambda text: text.upper(),
        lambda text: b"\xff" * 64,
    ],
)
def test_a_checksum_is_64_hexadecimal_digits_and_nothing_else(good, scratch, change):
    members = unpack(good)
    members[CHECKSUM] = change(members[CHECKSUM])
    assert_refused(scratch, pack(members), "header.json is altered: header.sha256 has another sha256")


def test_a_file_of_version_1_is_refused_for_its_version(good, scratch):
    members = unpack(good)
    del members[CHECKSUM]
    old = pack(members | {HEADER: json.dumps(json.loads(members[HEADER]) | {"version": 1})})
    assert_refused(scratch, old, "version 1 of the format", "reads version 2: npattn golden makes the case again")


TEXT = st.text(max_size=9) | st.builds(lambda text, n: text * n, st.text(min_size=1, max_size=5), st.integers(60, 99))
ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    ATOMS
    | st.builds(lambda one, n: [one] * n, ATOMS, st.integers(9, 99))
    | st.builds(lambda name, one, n: {f"{name}{i}": one for i in range(n)}, TEXT, ATOMS, st.integers(9, 99)),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXT, some, max_size=3),
    max_leaves=4,
)


@given(st.data())
@settings(max_examples=100)
def test_a_header_of_anything_is_refused_briefly_or_read(good, scratch, data):
    def change(header, _):
        path = data.draw(st.sampled_from(leaves(header)))
        path = path[: data.draw(st.integers(1, len(path)))]
        place = at(header, path[:-1])
        if isinstance(place, dict) and data.draw(st.booleans()):
            place[data.draw(TEXT)] = data.draw(JSON)
        elif isinstance(place, list) and data.draw(st.booleans()):
            place.extend([data.draw(JSON)] * data.draw(st.sampled_from([1, 2, 99])))
        else:
            place[path[-1]] = data.draw(JSON)

    scratch.write_bytes(resealed(good, change))
    try:
        load(scratch)
    except ArchiveError as error:
        assert_brief(scratch, error)


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


def test_thousands_of_expected_names_are_not_all_told(case, scratch):
    many = dataclasses.replace(case, expected={f"rates.{i}.weight.grad": np.zeros(1) for i in range(5000)})
    for members in ({}, {"rates.5000.weight.grad.npy": b""}, {"\x1b[31m" * 999: b""}):
        assert_refused(scratch, pack(members), "holds", "...", read=lambda path: read_results(path, many))


def changed_header(*path, value):
    """A golden file with a header in which one value follows from a size."""
    return lambda good, n: resealed(good, put(*path, value=value(n)))


def names_and_one_twice(n):
    return [*map(str, range(n)), str(n - 1)]


def named_twice(n):
    return "{" + ",".join(f'"{name}":0' for name in names_and_one_twice(n)) + "}"


LONG = {
    "fields": lambda good, n: resealed(good, lambda header, _: header | dict.fromkeys(map(str, range(n)))),
    "a name twice in JSON": lambda good, n: pack(sealed(named_twice(n))),
    "an input twice": changed_header("inputs", value=names_and_one_twice),
    "parameters": changed_header("params", value=lambda n: [*map(str, range(n))]),
    "a result twice": changed_header(
        "results",
        value=lambda n: [
            {"name": name, "worst_limit": 1, "rms_limit": 1, "freedom": 1, "digits": None}
            for name in names_and_one_twice(n // 4)
        ],
    ),
    "members in the header": changed_header("members", value=lambda n: dict.fromkeys(map(str, range(n)))),
    "hyperparameters": changed_header(
        "system", "hyperparameters", value=lambda n: HYPERPARAMETERS | dict.fromkeys(map(str, range(n)))
    ),
    "a long hyperparameter": changed_header("system", "hyperparameters", "channels", value=lambda n: [*range(n)]),
    "systems in a list": changed_header(
        "system", "hyperparameters", "channels", value=lambda n: [{"key": "se", "hyperparameters": {}}] * (n // 4)
    ),
    "unknown members": lambda good, n: pack([*unpack(good).items(), *((str(i), b"") for i in range(n // 2))]),
    "a member twice": lambda good, n: pack([(name, b"") for name in names_and_one_twice(n // 2)]),
}


def cpu_time(call):
    start = time.process_time()
    call()
    return time.process_time() - start


@pytest.mark.parametrize("kind", LONG)
def test_long_lists_are_refused_in_linear_time(good, scratch, kind):
    times = []
    for n in (10_000, 20_000):
        data = LONG[kind](good, n)
        times.append(min(cpu_time(lambda data=data: assert_refused(scratch, data)) for _ in range(2)))
    assert times[1] < min(1, 3 * times[0] + 0.1)


def test_many_results_are_refused_in_linear_time(case, scratch):
    data = pack([(f"{name}.npy", b"") for name in names_and_one_twice(20_000)])
    assert cpu_time(lambda: assert_refused(scratch, data, "twice", read=lambda path: read_results(path, case))) < 1


def test_order_within_objects_does_not_matter(case, good, scratch):
    def turn(value):
        if isinstance(value, dict):
            return {name: turn(value[name]) for name in reversed(value)}
        return [turn(one) for one in value] if isinstance(value, list) else value

    scratch.write_bytes(resealed(good, lambda header, _: turn(header)))
    assert same(load(scratch), case)


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 1, 0]])
def test_results_in_another_order_are_refused(good, scratch, order):
    def change(header, members):
        header["results"] = [header["results"][i] for i in order]

    assert_refused(scratch, resealed(good, change), "expected: header.json does not list them in order")


def replaced(member, data):
    def change(header, members):
        assert member in members
        members[member] = data

    return change


X = np.zeros((1, 3, 2, 3), np.float32)


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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(X.astype(">f4")), ["holds '>f4'; expected '<f4'"]),
        (npy(X.astype(np.float64)), ["holds '<f8'; expected '<f4'"]),
        (npy(X.astype(np.int32)), ["holds '<i4'; expected '<f4'"]),
        (npy(np.asfortranarray(X)), ["first index fastest"]),
        (npy(X[..., :2]), ["upstream/output.npy has shape (1, 3, 2, 3); expected (1, 3, 2, 2)"]),
        (npy(X[0]), ["x has shape (3, 2, 3)"]),
        (npy(X)[:-1], ["of shape (1, 3, 2, 3) would take 200 bytes; it has 199"]),
        (npy(X) + b"\0", ["would take 200 bytes; it has 201"]),
        (npy(X)[:60], ["malformed .npy header"]),
        (npy(X)[:7], ["unknown version of .npy"]),
        (b"\x93NUMPY\x03\x00" + npy(X)[8:], ["unknown version of .npy"]),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), ["malformed .npy header"]),
        (
            npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"),
            ["would take 40000000"],
        ),
        (npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n" % ("9" * 40 + ",")), ["malformed"]),
        (
            npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (0, %s), }\n" % ("99999999, " * 9)),
            ["claims"],
        ),
        (
            npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n" % ("1, " * 40), b"0000"),
            ["claims"],
        ),
        (npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (-6, -3), }\n", bytes(72)), ["malformed"]),
        (npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }\n", bytes(4)), ["malformed"]),
        (npy_claiming("{'descr': '<f4', 'fortran_order': 0, 'shape': (18,), }\n", bytes(72)), ["malformed"]),
        (npy_claiming("{'descr': '<f4', 'shape': (18,), }\n", bytes(72)), ["malformed"]),
        (npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (18,), 'x': 1}\n", bytes(72)), ["malformed"]),
        (npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (9 * 2,), }\n", bytes(72)), ["malformed"]),
        (
            npy_claiming("{'descr': '<f4,<f4', 'fortran_order': False, 'shape': (9,), }\n", bytes(72)),
            ["dtype '<f4,<f4'"],
        ),
        (npy_claiming("__import__('os').getcwd()"), ["malformed"]),
        (npy_claiming("[" * 4000), ["malformed"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_the_member(good, scratch, data, words):
    assert_refused(scratch, resealed(good, replaced("inputs/x.npy", data)), *words)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, -np.inf])
def test_budgets_by_which_nothing_can_be_judged_are_refused(case, good, scratch, value):
    budget = case.budget["output"].copy()
    budget[0, 1, 1, 1] = value
    bad = resealed(good, replaced("budget/output.npy", npy(budget)))
    assert_refused(scratch, bad, "budget/output.npy holds what is not above 0")


def test_an_expected_result_that_is_nan_is_refused(case, good, scratch):
    expected = case.expected["x.grad"].copy()
    expected[0, 1, 1, 1] = np.nan
    bad = resealed(good, replaced("expected/x.grad.npy", npy(expected)))
    assert_refused(scratch, bad, "expected/x.grad.npy is NaN where its budget is finite")


def test_a_budget_made_infinite_does_not_fit_the_header(case, good, scratch):
    budget = np.full_like(case.budget["output"], np.inf)
    assert_refused(
        scratch, resealed(good, replaced("budget/output.npy", npy(budget))), "results[0].judged is 18; expected 0"
    )


def test_altered_array_with_a_right_crc_is_refused_by_its_sha256(case, good, scratch):
    for name, data in unpack(good).items():
        if name not in (HEADER, CHECKSUM):
            members = unpack(good) | {name: data[:-1] + bytes([data[-1] ^ 1])}
            assert_refused(scratch, pack(members), f"{name!r} is altered: header.json has another sha256")


def test_each_missing_member_is_refused_by_name(good, scratch):
    for name in unpack(good):
        members = {other: data for other, data in unpack(good).items() if other != name}
        assert_refused(scratch, pack(members), "lacks" if name != HEADER else "holds no", name)


@pytest.mark.parametrize(
    "name",
    [
        "more.npy",
        "../x.npy",
        "/etc/passwd",
        "C:\\x.npy",
        "inputs\\x.npy",
        "inputs/../inputs/x.npy",
        "inputs/",
        "é",
        " ",
        "line\nfeed",
        "INPUTS/X.npy",
        "header.json.npy",
        "inputs/x.npy.npy",
        "./header.json",
        200 * "long",
    ],
)
def test_members_beyond_those_in_the_header_are_refused_and_nothing_is_unpacked(good, tmp_path, name):
    path = tmp_path / "case.npz"
    assert_refused(path, pack(unpack(good) | {name: b"data"}), "of which header.json says nothing")
    assert list(tmp_path.iterdir()) == [path]


def test_repeated_members_are_refused(case, good, scratch):
    for name, data in unpack(good).items():
        assert_refused(scratch, pack([*unpack(good).items(), (name, data)]), f"holds {name!r} twice")
    twice = pack([("output.npy", npy(np.zeros(3)))] * 2)
    assert_refused(scratch, twice, "holds 'output.npy' twice", read=lambda path: read_results(path, case))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_golden_files_are_refused(good, scratch, method):
    assert_refused(scratch, pack(unpack(good), method), f"is compressed by method {method}; expected stored members")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_results_compressed_in_unusual_ways_are_refused(case, scratch, method):
    data = results_file(case, method)
    assert_refused(scratch, data, "expected stored or deflated members", read=lambda path: read_results(path, case))


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


def peak_memory(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", "CF")
def test_results_of_any_floating_dtype_and_order_are_read(case, scratch, method, dtype, order):
    arrays = {name: y.astype(dtype, order=order) for name, y in case.expected.items()}
    scratch.write_bytes(pack({f"{name}.npy": npy(y) for name, y in arrays.items()}, method))
    found = read_results(scratch, case)
    assert list(found) == list(arrays)
    for name, y in arrays.items():
        np.testing.assert_array_equal(found[name], y)
        assert found[name].dtype.isnative
    assert case.compare(found).passed


def test_results_written_by_numpy_are_read(case, scratch):
    for save in (np.savez, np.savez_compressed):
        save(scratch, **{"x.grad": case.expected["x.grad"], "output": case.expected["output"].astype(np.longdouble)})
        assert case.compare(read_results(scratch, case)).passed


def test_a_result_of_a_wrong_shape_is_judged_by_its_shape(case, scratch):
    for shape in [(), (3,), (1, 3, 2, 3, 1), (0, 5)]:
        scratch.write_bytes(pack({"output.npy": npy(np.zeros(shape))}))
        report = case.compare(read_results(scratch, case))
        assert not report.passed
        assert report.judgements["output"].trouble == f"its shape is {shape}, expected (1, 3, 2, 3)"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, ["holds no results; expected some of output, x.grad, conv.weight.grad"]),
        ({"outptu.npy": npy(X)}, ["'outptu.npy'", "did you mean 'output.npy'?", "expected some of output, x.grad"]),
        ({"output": npy(X)}, ["'output'", "did you mean 'output.npy'?"]),
        ({"../output.npy": npy(X)}, ["'../output.npy'", "which is no result"]),
        ({"output.npy": npy(X.astype(np.int32))}, ["dtype '<i4'; expected floating point"]),
        ({"output.npy": npy(X.astype(bool))}, ["dtype '|b1'; expected floating point"]),
        ({"output.npy": npy(np.zeros(3, "<U2"))}, ["'output.npy'"]),
        ({"output.npy": npy(X.astype("V2"))}, ["dtype '|V2'", "bfloat16; write float32"]),
        ({"output.npy": npy(X.astype("V1"))}, ["dtype '|V1'", "write float32"]),
        ({"output.npy": npy(np.zeros(3, [("a", "<f4")]))}, ["expected floating-point numbers"]),
        ({"output.npy": npy(np.zeros(3, "M8[s]"))}, ["expected floating-point numbers"]),
        (
            {"output.npy": npy_claiming("{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }\n", b"000")},
            ["'<f3'"],
        ),
        (
            {
                "output.npy": npy_claiming(
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 99999999, 99999999, 99999999), }\n"
                )
            },
            ["'output.npy' claims a shape that no array can have"],
        ),
        ({"output.npy": b"text"}, ["'output.npy' is no .npy array"]),
        ({HEADER: "{}"}, ["holds a header.json, as golden files do; expected the results of a kernel"]),
    ],
)
def test_what_is_no_result_is_refused(case, scratch, members, words):
    assert_refused(scratch, pack(members), *words, read=lambda path: read_results(path, case))


def test_all_that_a_case_has_is_in_its_file():
    """A new attribute of `Case` needs a new field of the file, and a new version."""
    names = [field.name for field in dataclasses.fields(Case)]
    assert names == ["module", "dtype", "seed", "values", *GROUPS, "limits", "freedom", "digits"]
