import numpy as np

from npattn import ops
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.planting import completed
from tests.oracle.mistakes.plain import draw


def test_gradients_are_added_up_over_the_heads_that_read_a_head_of_keys_were_they_in_turn():
    """Heads 0, 3 for 0, 1; 1, 4 for 2, 3; 2, 5 for 4, 5."""
    name = "repeat: gradient: added up over heads in turn, not over groups"
    (mistake,) = (one for one in MISTAKES if str(one) == name)
    x, dy = draw(2, 3, 4, 5), draw(2, 6, 4, 5)
    given, _ = completed(ops.repeat, (x, 2, 1), {})
    y, backward = mistake.apply(ops.repeat, *given)
    assert mistake.when(*given)
    assert np.array_equal(y, np.repeat(x, 2, axis=1))
    assert np.allclose(backward(dy), dy[:, :3] + dy[:, 3:])


def test_one_head_of_keys_is_added_up_over_all_heads_either_way():
    name = "repeat: gradient: added up over heads in turn, not over groups"
    (mistake,) = (one for one in MISTAKES if str(one) == name)
    assert not mistake.when(draw(2, 1, 4, 5), 6, 1)
    assert not mistake.when(draw(2, 6, 4, 5), 1, 1)
