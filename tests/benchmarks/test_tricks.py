from types import SimpleNamespace

import numpy as np
import pytest

from npattn.fast import blocks, joining, machine, threads
from npattn.ops.context import CONTEXT
from npattn.ops.primitive import PRIMITIVES
from tests.benchmarks import compare, tricks


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(compare, "SHAPE", (2, 16, 6, 5))
    monkeypatch.setattr(compare, "SHAPES", {})


def all_ways():
    return [list(primitive.ways) for primitive in PRIMITIVES]


def test_every_way_can_be_put_aside_and_comes_back_to_its_place():
    before = all_ways()
    names = {way.compute.__name__ for ways in before for way in ways}
    assert names < set(tricks.tricks())
    for name, trick in tricks.tricks().items():
        with trick():
            left = {way.compute.__name__ for ways in all_ways() for way in ways}
            assert names - left == ({name} & names)
        assert all_ways() == before


def test_threads_and_all_ways_can_be_put_aside(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 3)
    with tricks.tricks()["threads"]():
        assert threads.num_threads() == 1
    assert threads.num_threads() == 3
    with tricks.tricks()["all ways"]():
        assert CONTEXT.get().definitions_only
    assert not CONTEXT.get().definitions_only


def test_powers_of_2_can_be_put_aside(monkeypatch):
    monkeypatch.setattr(machine, "has_quick_powers_of_two", lambda: True)
    with tricks.tricks()["powers of 2"]():
        assert not machine.has_quick_powers_of_two()
    assert machine.has_quick_powers_of_two()


def test_small_maps_can_be_shared_out():
    small = np.empty((8, 4, 5))
    with tricks.tricks()["small maps on one thread"]():
        assert len(blocks.blocks(small, 0)) > 1
    assert len(blocks.blocks(small, 0)) == 1


def test_memory_of_blocks_can_be_taken_anew():
    memory = threads.ReusedMemory(np.empty(0, np.float32))
    first, again = memory((3, 2)), memory((2,))
    with tricks.tricks()["memory used again by blocks"]():
        anew = memory((3, 2))
    assert np.shares_memory(first, again)
    assert not np.shares_memory(first, anew)
    assert (anew.shape, anew.dtype) == ((3, 2), np.float32)


def test_operands_can_be_laid_out_as_numpy_does_by_itself():
    sizes = []
    with tricks.tricks()["operands not laid out"]():
        threads.parallel_for(lambda _: sizes.append(np.getbufsize()), range(1))
    assert sizes == [np.getbufsize()] != [threads.BUFFER_SIZE]


def test_copies_can_be_left_to_numpy(monkeypatch):
    monkeypatch.setattr(np, "copyto", lambda target, source: target.fill(7))
    target = np.empty((2, 3))
    with tricks.tricks()["copies by products"]():
        joining.copy_in_blocks((target, np.ones((2, 3))))
    assert (target == 7).all()


def test_ways_that_a_system_takes_are_noted(monkeypatch):
    before = all_ways()
    monkeypatch.setattr(compare, "SHAPE", (2, 64, 40, 40))
    assert "gate_block_by_block" in tricks.ways_taken("se")
    monkeypatch.setattr(compare, "SHAPE", (2, 16, 6, 5))  # which they don't suit
    assert "gate_block_by_block" not in tricks.ways_taken("se")
    assert all_ways() == before


def test_a_pass_is_timed_after_one_that_is_not(monkeypatch):
    log, clock = [], iter([10.0, 12.5])
    passes = lambda: log.append("forward"), lambda: log.append("backward")
    monkeypatch.setattr(compare, "numpy_passes", lambda _: passes)
    monkeypatch.setattr(tricks.time, "perf_counter", lambda: log.append("clock") or next(clock))
    assert tricks.time_pass("se")() == 2.5
    assert log == ["forward", "backward", "clock", "forward", "backward", "clock"]


