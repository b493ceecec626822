from tests.pictures.drawing import panels_of


def test_as_many_positions_are_marked_as_are_chosen():
    drawn = [axes for axes in panels_of("soft-hard").axes if axes.get_title().startswith("k = ")]
    for axes in drawn:
        k = int(axes.get_title().split()[2].rstrip(":"))
        assert len(axes.collections[0].get_offsets()) == k
    assert len(drawn) == 5
