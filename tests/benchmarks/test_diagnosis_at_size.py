import dataclasses

import pytest

from tests.benchmarks import diagnosis, diagnosis_at_size
from tests.benchmarks.trials import Trial, named


def test_so_many_mistakes_are_planted_and_timed():
    trials = diagnosis_at_size.measure_at_size("eca", (1, 4, 6, 5), "float16", 2, 0)
    assert len(trials) == 2 and all(map(named, trials))
    assert all(trial.complete and trial.seconds > 0 for trial in trials)
    lines = diagnosis_at_size.report_at_size(trials, 3)
    assert lines[1].split()[:6] == ["eca", "2", "2", "0", "0", "0"] and lines[-1] == "first: 100.0 %"


def test_mistakes_are_drawn_from_several_ways_and_primitives_and_again_alike():
    (module, *_) = diagnosis.modules_of("cbam")
    case = diagnosis.golden(module, batch=1, height=5, width=4, dtype="float16", certify=False)
    chosen = diagnosis_at_size.drawn(case, 0)
    first = [one for one, _ in chosen[:6]]
    assert len({one.way for one in first}) >= 3 and len({one.primitive for one in first}) >= 3
    assert chosen == diagnosis_at_size.drawn(case, 0) != diagnosis_at_size.drawn(case, 1)


def test_what_was_cut_off_and_not_named_is_counted():
    right = Trial("eca", "", "float16", "a", 1, True, 1, "said", seconds=1.0)
    cut = dataclasses.replace(right, rank=0, said="", sure=False, seconds=4.0, complete=False)
    lines = diagnosis_at_size.report_at_size([right, cut], 1)
    assert lines[1].split() == ["eca", "2", "1", "1", "1", "0", "2.5", "s", "4.0", "s"]


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,0", "a"])
def test_a_shape_is_four_positive_numbers(text):
    assert diagnosis.shape_of("1,64,32,16") == (1, 64, 32, 16)
    with pytest.raises(ValueError, match=text):
        diagnosis.shape_of(text)
