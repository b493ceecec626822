from npattn.pairing import pair_names


def test_pairs_are_exact_shapes_first_then_endings_then_axes_of_one():
    missing = {"a.weight": (4, 1), "b.weight": (4,), "b.bias": (4,)}
    assert pair_names({"w.bias": (4,)}, missing) == {"w.bias": "b.bias"}
    assert pair_names({"w.kernel": (4,)}, missing) == {"w.kernel": "b.weight"}
    assert pair_names({"w.weight": (4, 1)}, missing) == {"w.weight": "a.weight"}
    assert pair_names({"w": None, "v.weight": (5, 4)}, missing) == {}
    crossed = {"x.weight": (4,), "y.weight": (4, 1)}
    assert pair_names(crossed, missing) == {"x.weight": "b.weight", "y.weight": "a.weight"}
    flat = {"beta": (1, 4), "kernel": (4, 1)}
    assert pair_names(flat, {"a.weight": (4, 1, 1, 1), "a.bias": (4,)}) == {"beta": "a.bias", "kernel": "a.weight"}
    assert pair_names({"norm.moving_variance": (4,)}, {"bn.running_mean": (4,), "bn.running_var": (4,)}) == {
        "norm.moving_variance": "bn.running_var"
    }
