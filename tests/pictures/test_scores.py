import pytest

from tests.pictures.drawing import figure_of, looks

features = pytest.importorskip("npattn.pictures.features")


def test_picture_of_a_head_names_the_classes_and_what_each_branch_makes_of_them():
    titles = [axes.get_title() for axes in figure_of("danet").axes]
    assert titles[:2] == ["photograph", "both branches"]
    agreeing = [int(title.split("\n")[1].partition("%")[0]) for title in titles[2:4]]
    assert all(20 < share < 100 for share in agreeing)  # five classes by chance agree on a fifth
    assert list(looks(figure_of("danet"))) == [features.EYE, *features.OTHER_PIXELS]
