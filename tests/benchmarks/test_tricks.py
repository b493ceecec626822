import pytest

from npattn import ops
from npattn.ops.primitive import PRIMITIVES
from tests.benchmarks import compare, tricks


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(compare, "SHAPE", (2, 16, 6, 5))
    monkeypatch.setattr(compare, "SHAPES", {})


def test_every_way_can_be_put_aside_and_comes_back_to_its_place():
    before = [list(primitive.ways) for primitive in PRIMITIVES]
    names = {way.compute.__name__ for primitive in PRIMITIVES for way in primitive.ways}
    assert names < set(tricks.tricks())
    for name, trick in tricks.tricks().items():
        with trick():
            left = {way.compute.__name__ for primitive in PRIMITIVES for way in primitive.ways}
            assert names - left == ({name} & names)
    assert [list(primitive.ways) for primitive in PRIMITIVES] == before


def test_ways_that_a_system_takes_are_noted(monkeypatch):
    monkeypatch.setattr(compare, "SHAPE", (2, 64, 40, 40))
    assert "gate_block_by_block" in tricks.ways_taken("se")
    assert "attention_in_blocks" not in tricks.ways_taken("se")


def test_a_trick_that_makes_a_pass_quicker_has_a_ratio_above_1(monkeypatch):
    used = [True]
    times = iter([3.0, 1.0, 1.0, 3.0, 3.0, 1.0])

    class Trick:
        def __enter__(self):
            used[0] = False

        def __exit__(self, *_):
            used[0] = True

    def seconds():
        time = next(times)
        assert (time == 3.0) is not used[0]
        return time

    assert tricks.ratio_without(seconds, Trick, repeats=3) == 3.0


def test_the_table_names_what_each_trick_brings(tiny, monkeypatch, capsys):
    monkeypatch.setattr(tricks, "ratio_of_processes", lambda *_: 1.5)
    monkeypatch.setattr(tricks, "ratio_without", lambda *_: 1.01)
    tricks.main(["se"])
    out = capsys.readouterr().out
    assert "freed memory kept                 1.50  se\n" in out
    assert "threads                           1.01  se  LITTLE\n" in out
    assert "attention_in_blocks                  -  taken by none of these systems" in out
    assert ops.dot_product_attention.ways


def test_a_process_prints_the_time_of_a_pass(tiny, capsys):
    tricks.main(["se", "--switch", "KEEP_FREED_MEMORY=True"])
    assert float(capsys.readouterr().out) > 0
