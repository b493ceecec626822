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


def test_an_order_that_parts_a_name_from_its_namesake_is_none_to_go_by():
    targets = dict.fromkeys(("t.weight", "p.weight", "g.weight"), (8, 16))
    theirs = dict.fromkeys(("g.conv.weight", "theta.conv.weight", "phi.conv.weight"), (8, 16))
    assert pair_names(theirs, targets) == {}
    in_order = {name: theirs[name] for name in ("theta.conv.weight", "phi.conv.weight", "g.conv.weight")}
    assert pair_names(in_order, targets) == dict(zip(in_order, targets, strict=True))
