import contextlib
import errno
import os
import re
import socket
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn.files import check_path, describe_kind, discard_unfinished, one_line, whole_file
from tests.strategies import CHARACTERS

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


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["folder/", "new/", "file/", "new/.", "new/..", ".", "..", "/", "folder/."])
def test_name_of_a_folder_is_none_of_a_file(tmp_path, monkeypatch, force, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(IsADirectoryError, match="a folder; expected the name of a file"), whole_file(name, force=force):
        pytest.fail("the block ran")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"


def put_fifo(path):
    os.mkfifo(path)


def put_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has little room
        bound.bind(path.name)
        os.chdir(here)


def put_link_to(put):
    def link(path):
        put(path.with_name("special"))
        path.symlink_to("special")

    return link


SPECIAL = {
    "is a FIFO": put_fifo,
    "is a socket": put_socket,
    "is a folder": Path.mkdir,
    "is a symbolic link to nothing": lambda path: path.symlink_to("nowhere"),
    "is a symbolic link to a FIFO": put_link_to(put_fifo),
    "is a symbolic link to a socket": put_link_to(put_socket),
    "is a symbolic link to a folder": put_link_to(Path.mkdir),
}


def modes(folder):
    """What stands in a folder: each name's inode and kind."""
    return {path.name: (path.lstat().st_ino, path.lstat().st_mode) for path in folder.iterdir()}


@posix
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("words", SPECIAL)
def test_only_regular_files_are_ever_replaced(target, force, words):
    SPECIAL[words](target)
    before = modes(target.parent)
    with pytest.raises(OSError, match=f"values.npz {words}; expected") as caught, whole_file(target, force=force):
        pytest.fail("the block ran")
    assert "\n" not in str(caught.value)
    assert modes(target.parent) == before


@posix
@pytest.mark.parametrize("words", SPECIAL)
@pytest.mark.parametrize("was", ["nothing", "a file", "a link"])
def test_what_takes_the_place_while_the_block_runs_is_kept(target, was, words):
    if was == "a file":
        target.write_bytes(b"old")
    elif was == "a link":
        target.with_name("linked").write_bytes(b"old")
        target.symlink_to("linked")
    with pytest.raises(OSError, match=f"values.npz {words}; expected"), whole_file(target, force=True) as temporary:
        temporary.write_bytes(b"new")
        target.unlink(missing_ok=True)
        SPECIAL[words](target)
        before = modes(target.parent)
        del before[temporary.name]
    assert modes(target.parent) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("kind", "words"),
    [(stat.S_IFCHR, "a character device"), (stat.S_IFBLK, "a block device"), (0o070000, "no regular file")],
)
def test_devices_and_kinds_unheard_of_are_refused(target, monkeypatch, force, kind, words):
    target.write_bytes(b"old")
    real = os.stat

    def fake(path, *arguments, **options):
        found = real(path, *arguments, **options)
        if Path(path) == target:
            return os.stat_result((kind | 0o666, *found[1:]))
        return found

    monkeypatch.setattr(os, "stat", fake)
    with pytest.raises(FileExistsError, match=f"is {words}; expected"), whole_file(target, force=force):
        pytest.fail("the block ran")
    assert contents(target.parent) == {"values.npz": b"old"}
    assert describe_kind(kind | 0o666) == words


@posix
def test_the_file_that_a_link_leads_to_is_written_and_the_link_stays(target, tmp_path):
    (tmp_path / "deeper").mkdir()
    linked = tmp_path / "deeper" / "linked.dat"
    linked.write_bytes(b"old")
    target.with_name("between").symlink_to("deeper/linked.dat")
    target.symlink_to("between")
    with pytest.raises(FileExistsError, match=r"values\.npz exists already"), whole_file(target):
        pytest.fail("the block ran")
    with whole_file(target, force=True) as temporary:
        assert temporary.parent == linked.parent
        assert temporary.suffix == ".npz"
        temporary.write_bytes(b"new")
    assert contents(linked.parent) == {"linked.dat": b"new"}
    assert target.readlink() == Path("between")
    assert target.read_bytes() == b"new"
    assert not linked.is_symlink()


