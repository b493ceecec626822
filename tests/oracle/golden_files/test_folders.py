import numpy as np
import pytest

from npattn.oracle import ArchiveError
from npattn.oracle.golden_files import read_results
from npattn.oracle.golden_files.folders import open_folder
from tests.memory import peak_memory
from tests.oracle.golden_files.packing import npy, npy_claiming


def test_a_folder_is_read_as_a_file_of_the_same_members(case, tmp_path):
    for name, y in case.expected.items():
        (tmp_path / f"{name}.npy").write_bytes(npy(y))
    (tmp_path / ".hidden").write_bytes(b"none of ours")
    found = read_results(tmp_path, case)
    assert found.keys() == case.expected.keys()
    for name, y in found.items():
        np.testing.assert_array_equal(y, case.expected[name])


def test_of_a_result_of_another_shape_the_header_alone_is_read(case, tmp_path):
    with (tmp_path / "output.npy").open("wb") as file:
        file.write(npy_claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (8388608,), }\n"))
        file.truncate(file.tell() + 4 * 2**23)
    assert peak_memory(lambda: read_results(tmp_path, case)) < 2**20
    assert read_results(tmp_path, case)["output"].shape == (2**23,)


def test_a_file_that_is_cut_off_after_it_was_listed_is_refused(case, tmp_path):
    (tmp_path / "output.npy").write_bytes(npy(case.expected["output"])[:-1])
    with pytest.raises(ArchiveError, match=r"'output\.npy'"):
        read_results(tmp_path, case)
    listed = open_folder(tmp_path)
    (tmp_path / "output.npy").write_bytes(b"")
    with pytest.raises(ArchiveError, match=r"'output\.npy' is cut off or altered"):
        listed.read("output.npy")


def test_what_is_no_regular_file_is_refused_with_what_it_is(case, tmp_path):
    (tmp_path / "output.npy").mkdir()
    with pytest.raises(ArchiveError, match=r"holds 'output.npy', which is a folder; expected \.npy files alone"):
        read_results(tmp_path, case)
