import numpy as np

from npattn.oracle.formats import FLOAT64
from npattn.oracle.rounding import Footprint, Rounding


def test_memory_counts_once_for_all_views_until_the_last_is_gone():
    footprint = Footprint()
    whole = np.zeros(100)
    part = whole[::2]
    for array in (whole, part, whole.reshape(10, 10).T):
        footprint.add(array)
    assert footprint.bytes == footprint.peak == whole.nbytes
    del whole, array
    assert footprint.bytes == 2 * part.nbytes
    del part
    assert (footprint.bytes, footprint.peak) == (0, 800)


def test_what_a_run_computes_is_counted_while_it_is_held():
    rounding = Rounding(FLOAT64)
    rounding.footprint = Footprint()
    x = rounding.array(np.ones((100, 10)))
    assert rounding.footprint.bytes == 8000
    y = np.exp(x)[5:]
    z = np.concatenate([y, y])
    assert rounding.footprint.bytes == 2 * 8000 + z.nbytes
    del z
    total = sum((x * x).sum() for _ in range(9))
    assert np.isfinite(total)
    assert rounding.footprint.bytes == 2 * 8000 + 8
    assert rounding.footprint.peak < 6 * 8000


def test_the_size_of_what_a_run_makes_is_averaged_over_all_of_it():
    rounding = Rounding(FLOAT64)
    rounding.footprint = Footprint()
    assert rounding.footprint.mean == 0
    x = rounding.array(np.ones(100))
    assert rounding.footprint.mean == 800
    for _ in range(3):
        np.exp(x)
    x.sum()
    assert rounding.footprint.mean == (4 * 800 + 8) / 5
