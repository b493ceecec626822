import re

import pytest

import npattn
from npattn.oracle import cases, threads
from tests.benchmarks import golden
from tests.naming import for_each


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(golden, "SHAPE", (1, 16, 15, 14))
    monkeypatch.setattr(golden, "LARGE", {"eca": (2, 8, 3, 4)})


def test_every_system_is_measured_in_every_format_on_as_many_cores_as_are_asked_for(tiny, monkeypatch, capsys):
    def made_up(key, shape, dtype, cores):
        return len(key) + shape[0] + {"bfloat16": 0.5, "float16": 0.25}[dtype], 0.125 * cores, cores

    monkeypatch.setattr(golden, "measure_apart", made_up)
    monkeypatch.setattr(golden, "time_import", lambda: 0.0625)
    monkeypatch.setattr(golden, "time_check", lambda: 3.0)
    golden.main(["--formats", "float16", "bfloat16", "--cores", "1", "2"])
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "import npattn 0.062 s, npattn check 3.0 s"
    half = len(lines) // 2
    for cores, (headings, *rows) in ((1, lines[:half]), (2, lines[half:])):
        assert headings.split() == ["on", str(cores), "cores", "float16", "bfloat16"]
        *systems, large = [row.split() for row in rows]
        assert systems == [
            [key, *(x for n in (1.25, 1.5) for x in (f"{len(key) + n:.2f}", "s", f"{cores / 8:.0%}", f"{cores:.1f}×"))]
            for key in npattn.CATALOGUE
        ]
        assert large[:3] == ["eca", "2x8x3x4", "5.25"]


@for_each("key", npattn.CATALOGUE)
def test_the_module_that_is_timed_is_of_the_size_that_is_said(key, monkeypatch):
    made = []

    def note(module, **options):
        made.append((module, options))
        return cases("eca", ["float16"], kinds=["ties"])[0].make()

    monkeypatch.setattr(golden.oracle, "golden", note)
    seconds, share, memory = golden.measure(key, (2, 16, 16, 24), "float16")
    assert seconds >= 0
    assert 0 <= share <= 1
    assert memory < 1
    assert [module.channels for module, _ in made] == [16] * 4
    assert {module.key for module, _ in made} == {key}
    asked = {"batch": 2, "height": 16, "width": 24, "dtype": "float16"}
    assert {module.input_shapes(2, 16, 24).get("x", (2, 16, 16, 24)) for module, _ in made[1:]} == {(2, 16, 16, 24)}
    assert [options for _, options in made[1:]] == [asked | {"certify": True}, asked | {"certify": False}, asked]


def test_one_system_alone_is_made_and_measured_apart(tiny, capsys):
    golden.main(["eca", "--formats", "float32", "--cores", "1"])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["on", "1", "cores", "float32"]
    assert len(rows) == 2
    assert all(re.fullmatch(r"eca( 2x8x3x4)? +\d+\.\d\d s +\d+% +\d+\.\d×", row) for row in rows)


@pytest.mark.parametrize(
    ("option", "rows"), [("also", ["eca", "eca 2x8x3x4"]), ("only", ["eca 2x8x3x4"]), ("none", ["eca"])]
)
def test_large_cases_are_left_out_or_chosen(option, rows, tiny, monkeypatch):
    printed = []
    monkeypatch.setattr(golden, "print_row", lambda name, *_: printed.append(name))
    golden.main(["eca", "--large", option])
    assert printed == rows


def test_as_many_threads_as_are_asked_for_make_a_case_be_there_cores_or_not():
    for count in (1, 5):
        with golden.on_threads(count), threads.pass_threads() as pool:
            assert pool.count == count


def test_cases_of_sweeps_that_take_too_long_are_named_slowest_first(monkeypatch, capsys):
    monkeypatch.setattr(golden.oracle, "cases", lambda key, formats: cases(key, formats, kinds=["ties", "empty"]))
    golden.main(["eca", "--sweeps", "--formats", "float16", "--over", "0", "--memory", "--cores", "1"])
    total, *slow = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"eca +float16 +2 cases +\d+\.\d s, most \d+\.\d\d s", total)
    rows = [re.fullmatch(r" +(\S+) +(\d+\.\d\d) s +(\d+\.\d\d) s +(\d+\.\d)×", line).groups() for line in slow]
    assert sorted(name for name, *_ in rows) == ["eca-float16-0x32x7x9-empty", "eca-float16-3x32x7x9-ties"]
    first, second = (min(float(wall), float(cores)) for _, wall, cores, _ in rows)
    assert first >= second
    assert all(float(multiple) > 1 for *_, multiple in rows)
    golden.main(["eca", "--sweeps", "--formats", "float16", "--over", "inf"])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_import_is_timed_in_a_fresh_process():
    assert 0 < golden.time_import(repeats=1) < 30


def test_an_unknown_system_is_refused(capsys):
    with pytest.raises(SystemExit):
        golden.main(["ecaa"])
    assert "unknown system 'ecaa'" in capsys.readouterr().err