@posix
def test_a_link_that_is_turned_while_the_block_runs_changes_neither_file(target):
    for name in ("a", "b"):
        target.with_name(name).write_bytes(name.encode())
    target.symlink_to("a")
    with pytest.raises(FileExistsError, match="leads to another file"), whole_file(target, force=True) as temporary:
        temporary.write_bytes(b"new")
        target.unlink()
        target.symlink_to("b")
    assert contents(target.parent) == {"a": b"a", "b": b"b", "values.npz": b"b"}


@posix
def test_a_link_in_a_circle_is_told_by_the_system(target):
    target.symlink_to(target.name)
    with pytest.raises(OSError) as caught, whole_file(target, force=True):
        pytest.fail("the block ran")
    assert caught.value.errno == errno.ELOOP
    assert target.is_symlink()


@pytest.mark.parametrize("path", ["", "a\0b", "\0", "half\ud800", "folder\0/a.npz"])
def test_what_is_no_path_is_refused_before_anything_happens(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for refuse in (check_path, lambda path: whole_file(path, force=True).__enter__()):
        with pytest.raises(OSError, match="expected the name of a file"):
            refuse(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, b"a.npz", ["a.npz"]])
def test_what_is_no_text_is_refused_as_a_path(path):
    with pytest.raises(TypeError, match=r"^path=.*; expected a str, or a pathlib.Path"):
        check_path(path)


@posix
def test_a_name_that_is_too_long_is_told_by_the_system(tmp_path):
    with pytest.raises(OSError) as caught, whole_file(tmp_path / (300 * "n")):
        pytest.fail("the block ran")
    assert caught.value.errno == errno.ENAMETOOLONG
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_to_is_told_by_the_name_that_was_given(target, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)  # as a read-only disk does, though there is nothing to remove
    with pytest.raises(PermissionError) as caught, whole_file(target):
        pytest.fail("the block ran")
    assert caught.value.filename == str(target)


def test_a_full_disk_is_told_by_the_name_that_was_given(target):
    with pytest.raises(OSError, match=re.escape(str(target))) as caught, whole_file(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(target):
    target.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError), whole_file(target):
            pytest.fail("the block ran")
    finally:
        target.parent.chmod(0o700)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interruption_while_the_temporary_file_is_made_leaves_nothing(target, monkeypatch, error):
    touch = Path.touch

    def interrupted(path, **options):
        touch(path, **options)
        raise error

    monkeypatch.setattr(Path, "touch", interrupted)
    with pytest.raises(error), whole_file(target):
        pytest.fail("the block ran")
    assert contents(target.parent) == {}


def test_discarding_removes_what_running_blocks_have_written_and_nothing_else(tmp_path):
    with whole_file(tmp_path / "done") as temporary:
        temporary.write_bytes(b"done")
    with (
        pytest.raises(FileNotFoundError),
        whole_file(tmp_path / "a") as one,
        whole_file(tmp_path / "b") as other,
    ):
        one.write_bytes(b"half")
        other.unlink()
        discard_unfinished()
        assert contents(tmp_path) == {"done": b"done"}
    (tmp_path / "a").write_bytes(b"later")
    discard_unfinished()
    assert contents(tmp_path) == {"a": b"later", "done": b"done"}


@given(st.text(CHARACTERS), st.none() | st.integers(10, 50))
def test_one_line_is_printable_and_as_long_as_it_may_be(text, longest):
    line = one_line(text, longest)
    assert line.isprintable()
    assert longest is None or len(line) <= longest
    whole = one_line(text)
    if longest is None or len(whole) <= longest:
        assert line == whole
    else:
        assert len(line) == longest
        assert whole.startswith(line.partition("...")[0])
        assert whole.endswith(line.rpartition("...")[2])


@given(st.text(st.characters(categories=["L", "N", "P", "S"]) | st.just(" ")))
def test_printable_text_stays_as_it_is(text):
    assert one_line(f"<{text}>") == f"<{text}>"


@pytest.mark.parametrize("name", [251 * "n" + ".npy", "n." + 253 * "n"])
def test_longest_name_that_a_file_system_allows_can_be_written(tmp_path, name):
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
