"""Golden files with steps: read back as they were, judged without the system's code, and refused if altered."""

import json
import re

import numpy as np
import pytest

import npattn
from npattn.oracle import ArchiveError, golden, load
from npattn.oracle.golden_files import read_results
from npattn.oracle.golden_files.header import HEADER
from tests.oracle.golden_files.packing import assert_refused, npy, pack, put, replaced, resealed, same, unpack
from tests.own_systems import CausalHead


@pytest.fixture(scope="module")
def with_steps(case, tmp_path_factory):
    """The bytes of a golden file with steps."""
    path = tmp_path_factory.mktemp("steps") / "case.npz"
    case.save(path, steps=True)
    return path.read_bytes()


def assert_same_steps(one, other):
    assert list(one) == list(other)
    for name, step in one.items():
        for attribute in ("name", "limits", "freedom", "line", "feeds"):
            assert getattr(step, attribute) == getattr(other[name], attribute)
        np.testing.assert_array_equal(step.expected, other[name].expected)
        np.testing.assert_array_equal(step.budget, other[name].budget)


def test_steps_are_read_back_and_written_again_as_they_were(case, with_steps, good, scratch, tmp_path):
    scratch.write_bytes(with_steps)
    again = load(scratch)
    assert same(again, case)
    assert_same_steps(again.measured_steps, case.steps())
    again.save(tmp_path / "steps.npz", steps=True)
    assert (tmp_path / "steps.npz").read_bytes() == with_steps
    again.save(tmp_path / "plain.npz")
    assert (tmp_path / "plain.npz").read_bytes() == good


def test_the_header_lists_steps_in_order_of_computation(case, with_steps):
    header = json.loads(unpack(with_steps)[HEADER])
    assert header["version"] == 4
    assert [step["name"] for step in header["steps"]] == list(case.steps())
    assert header["steps"][2]["line"] == "a, back_sigmoid = ops.sigmoid(z)"
    assert header["steps"][2]["feeds"] == ["output", "x.grad", "channel"]
    assert {"steps/(3') dz.npy", "step_budgets/(3') dz.npy"} <= header["members"].keys()


def test_files_without_steps_are_of_the_version_that_older_readers_know(good):
    header = json.loads(unpack(good)[HEADER])
    assert header["version"] == 3
    assert "steps" not in header


def test_a_file_names_the_step_of_a_system_whose_code_it_does_not_hold(tmp_path):
    case = golden(CausalHead(3), height=2, width=3)
    case.save(tmp_path / "case.npz", steps=True)
    described = load(tmp_path / "case.npz")
    steps = {name: step.expected for name, step in described.steps().items()}
    first = list(steps)[1]
    assert described.compare(steps).passed
    assert described.compare(steps | {first: -steps[first]}).first_wrong == first
    assert described.compare({"output": -described.expected["output"], "q.grad": described.expected["q.grad"]}).begins
    case.save(tmp_path / "plain.npz")
    plain = load(tmp_path / "plain.npz")
    with pytest.raises(TypeError, match=r"the file holds no steps, .*--steps .* systems=\[CausalHead\]"):
        plain.compare(steps)
    assert plain.compare({"output": -described.expected["output"]}).begins == []
    np.savez(tmp_path / "steps.npz", **{first: steps[first]})
    with pytest.raises(ArchiveError, match="the file holds no steps"):
        read_results(tmp_path / "steps.npz", plain)
    np.savez(tmp_path / "steps.npz", **{first.replace(" ", ""): steps[first]})
    with pytest.raises(ArchiveError, match=f"; did you mean {re.escape(repr(f'{first}.npy'))}"):
        read_results(tmp_path / "steps.npz", described)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("steps", 2, "name", value="(3) b"), ["holds 'steps/(3) a.npy'", "says nothing"]),
        (put("steps", 2, "name", value="a"), ["steps holds"]),
        (put("steps", 2, "line", value=3), ["steps holds"]),
        (put("steps", 2, "feeds", value=["outptu"]), ["'(3) a' feeds 'outptu'; expected results"]),
        (put("steps", 2, "feeds", value=["output", "output"]), ["'(3) a' feeds 'output'"]),
        (put("steps", 2, "feeds", value="output"), ["steps holds"]),
        (put("steps", 2, "worst_limit", value=0), ["steps holds"]),
        (put("steps", 2, "judged", value=4), ["steps[2].judged is 4; expected 3"]),
        (put("steps", 2, "more", value=4), ["steps[2] is"]),
        (put("steps", 2, value=None), ["steps holds None"]),
        (put("steps", value={}), ["steps is {}; expected list"]),
        (put("version", value=3), ["unknown field 'steps'"]),
        (lambda header, members: header["steps"].append(header["steps"][0]), ["each of them once"]),
        (replaced("step_budgets/(3) a.npy", npy(np.zeros((1, 3)))), ["holds what is not above 0"]),
        (replaced("step_budgets/(3) a.npy", npy(np.ones((3, 1)))), ["has shape"]),
        (replaced("steps/(3) a.npy", npy(np.full((1, 3), np.nan))), ["is NaN where its budget is finite"]),
        (replaced("steps/(3) a.npy", npy(np.ones((1, 3), np.float32))), ["expected '<f8'"]),
    ],
)
def test_files_with_wrong_steps_are_refused(with_steps, scratch, change, words):
    assert_refused(scratch, resealed(with_steps, change), *words)


def test_steps_among_a_kernels_results_are_read(case, scratch):
    steps = {name: case.steps()[name].expected.astype(np.float16) for name in ("(3) a", "(3') dz")}
    results = {"output": case.expected["output"]} | steps
    scratch.write_bytes(pack({f"{name}.npy": npy(value) for name, value in results.items()}))
    found = read_results(scratch, case)
    assert found.keys() == results.keys()
    assert case.compare(found).passed


def test_a_misspelt_step_among_results_is_told(case, scratch):
    data = pack({"(3) q.npy": npy(np.zeros(3))})
    assert_refused(scratch, data, "no step '(3) q'; did you mean '(3) a'?", read=lambda path: read_results(path, case))


def test_steps_of_a_part_have_a_name_that_a_file_in_a_folder_can_have(tmp_path):
    case = golden(npattn.Residual(npattn.EfficientChannelAttention(3)), height=2, width=3)
    name = next(name for name in case.steps() if name.endswith(" / (3) a"))
    value = case.steps()[name].expected
    folder, archive = tmp_path / "results", tmp_path / "results.npz"
    folder.mkdir()
    np.save(folder / f"{name.replace(' / ', ' - ')}.npy", value)
    np.savez(archive, **{name: value})
    for path in (folder, archive):
        assert list(read_results(path, case)) == [name]
    data = pack({f"{name}.npy": npy(value), f"{name.replace(' / ', ' - ')}.npy": npy(value)})
    assert_refused(archive, data, "twice", read=lambda path: read_results(path, case))
