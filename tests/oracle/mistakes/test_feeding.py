import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.feeding import fed_by_calls
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.mistake import gradient, value
from npattn.oracle.mistakes.planting import planted
from npattn.oracle.mistakes.replaying import same


def run(module, *given):
    return named_results(module, Given(*given))


def moved(a, *_, **__):
    if isinstance(a, tuple):
        return tuple(map(moved, a))
    return None if a is None else 1.5 * a


def test_what_a_call_feeds_is_all_that_changes_with_it_and_no_more():
    module = npattn.CATALOGUE["danet"].example()
    params, inputs = generic_values(module, batch=2, height=4, width=3)
    outputs = module(params, *inputs.values()).output
    given = params, inputs, {f"output.{i}": y for i, y in enumerate(outputs)}
    right, fed = run(module, *given), fed_by_calls(module, Given(*given))
    tried = ("relu", 0), ("relu", 3), ("dot_product_attention", 0), ("conv2d", 6), *(("add", n) for n in range(7))
    for call in tried:
        for make, known in zip((value, gradient), fed[call], strict=True):
            name, number = call
            wrong = make(name, "moved", moved) if make is value else make(name, None, "moved", moved)
            found = planted(run, [(wrong, number)])(module, *given)
            changed = {one for one in right if not same(found[one], right[one])}
            assert changed <= known, call
            assert make is value or name == "add" or changed == known, call
    assert fed["add", 6] == ({"x.grad"}, {"x.grad"})  # the last sum, which is made on the way back


def test_a_call_feeds_the_steps_that_a_kernel_gives_too():
    case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
    steps = case.with_steps(["(3) a", "(3') dz"])
    fed = Search(steps, steps.expected).fed_from()
    assert [names & {"(3) a", "(3') dz"} for names in fed["sigmoid", 0]] == [{"(3) a", "(3') dz"}, {"(3') dz"}]
    assert fed["global_average_pool", 0][1] == {"x.grad"}
