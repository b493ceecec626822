import pytest

import npattn
from npattn.oracle import golden

CASES = {
    "no ties": (npattn.EfficientChannelAttention(4), "float16", 8 + 2 + 1),
    "in float32": (npattn.EfficientChannelAttention(4), "float32", 8 + 1),
    "near ties": (npattn.SqueezeExcitation(64, 1), "bfloat16", 8 + 12 + 2 + 1),
    "gradients that vanish": (npattn.PositionAttention(64), "float16", 8 + 2 + 1 + 1),
}


@pytest.mark.parametrize(("module", "dtype", "passes"), CASES.values(), ids=CASES)
def test_every_pass_is_counted_and_nothing_is_left_at_the_end(module, dtype, passes):
    seen = []
    golden(module, height=4, width=5, dtype=dtype, progress=lambda *state: seen.append(state))
    done, expected = zip(*seen, strict=True)
    assert list(done) == list(range(1, passes + 1))
    assert list(expected) == sorted(expected)
    assert all(n <= m for n, m in seen)
    assert done[-1] == expected[-1]


def test_a_case_without_its_certificate_takes_one_pass_less():
    seen = []
    golden(
        npattn.EfficientChannelAttention(4),
        height=4,
        width=5,
        certify=False,
        progress=lambda *state: seen.append(state),
    )
    assert seen[-1] == (10, 10)


def test_what_is_told_may_end_it():
    def interrupt(done, expected):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        golden(npattn.EfficientChannelAttention(4), height=4, width=5, progress=interrupt)


def test_what_cant_be_called_is_refused():
    with pytest.raises(TypeError, match="golden: progress=True is a bool; expected a function of two numbers"):
        golden(npattn.EfficientChannelAttention(4), progress=True)
