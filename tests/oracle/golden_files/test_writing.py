import dataclasses
import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest

from npattn.oracle import Case, load
from npattn.oracle.golden_files import writing
from npattn.oracle.golden_files.header import CHECKSUM, GROUPS, HEADER
from tests.oracle.golden_files.packing import unpack


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


def test_all_that_a_case_has_is_in_its_file():
    """A new attribute of `Case` needs a new field of the file, and a new version."""
    names = [field.name for field in dataclasses.fields(Case)]
    assert names == [
        "module",
        "dtype",
        "seed",
        "values",
        *GROUPS,
        "limits",
        "freedom",
        "digits",
        "layout",
        "given",
        "rounded",
        "measured_steps",
    ]
