import errno
import os
import sys

import pytest

from npattn import CATALOGUE
from tests.cli.running import assert_one_complaint


@pytest.mark.parametrize(
    "text", ["75", "75,", ",3", "", "200,0", "0,300", "-1,3", "1.5,2", "7x5", "1,2,3", " 1,2", "1,2\n"]
)
def test_bad_pixel_is_refused_with_what_was_given(command, folder, text):
    assert_one_complaint(
        command("show", "pam", f"--at={text}"),
        "npattn show: argument --at: ",
        f"{text!r} is no pixel",
        "expected ROW,COLUMN from 0,0 to 199,299, such as 75,115",
    )
    assert list(folder.iterdir()) == []


def test_a_pixel_is_refused_where_there_is_no_attention_to_draw_from_it(command, folder):
    assert_one_complaint(
        command("show", "se", "--at", "75,115"),
        "npattn show: --at: se has no attention from one pixel to the others; expected one of pam",
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["se.gif", "se", ".png", "", "se.png.txt", "folder/", "."])
def test_show_refuses_unknown_kinds_of_picture(command, folder, name):
    pytest.importorskip("matplotlib")
    assert_one_complaint(command("show", "se", "-o", name), f"npattn show: {name!r}", ".png, .pdf, .svg")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", [None, "other.pdf"])
def test_show_leaves_an_existing_file_untouched(command, folder, name):
    pytest.importorskip("matplotlib")
    path = folder / (name or "se.png")
    path.write_bytes(b"precious")
    result = command("show", "se", *(["-o", name] if name else []))
    assert_one_complaint(result, f"npattn show: {path.name} exists already", "--force")
    assert path.read_bytes() == b"precious"
    assert list(folder.iterdir()) == [path]


def test_show_refuses_a_missing_folder(command, folder):
    pytest.importorskip("matplotlib")
    assert_one_complaint(command("show", "se", "-o", "missing/se.png"), "missing/se.png", "there is no folder missing")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_show_refuses_to_replace_a_folder(command, folder, force):
    pytest.importorskip("matplotlib")
    (folder / "se.png").mkdir()
    assert_one_complaint(command("show", "se", *force), "npattn show: se.png is a folder")
    assert [path.name for path in folder.iterdir()] == ["se.png"]


def test_show_on_a_full_disk_keeps_what_was_there(command, folder, monkeypatch):
    pytest.importorskip("matplotlib")
    from npattn import pictures

    class Figure:
        def savefig(self, path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pictures, "draw", lambda module, seed, at: Figure())
    (folder / "se.png").write_bytes(b"old")
    result = command("show", "se", "--force")
    assert_one_complaint(result, f"npattn show: se.png: {os.strerror(errno.ENOSPC)}\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"se.png": b"old"}


def test_show_without_matplotlib_says_what_to_install(command, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "npattn.pictures", None)
    assert_one_complaint(command("show", "se"), "matplotlib can't be imported", "pip install 'npattn[plot]'")
    assert list(folder.iterdir()) == []


@pytest.fixture
def drawn(monkeypatch):
    """Let a picture be something that is quickly drawn: what is asked for."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from npattn import pictures

    asked = []

    def draw(module, seed, at):
        asked.append((module, seed, at))
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([0, 1])
        return figure

    monkeypatch.setattr(pictures, "draw", draw)
    return asked


def test_show_passes_system_seed_and_pixel_on(command, drawn, folder):
    assert command("show", "pam", "--at", "3,299", "--seed", "7")[0] == 0
    assert command("show", "pam", "--force")[0] == 0
    assert drawn == [(CATALOGUE["pam"].example(), 7, (3, 299)), (CATALOGUE["pam"].example(), 0, None)]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("eca.png", b"\x89PNG\r\n"),
        ("eca.PNG", b"\x89PNG\r\n"),
        ("eca.pdf", b"%PDF-"),
        ("eca.jpg", b"\xff\xd8\xff"),
        ("eca.jpeg", b"\xff\xd8\xff"),
        ("eca.svg", b"<?xml"),
        ("of a cat.v2.svg", b"<?xml"),
    ],
)
def test_name_decides_the_format(command, name, start, drawn, folder):
    assert command("show", "eca", "-o", name) == (0, f"{name}\n", "")
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_bytes().startswith(start)


def test_force_replaces_a_picture(command, drawn, folder):
    (folder / "eca.png").write_bytes(b"old")
    assert command("show", "eca", "--force")[0] == 0
    assert (folder / "eca.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert [path.name for path in folder.iterdir()] == ["eca.png"]
