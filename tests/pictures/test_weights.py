import numpy as np
import pytest

weights = pytest.importorskip("npattn.pictures.weights")


@pytest.mark.parametrize("spread", [0.01, 1, 100])
def test_scores_are_sharpened_until_half_of_the_weight_is_on_a_hundredth(spread):
    scores = spread * np.random.RandomState(0).standard_normal(15_000)
    spread_out = np.exp(weights.sharpness(scores) * (scores - scores.max()))
    assert weights.half_share(spread_out) == pytest.approx(weights.HALF_SHARE, rel=0.2)


def test_half_of_the_weight_is_counted_from_the_largest():
    assert weights.half_share(np.ones(10)) == pytest.approx(0.5, abs=0.11)
    assert weights.half_share(np.eye(8)[3]) == 1 / 8
    assert weights.half_share(np.array([0.1, 0.6, 0.1, 0.2])) == 1 / 4
