import re

import numpy as np
import pytest

from tests.pictures.drawing import panels_of


def test_gates_of_the_same_queries_and_values_are_drawn_with_their_ranges_those_of_the_code_next_to_a_half():
    pytest.importorskip("npattn.pictures.softmaxes")
    ranges = {}
    for axes in panels_of("polarized").axes:
        found = re.match(r"(of the .*)\n.*: (.*) to (.*)$", axes.get_title())
        if found:
            gate = np.asarray(axes.images[0].get_array())
            ranges[found[1]] = gate.min(), gate.max()
            assert (float(found[2]), float(found[3])) == pytest.approx(ranges[found[1]], abs=6e-6)
    assert list(ranges) == ["of the products", "of the values", "of the mean query"]
    assert 0.5 < ranges["of the products"][0] < ranges["of the products"][1] < 0.51
    assert 0.49 < ranges["of the values"][0] < ranges["of the values"][1] < 0.51
    assert np.ptp(ranges["of the mean query"]) > 0.1