def test_a_trick_that_makes_a_pass_quicker_has_a_ratio_above_1():
    used = [True]
    times = iter([3.0, 1.0, 100.0, 3.0, 3.0, 1.0])  # of which one was disturbed: what counts is the median

    class Trick:
        def __enter__(self):
            used[0] = False

        def __exit__(self, *_):
            used[0] = True

    def seconds():
        time = next(times)
        assert (time == 3.0) is not used[0]  # the two in turns, each first as often as the other
        return time

    assert tricks.ratio_without(seconds, Trick, repeats=3) == 3.0


def test_the_times_of_processes_with_and_without_a_trick_make_a_ratio(monkeypatch):
    asked, seconds = [], iter(["3", "1", "1", "3", "3", "1"])

    def run(command, **options):
        assert options["check"]
        asked.append(command[2:])
        return SimpleNamespace(stdout=next(seconds) + "\n")

    monkeypatch.setattr(tricks.subprocess, "run", run)
    assert tricks.ratio_of_processes("eca", "KEEP_FREED_MEMORY", 3) == 3.0
    assert asked == [
        ["eca", "--switch", f"KEEP_FREED_MEMORY={used}"] for used in (False, True, True, False, False, True)
    ]


def test_the_table_names_what_each_trick_brings_to_the_system_that_it_brings_most(tiny, monkeypatch, capsys):
    monkeypatch.setattr(tricks, "ratio_of_processes", lambda key, switch, _: {"se": 1.5, "eca": 1.2}[key])
    monkeypatch.setattr(tricks, "ratio_without", lambda *_: 1.01)
    monkeypatch.setattr(tricks, "WORTH", 1.3)
    tricks.main(["se", "eca"])
    out = capsys.readouterr().out
    ways = ", ".join(f"{name} 1.01" for name in tricks.ANYWHERE)
    assert f"eca: {ways}, helpers off the caller's core 1.20, freed memory kept 1.20\n" in out
    assert "freed memory kept                 1.50  se\n" in out
    assert "threads                           1.01  se  LITTLE\n" in out
    assert "attention_in_blocks                  -  taken by none of these systems" in out


@pytest.mark.parametrize("used", [True, False])
def test_a_process_prints_the_time_of_a_pass_with_its_switch_set(tiny, monkeypatch, capsys, used):
    monkeypatch.setattr(machine, "KEEP_FREED_MEMORY", None)
    seen = []
    monkeypatch.setattr(tricks, "time_pass", lambda key: lambda: seen.append((key, machine.KEEP_FREED_MEMORY)) or 0.5)
    tricks.main(["se", "--switch", f"KEEP_FREED_MEMORY={used}"])
    assert float(capsys.readouterr().out) == 0.5
    assert set(seen) == {("se", used)}


def test_every_threshold_is_halved_and_doubled_wherever_it_is_known_and_comes_back():
    found = tricks.thresholds()
    assert not any(name.split()[0] in tricks.FACTS for name in found)
    assert {"MIN_PARALLEL_SIZE half", "MAX_LAID_RATIO twice", "MIN_TILED_CHANNELS half"} <= set(found)
    knowing = [module for module in tricks.FAST if hasattr(module, "MIN_PARALLEL_SIZE")]
    before = blocks.MIN_PARALLEL_SIZE
    for word, factor in (("half", 0.5), ("twice", 2)):
        with found[f"MIN_PARALLEL_SIZE {word}"]():
            assert {module.MIN_PARALLEL_SIZE for module in knowing} == {before * factor}
    assert {module.MIN_PARALLEL_SIZE for module in knowing} == {before}


def test_the_table_of_thresholds_names_those_that_another_value_beats(tiny, monkeypatch, capsys):
    monkeypatch.setattr(tricks, "thresholds", lambda: {"MIN_A half": "a", "MAX_B twice": "b"})
    monkeypatch.setattr(tricks, "ratio_without", lambda _, other, __: {"a": 0.9, "b": 1.0}[other])
    tricks.main(["se", "--thresholds"])
    assert capsys.readouterr().out == (
        "se: MIN_A half 0.90, MAX_B twice 1.00\n\nthe lowest ratio of each:\n"
        f"{'MIN_A half':<32}  0.90  se  QUICKER\n{'MAX_B twice':<32}  1.00  se\n"
    )
