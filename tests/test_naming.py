import pytest

from tests.naming import case, for_each


def test_what_fails_in_a_case_says_in_which():
    with pytest.raises(ValueError, match="wrong") as caught, case(2, "rows"):
        raise ValueError("wrong")
    assert caught.value.__notes__ == ["in the case of 2, 'rows'"]


def test_a_test_of_each_case_goes_through_all_and_raises_all_that_failed():
    seen = []

    @for_each("number", [1, 2, 3])
    @for_each("sign, word", [(1, "a"), (-1, "b")])
    def odd(number, sign, word):
        seen.append((number, sign, word))
        assert number % 2 or sign > 0

    with pytest.raises(AssertionError) as caught:
        odd()
    assert caught.value.__notes__ == ["in the case of -1, 'b'", "in the case of 2"]
    assert seen == [(number, sign, word) for number in (1, 2, 3) for sign, word in ((1, "a"), (-1, "b"))]

    @for_each("number", range(4))
    def none(number):
        assert not number

    with pytest.raises(ExceptionGroup, match="3 of 4 cases") as caught:
        none()
    assert [error.__notes__ for error in caught.value.exceptions] == [[f"in the case of {n}"] for n in (1, 2, 3)]


@pytest.mark.parametrize("times", [2, 3])
@for_each("number", [1, 2])
def test_fixtures_and_parameters_reach_every_case(tmp_path, number, times):
    (tmp_path / str(number)).write_text(str(times * number))
    assert [int(path.read_text()) for path in sorted(tmp_path.iterdir())] == [times * n for n in range(1, number + 1)]
