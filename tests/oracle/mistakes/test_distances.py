from types import SimpleNamespace

import numpy as np

from npattn.oracle.mistakes.distances import Misfit, Ruler


def ruler(got, right, *, limits=(5.0, 0.25), freedom=1e9):
    case = SimpleNamespace(
        expected={"y": np.array(right)},
        budget={"y": np.full(len(right), 0.1)},
        limits={"y": limits},
        freedom={"y": freedom},
    )
    return Ruler(case, {"y": np.array(got)})


def test_a_result_is_as_far_off_as_its_worst_error_or_their_root_mean_square():
    right = np.ones(4)
    for errors, distance in (([0.05] * 4, 2.0), ([2.0, 0, 0, 0], 40.0)):
        assert np.isclose(ruler(right + errors, right).measure({"y": right}).worst, distance)
    assert np.isclose(ruler(right + errors, right, limits=(5.0, 1e9)).measure({"y": right}).worst, 4.0)


def test_errors_are_allowed_to_be_larger_as_a_mistake_makes_the_result_larger():
    """A mistake in one number of four: the three that are right have errors as large as the whole result is."""
    found = ruler([1.0, 1.0, 1.0, 5.0], np.ones(4)).units("y", np.array([1.0, 1.0, 1.0, 5.0]))
    growth = np.sqrt(28 / 4)
    assert np.allclose(found, np.array([0.1, 0.1, 0.1, 0.5]) * growth)


def test_the_likelihood_of_a_pass_counts_no_more_numbers_than_are_free():
    one, other = Misfit({}, {"y": 1.0}), Misfit({}, {"y": np.exp(2.0)})
    for freedom, logarithm in ((2.0, 2.0), (1e9, 4.0)):
        assert np.isclose(ruler([1.0] * 4, np.ones(4), freedom=freedom).better(one, other), logarithm, rtol=1e-3)
