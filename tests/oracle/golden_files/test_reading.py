import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn.oracle import FORMATS, ArchiveError, golden, load
from npattn.oracle.budgets import Budget, limits_of
from npattn.oracle.golden_files.header import CHECKSUM, FIELDS, HEADER
from tests.naming import for_each
from tests.oracle.golden_files.packing import (
    HYPERPARAMETERS,
    TEXT,
    X,
    assert_brief,
    assert_refused,
    assert_refused_or_same,
    corrupted,
    cpu_time,
    names_and_one_twice,
    npy,
    npy_claiming,
    pack,
    put,
    replaced,
    resealed,
    same,
    sealed,
    unpack,
)
from tests.oracle.made_up import made_up
from tests.strategies import SYSTEMS, modules


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


@for_each("system", SYSTEMS)
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


@given(st.data())
@settings(max_examples=400)
def test_corrupted_golden_file_is_refused_and_never_loads_as_another(case, good, scratch, data):
    bad = data.draw(corrupted(good))
    assert_refused_or_same(scratch, bad, load, lambda found: same(found, case))


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


ROUNDED = {"changed": 2, "size": 18, "largest": 1e-3, "beyond": 1}


def rounded(name, **fields):
    """Make a change of the header: a caller's inputs, one of which was rounded."""

    def change(header, members):
        header["given"] = ["inputs"]
        header["rounded"] = {name: ROUNDED | fields}

    return change


@for_each(
    ("change", "words"),
    [
        (renamed_input, ["lists the inputs y; expected x"]),
        (
            put("version", value=1),
            ["version 1 of the format", "reads versions 3 to 5", "npattn golden makes the case again"],
        ),
        (put("version", value=2), ["version 2 of the format"]),
        (put("version", value=4), ["'steps' is missing"]),
        (put("version", value=5), ["'axes' is missing"]),
        (put("axes", value="maps"), ["unknown field 'axes'"]),
        (put("version", value=6), ["version 6 of the format"]),
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
        (put("system", value={"key": "eca"}), ["expected a key or a name, and hyperparameters"]),
        (
            put("system", value={"name": "os.system", "hyperparameters": {}}),
            ["name is 'os.system'"],
        ),
        (put("system", value={"name": "X" * 101, "hyperparameters": {}}), ["expected that of a class"]),
        (put("system", value={"name": "X", "hyperparameters": [3]}), ["hyperparameters of 'X' are [3]"]),
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
        (put("values", value="odd"), ["values is 'odd'; expected one of generic, large, ties, zeros, ones"]),
        (put("layout", value="nhwc"), ["layout is 'nhwc'; expected one of contiguous, broadcast, transposed, sliced"]),
        (put("given", value=["expected"]), ["given is ['expected']; expected some of inputs, params, upstream"]),
        (put("given", value=["params", "inputs"]), ["in this order"]),
        (put("given", value=["inputs", "inputs"]), ["in this order"]),
        (put("rounded", "inputs/x", value=ROUNDED), ["rounded holds 'inputs/x'", "expected changes of what was given"]),
        (rounded("inputs/y"), ["rounded holds 'inputs/y' of 18 values, which is no array"]),
        (rounded("inputs/x", size=17), ["rounded holds 'inputs/x' of 17 values, which is no array"]),
        (rounded("inputs/x", changed=0, beyond=0), ["rounded holds"]),
        (rounded("inputs/x", changed=19), ["rounded holds"]),
        (rounded("inputs/x", changed=True), ["rounded holds"]),
        (rounded("inputs/x", largest=-1.0), ["rounded holds"]),
        (rounded("inputs/x", largest="0"), ["rounded holds"]),
        (rounded("inputs/x", beyond=3), ["rounded holds"]),
        (rounded("inputs/x", more=3), ["rounded holds"]),
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


@pytest.mark.parametrize("digits", [15.0, 15])
def test_whole_numbers_of_a_header_may_be_written_without_a_point(good, tmp_path, digits):
    (tmp_path / "case.npz").write_bytes(resealed(good, put("results", 0, "digits", value=digits)))
    found = load(tmp_path / "case.npz").digits["output"]
    assert isinstance(found, float)
    assert found == digits


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
    assert_refused(scratch, old, "version 1 of the format", "reads versions 3 to 5: npattn golden makes the case again")


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


def changed_header(*path, value):
    """A golden file with a header in which one value follows from a size."""
    return lambda good, n: resealed(good, put(*path, value=value(n)))


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


@pytest.mark.parametrize("kind", LONG)
def test_long_lists_are_refused_in_linear_time(good, scratch, kind):
    times = []
    for n in (10_000, 20_000):
        data = LONG[kind](good, n)
        times.append(min(cpu_time(lambda data=data: assert_refused(scratch, data)) for _ in range(2)))
    assert times[1] < min(1, 3 * times[0] + 0.1)


def test_order_within_objects_does_not_matter(case, good, scratch):
    def turn(value):
        if isinstance(value, dict):
            return {name: turn(value[name]) for name in reversed(value)}
        return [turn(one) for one in value] if isinstance(value, list) else value

    scratch.write_bytes(resealed(good, lambda header, _: turn(header)))
    assert same(load(scratch), case)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [2, 1, 0, 3]])
def test_results_in_another_order_are_refused(good, scratch, order):
    def change(header, members):
        header["results"] = [header["results"][i] for i in order]

    assert_refused(scratch, resealed(good, change), "expected: header.json does not list them in order")


@for_each(
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
