import contextlib
import errno
import os
import tempfile
import threading

import pytest

from npattn.files import whole_file

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "values.npz"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_what_the_block_writes_is_all_that_stands_there(target, kind):
    with whole_file(kind(target)) as temporary:
        temporary.write_bytes(b"new")
    assert contents(target.parent) == {"values.npz": b"new"}


def test_a_bare_name_is_written_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with whole_file("bare.txt") as temporary:
        temporary.write_bytes(b"new")
    assert contents(tmp_path) == {"bare.txt": b"new"}


def test_target_is_as_before_while_the_block_runs(target):
    with whole_file(target) as temporary:
        temporary.write_bytes(b"first")
        assert not target.exists()
    with whole_file(target, force=True) as temporary:
        temporary.write_bytes(b"second")
        assert target.read_bytes() == b"first"
    assert target.read_bytes() == b"second"


def test_temporary_file_has_the_suffix_from_which_writers_tell_the_format(target):
    with whole_file(target) as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == target.parent  # a move between file systems would not be atomic


def test_existing_file_is_refused_before_the_block_runs(target):
    target.write_bytes(b"old")
    complaint = r"values\.npz exists already; only --force .*force=True.* replaces it"
    with pytest.raises(FileExistsError, match=complaint), whole_file(target):
        pytest.fail("the block ran")
    assert contents(target.parent) == {"values.npz": b"old"}


def test_force_replaces_an_existing_file(target):
    target.write_bytes(b"old and longer")
    with whole_file(target, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert contents(target.parent) == {"values.npz": b"new"}


def test_file_that_appears_while_the_block_runs_is_kept(target):
    with pytest.raises(FileExistsError, match="exists already"), whole_file(target) as temporary:
        temporary.write_bytes(b"mine")
        target.write_bytes(b"another's")
    assert contents(target.parent) == {"values.npz": b"another's"}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_failed_block_changes_nothing(target, error, force):
    if force:
        target.write_bytes(b"old")
    before = contents(target.parent)
    with pytest.raises(error), whole_file(target, force=force) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert contents(target.parent) == before


def test_block_that_loses_its_temporary_file_changes_nothing(target):
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), whole_file(target, force=True) as temporary:
        temporary.unlink()
    assert contents(target.parent) == {"values.npz": b"old"}


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_obey_the_umask(target, mask):
    before = os.umask(mask)
    try:
        with whole_file(target) as temporary:
            temporary.write_bytes(b"new")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("folder", ["missing", "file", "missing/deeper"])
def test_missing_folder_is_named(tmp_path, folder):
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / folder / "a.txt"):
        pytest.fail("the block ran")
    assert str(caught.value).endswith(f"a.txt: there is no folder {tmp_path / folder}")
    assert contents(tmp_path) == {"file": b"no folder"}


@pytest.mark.parametrize("force", [False, True])
def test_folder_is_never_replaced(tmp_path, force):
    (tmp_path / "folder.png").mkdir()
    folder = tmp_path / "folder.png"
    with pytest.raises(IsADirectoryError, match="is a folder; expected"), whole_file(folder, force=force):
        pytest.fail("the block ran")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@posix
def test_link_to_nowhere_counts_as_a_file_that_is_there(target):
    target.symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="exists already"), whole_file(target):
        pytest.fail("the block ran")
    assert target.is_symlink()


def test_folder_that_cannot_be_written_to_is_told_by_the_name_that_was_given(target, monkeypatch):
    def refuse(*, dir, prefix, suffix):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{dir}/{prefix}x7f{suffix}")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError) as caught, whole_file(target):
        pytest.fail("the block ran")
    assert caught.value.filename == str(target)


def test_longest_name_that_a_file_system_allows_can_be_written(tmp_path):
    name = 251 * "n" + ".npy"
    with whole_file(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert contents(tmp_path) == {name: b"new"}


def test_readers_never_see_half_a_file(target):
    size, writing, seen = 1 << 16, threading.Event(), []
    target.write_bytes(b"a" * size)
    writing.set()

    def read():
        while writing.is_set():
            with contextlib.suppress(PermissionError):  # Windows, in the moment of the move
                seen.append(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        letter = b"ab"[i % 2 : i % 2 + 1]
        with whole_file(target, force=True) as temporary, temporary.open("wb") as file:
            for _ in range(16):
                file.write(letter * (size // 16))
                file.flush()
    writing.clear()
    reader.join()
    assert set(seen) <= {b"a" * size, b"b" * size}
    assert len(seen) > 10
