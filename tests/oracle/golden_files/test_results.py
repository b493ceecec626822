import dataclasses
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.oracle.golden_files import read_results
from npattn.oracle.golden_files.header import HEADER
from tests.oracle.golden_files.packing import (
    X,
    assert_refused,
    assert_refused_or_same,
    corrupted,
    cpu_time,
    names_and_one_twice,
    npy,
    npy_claiming,
    pack,
    results_file,
)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@given(data=st.data())
@settings(max_examples=200)
def test_corrupted_results_are_refused_and_never_read_as_others(case, scratch, method, data):
    bad = data.draw(corrupted(results_file(case, method)))

    def agrees(found):
        return all(np.array_equal(y, case.expected[name].astype(np.float16)) for name, y in found.items())

    assert_refused_or_same(scratch, bad, lambda path: read_results(path, case), agrees)


def test_thousands_of_expected_names_are_not_all_told(case, scratch):
    many = dataclasses.replace(case, expected={f"rates.{i}.weight.grad": np.zeros(1) for i in range(5000)})
    for members in ({}, {"rates.5000.weight.grad.npy": b""}, {"\x1b[31m" * 999: b""}):
        assert_refused(scratch, pack(members), "holds", "...", read=lambda path: read_results(path, many))


def test_many_results_are_refused_in_linear_time(case, scratch):
    data = pack([(f"{name}.npy", b"") for name in names_and_one_twice(20_000)])
    assert cpu_time(lambda: assert_refused(scratch, data, "twice", read=lambda path: read_results(path, case))) < 1


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_results_compressed_in_unusual_ways_are_refused(case, scratch, method):
    data = results_file(case, method)
    assert_refused(scratch, data, "expected stored or deflated members", read=lambda path: read_results(path, case))


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
        ({"output.npy": npy(np.zeros(3, "<U2"))}, ["'output.npy' holds text, of dtype '<U2'; expected floating-point"]),
        ({"output.npy": npy(np.zeros(3, "S2"))}, ["'output.npy' holds text, of dtype '|S2'; expected floating-point"]),
        ({"dx.npy": npy(X)}, ["'dx.npy'", "did you mean 'x.grad.npy'?"]),
        ({"grad/conv_weight.npy": npy(X)}, ["did you mean 'conv.weight.grad.npy'?"]),
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
