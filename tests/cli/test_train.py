import re

import pytest

from npattn.cli.train import chart
from npattn.training import SYSTEMS
from npattn.training.steps import NUM_MAPS
from tests.cli.running import assert_one_complaint


@pytest.fixture
def few(monkeypatch):
    """Fewer maps, so that a run takes no second."""
    monkeypatch.setitem(NUM_MAPS, "train", 40)
    monkeypatch.setitem(NUM_MAPS, "test", 20)


def test_training_prints_the_loss_and_how_many_pixels_are_right(command, few):
    status, out, err = command("train", "pam+cam", "--epochs", "2", "--seed", "3")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "pam+cam: PositionAndChannelAttention in a network of 12,116 parameters"
    assert lines[1] == "loss over 8 steps of 2 epochs:"
    assert lines[2:15] == [line for line in lines[2:15] if re.match(r"(\d\.\d\d|    ) \||     \+--------", line)]
    assert sum(line.count("*") for line in lines[2:14]) == 8
    assert [line.partition(":")[0] for line in lines[15:17]] == ["attention.sa.gamma", "attention.sc.gamma"]
    assert re.fullmatch(
        r"test maps: [\d.]+% of pixels right, [\d.]+% of the digits' pixels; mean IoU 0\.\d+", lines[17]
    )
    assert len(lines) == 18


def test_the_same_seed_prints_the_same_and_another_does_not(command, few):
    first, second, other = (command("train", "se", "--epochs=1", f"--seed={seed}")[1] for seed in (0, 0, 1))
    assert "of 1 epoch:" in first
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "see"], ["npattn train: unknown system 'see'; did you mean 'se'", *SYSTEMS]),
        (["train", "none", "--epochs", "0"], ["argument --epochs: '0' is no number of epochs; expected", "1 to 100"]),
        (["train", "none", "--epochs", "1.5"], ["'1.5' is no number of epochs"]),
        (["train", "none", "--seed", "-1"], ["npattn train: argument --seed: "]),
        (["train", "none", "--plot", "loss.gif"], ["npattn train: 'loss.gif': unknown kind of picture", ".png"]),
        (["train"], ["npattn train: the following arguments are required: KEY"]),
    ],
)
def test_bad_input_is_refused_on_one_line(command, folder, arguments, words):
    pytest.importorskip("matplotlib")
    assert_one_complaint(command(*arguments), *words)
    assert list(folder.iterdir()) == []


def test_a_picture_that_is_there_is_kept_and_no_time_is_spent(command, folder, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("npattn.cli.train.train", None)
    (folder / "loss.png").write_bytes(b"precious")
    assert_one_complaint(command("train", "none", "--plot", "loss.png"), "loss.png exists already", "--force")
    assert (folder / "loss.png").read_bytes() == b"precious"


def test_the_loss_is_drawn_into_a_picture(command, folder, few):
    pytest.importorskip("matplotlib")
    status, out, _ = command("train", "none", "--epochs=1", "--plot", "loss.png")
    assert (status, out.splitlines()[-1]) == (0, "loss.png")
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_progress_is_a_bar_on_a_terminal(command, few, monkeypatch):
    said = []
    monkeypatch.setattr("npattn.cli.train.progress", said.append)
    command("train", "none", "--epochs", "1")
    assert said[0].startswith("[" + "#" * 7 + "." * 23 + "] step 1 of 4, loss ")
    assert said[3].startswith("[" + "#" * 30 + "] step 4 of 4, loss ")
    assert said[4:] == [""]
    assert max(map(len, said)) < 80


def test_a_falling_curve_falls_from_the_first_row_to_the_last():
    lines = chart([2.0 ** (-i / 4) for i in range(12)]).splitlines()
    assert [line.index("*") for line in lines[:12]] == list(range(6, 18))
    assert (lines[0][:4], lines[11][:4]) == ("1.00", "0.15")


@pytest.mark.parametrize("losses", [[1.0], [0.5] * 100])
def test_a_constant_loss_is_a_line(losses):
    assert chart(losses).splitlines()[0] == "x.xx |".replace("x.xx", f"{losses[0]:.2f}") + "*" * min(64, len(losses))


def test_a_loss_that_is_not_finite_is_said_so():
    assert "not finite" in chart([1.0, float("nan")])
