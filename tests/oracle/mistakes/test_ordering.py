import numpy as np

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.locating import Place
from npattn.oracle.mistakes.ordering import Order, calls_in, with_every
from npattn.oracle.mistakes.planting import EVERY, planted


def find(name, way):
    return next(one for one in MISTAKES if str(one) == name and one.way == way)


LOST = find("linear: lost bias", "carried")
DROPPED = find("linear: gradient: dx dropped", "backward")


def test_a_mistake_may_stand_in_every_call_and_in_those_that_are_alike():
    kinds = {("linear", 0): "small", ("linear", 1): "large", ("linear", 2): "large", ("linear", 3): "large"}
    tags = {("linear", n): Place(tag=tag) for n, tag in enumerate(["(1)", "(2)", "(2)", "(3)"])}
    found = with_every({LOST: [0, 1, 2, 3]}, kinds, tags)[LOST]
    assert found == [0, 1, 2, 3, EVERY, (1, 2, 3), (1, 2)]
    assert with_every({LOST: [2]}, kinds, tags)[LOST] == [2]
    assert calls_in(EVERY, found) == [0, 1, 2, 3]
    assert calls_in((1, 2), found) == [1, 2]


def test_a_mistake_stands_in_the_calls_that_it_is_given_and_in_no_other():
    module = npattn.SqueezeExcitation(channels=4, reduction=2)
    params, inputs = generic_values(module, batch=2, height=3, width=4)

    def run(module, *given):
        return named_results(module, Given(*given))

    given = params, inputs, {"output": inputs["x"]}
    both, first, second = (planted(run, [(LOST, site)])(module, *given)["output"] for site in ((0, 1), (0,), 1))
    alone = planted(run, [(LOST, 0)])(module, *given)["output"]
    assert np.array_equal(first, alone)
    assert not np.allclose(first, second)
    assert np.array_equal(both, planted(run, [(LOST, EVERY)])(module, *given)["output"])


def test_what_would_change_right_results_is_tried_later():
    fed = {
        ("linear", 0): ({"output", "a.grad"}, {"a.grad"}),
        ("linear", 1): ({"output", "b.grad", "c.grad"}, {"b.grad", "c.grad"}),
    }
    order = Order({LOST: [0, 1]}, {"linear": 2}, fed, wrong={"output"}, given={"output", "a.grad"}, forward_wrong=True)
    assert order.in_turn(list(order.one_by_one())) == ([(LOST, 1), (LOST, 0)], [])


def test_what_can_not_explain_all_that_is_wrong_comes_last():
    fed = {("linear", 0): ({"a.grad", "b.grad"}, {"a.grad"}), ("linear", 1): ({"b.grad"}, {"b.grad"})}
    given = {"a.grad", "b.grad"}
    order = Order({DROPPED: [0, 1]}, {"linear": 2}, fed, wrong={"a.grad"}, given=given, forward_wrong=False)
    assert order.in_turn(list(order.one_by_one())) == ([(DROPPED, 0)], [(DROPPED, 1)])


def test_formats_whose_errors_are_none_in_the_kernels_come_last():
    narrow, even = (find(f"linear: operands in {name}", "carried") for name in ("bfloat16", "float16"))
    places = {even: [0], narrow: [0]}
    options = {"wrong": {"output"}, "given": {"output"}, "forward_wrong": True}
    for last, expected in (("in float16",), [narrow, even]), ((), [even, narrow]):
        likely, _ = Order(places, {"linear": 1}, {}, **options, last=last).in_turn([(even, 0), (narrow, 0)])
        assert [one for one, _ in likely] == expected


def test_mistakes_of_forward_come_behind_those_of_backward_where_its_results_are_right():
    fed = {("linear", 0): ({"output", "a.grad", "b.grad"}, {"a.grad", "b.grad"})}
    options = {"wrong": {"a.grad"}, "given": {"output", "a.grad", "b.grad"}}
    places = {LOST: [0], DROPPED: [0]}
    for forward_wrong, expected in ((False, [DROPPED, LOST]), (True, [LOST, DROPPED])):
        order = Order(places, {"linear": 1}, fed, **options, forward_wrong=forward_wrong)
        likely, _ = order.in_turn([(one, 0) for one in reversed(expected)])
        assert [one for one, _ in likely] == expected


def test_formats_whose_errors_are_as_large_as_the_kernels_come_first_of_their_call():
    narrow = find("linear: operands in bfloat16", "carried")
    others = [one for one in MISTAKES if one.primitive == "linear" and one.way == "carried" and one != narrow]
    places = {one: [0] for one in [*others, narrow]}
    options = {"wrong": {"output"}, "given": {"output"}, "forward_wrong": True}
    at = []
    for first in ("in bfloat16",), ():
        order = Order(places, {"linear": 1}, {}, **options, first=first)
        likely, _ = order.in_turn(list(order.one_by_one()))
        at.append(likely.index((narrow, 0)))
    assert at[0] < at[1] // 2


def test_some_calls_of_several_come_behind_one_alone():
    places = {LOST: [0, 1, 2, (1, 2)]}
    order = Order(places, {"linear": 3}, {}, wrong={"output"}, given={"output"}, forward_wrong=True)
    assert order.in_turn([(LOST, (1, 2)), (LOST, 0)]) == ([(LOST, 0), (LOST, (1, 2))], [])
