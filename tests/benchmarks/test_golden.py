import re

import pytest

import npattn
from tests.benchmarks import golden


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(golden, "CHANNELS", 16)
    monkeypatch.setattr(golden, "SIZE", (15, 14))


def test_every_system_is_timed_in_every_format(tiny, monkeypatch, capsys):
    monkeypatch.setattr(golden, "time_golden", lambda key, dtype: len(key) + {"bfloat16": 0.5, "float16": 0.25}[dtype])
    monkeypatch.setattr(golden, "time_import", lambda: 0.0625)
    monkeypatch.setattr(golden, "time_check", lambda: 3.0)
    golden.main(["--formats", "float16", "bfloat16"])
    headings, *rows, last = capsys.readouterr().out.splitlines()
    assert headings.split() == ["float16", "bfloat16"]
    assert [row.split() for row in rows] == [
        [key, f"{len(key) + 0.25:.2f}", "s", f"{len(key) + 0.5:.2f}", "s"] for key in npattn.CATALOGUE
    ]
    assert last == "import npattn 0.062 s, npattn check 3.0 s"


@pytest.mark.parametrize("key", npattn.CATALOGUE)
def test_the_module_that_is_timed_is_of_the_size_that_is_said(key, tiny, monkeypatch):
    made = []
    monkeypatch.setattr(golden.oracle, "golden", lambda module, **options: made.append((module, options)))
    assert golden.time_golden(key, "float16") >= 0
    ((module, options),) = made
    assert (module.key, module.channels) == (key, 16)
    assert options == {"batch": 1, "height": 15, "width": 14, "dtype": "float16"}


def test_one_system_alone_is_made_and_timed(tiny, capsys):
    golden.main(["eca", "--formats", "float32"])
    assert re.fullmatch(r" +float32\neca +\d+\.\d\d s\n", capsys.readouterr().out)


def test_the_import_is_timed_in_a_fresh_process():
    assert 0 < golden.time_import(repeats=1) < 30


def test_an_unknown_system_is_refused(capsys):
    with pytest.raises(SystemExit):
        golden.main(["ecaa"])
    assert "unknown system 'ecaa'" in capsys.readouterr().err
