"""Where what is wrong begins: the first step that is off, or else the steps that can have spoilt it."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from npattn.oracle.budgets import Given
from npattn.oracle.golden_files.described import Described
from npattn.oracle.steps.measuring import given_of
from npattn.oracle.steps.upstream import feeds_of, find_suspects, number_of
from npattn.oracle.systems import is_known

if TYPE_CHECKING:
    from npattn.oracle.case import Case
    from npattn.oracle.comparison import Judgement

__all__ = ["first_wrong", "in_order", "where_it_begins"]

LINE_WIDTH = 80
MOST_LISTED, MOST_HIDDEN, MOST_READ = 12, 6, 4
"""Steps of a list, steps that what is right hides, and parameters; of more the first, or all, are only counted."""
MOST_PLACES = 3
"""Wrong results of which each may have a mistake of its own, the same in all."""
NEAR_SHARE = 0.5
"""Share of its limit beyond which a step, though it may be right, may be where a mistake begins."""
NOT_RUN = TypeError, ValueError, ArithmeticError, LookupError
"""What a system may raise that does not run on arrays which know what they are made from."""


def in_order(case: Case, names: Collection[str]) -> list[str]:
    """Put results and steps in order of computation: outputs and maps between forward and backward steps.

    Parameters
    ----------
    case : Case
        That has steps.
    names : collection of str
    """
    steps = list(case.steps())
    back = [name for name in steps if is_backward(name)]
    gradients = [name for name in case.expected if name.endswith(".grad")]
    others = [name for name in case.expected if name not in gradients]
    order = [*(name for name in steps if name not in set(back)), *others, *back, *gradients]
    return [name for name in order if name in names]


def is_backward(name: str) -> bool:
    """Tell whether a step is one of the way back."""
    return "'" in name.rpartition(" / ")[2].partition(")")[0]


def first_wrong(case: Case, judgements: Mapping[str, Judgement]) -> str | None:
    """Return the name of the first step, in order of computation, that is off; None where no step is."""
    steps = [name for name in judgements if name not in case.expected]
    return next((name for name in in_order(case, steps) if not judgements[name].within), None) if steps else None


def where_it_begins(case: Case, judgements: Mapping[str, Judgement]) -> list[str]:
    """Say where what is wrong begins.

    Parameters
    ----------
    case : Case
    judgements : mapping of str to Judgement
        Of results and steps.

    Returns
    -------
    list of str
        Lines; none if nothing is wrong, or nothing is known of how the results are made.
    """
    wrong = [name for name, judgement in judgements.items() if not judgement.within]
    if not wrong:
        return []
    first = first_wrong(case, judgements)
    if first is not None:
        return describe_first(case, first, judgements)
    right = [name for name, judgement in judgements.items() if judgement.known_right and name in case.expected]
    steps = [name for name, judgement in judgements.items() if name not in case.expected and is_judged_whole(judgement)]
    feeds = {name: fed for name, fed in find_feeds(case).items() if name not in steps}
    known = is_known(case.module)
    return describe_suspects(feeds, wrong, right, given=len(steps), known=known) if feeds else []


def is_judged_whole(judgement: Judgement) -> bool:
    """Tell whether all elements could be judged, and zeros not pass: only then a step that is not off is right."""
    return not judgement.unjudged and not judgement.zeros_pass


def find_feeds(case: Case) -> dict[str, tuple[str, ...]]:
    """Find which results are made from what; nothing where the system's code isn't there, or can't be followed."""
    if isinstance(case.module, Described):
        return {name: step.feeds for name, step in case.steps().items()} if case.measured_steps else {}
    try:
        return feeds_of(case.module, given_of(case))
    except NOT_RUN:
        return {}


def describe_first(case: Case, first: str, judgements: Mapping[str, Judgement]) -> list[str]:
    """Name the first step that is off, with its line of code, and say what is known of those before it."""
    golden = case.steps()
    steps = in_order(case, [name for name in judgements if name in golden])
    before = [name for name in steps[: steps.index(first)] if is_judged_whole(judgements[name])]
    earlier = list(golden).index(first)
    # What it is made from feeds all that is made from it.
    upstream = [name for name in before if set(golden[first].feeds) <= set(golden[name].feeds)]
    near = [name for name in upstream if share_of_limit(judgements[name]) > NEAR_SHARE]
    if len(before) < earlier:
        known = {0: "none is given", 1: "one is given, and right"}
        known_before = known.get(len(before), f"{len(before)} are given, and right")
        text = f"the first step that is off is {first}; of the {earlier} before it {known_before}"
    else:
        known = {0: "it is the first of all", 1: "the one before it is right"}
        text = f"begins at {first}: {known.get(len(before), f'the {len(before)} before it are right')}"
    if near:
        text += f"; or already at {', '.join(near)}, near {'its limit' if len(near) == 1 else 'their limits'}"
    return [*fold(text), *fold(golden[first].line, indent="  ")]


def share_of_limit(judgement: Judgement) -> float:
    """Return how much of what is allowed a step or result is off."""
    return max(judgement.worst / judgement.worst_limit, judgement.rms / judgement.rms_limit)


def describe_suspects(
    feeds: Mapping[str, Sequence[str]], wrong: Sequence[str], right: Sequence[str], *, given: int, known: bool = True
) -> list[str]:
    """Name the steps that feed all that is wrong: first those that feed nothing that is right.

    Unless a system is `known`, it may have lines that are no steps, with mistakes that no step feeds.
    """
    suspects = find_suspects(feeds, wrong, right)
    lines = [f"all {given} steps given are right" if given > 1 else "the step given is right"] if given else []
    # What is written wrongly at the very end is in no step.
    last = [f"the writing of {wrong[0]}"] if len(wrong) == 1 else []
    where = "upstream of all that is wrong" + (" and of nothing that is right" if right else "")
    names = [*listed(suspects.clear), *last]
    hidden = ", ".join(listed(suspects.hidden, MOST_HIDDEN))
    if names:
        begins = "begins in" if len(wrong) == 1 else "if it is one mistake, it begins in"
        lines += fold(f"{begins} {'one of ' if len(names) > 1 else ''}{', '.join(names)}: {where}")
        own = own_steps(feeds, wrong)
        lines += fold(f"or, if it was made in several places, in each of {', '.join(own)}") if own else []
        lines += fold(f"or, if what is right hides it or recomputes it, in {hidden}") if hidden else []
    else:
        one = "" if known else ", or one in lines between steps"
        one += f", or one that what is right hides or recomputes, in {hidden}" if hidden else ""
        lines += fold(f"no one step is {where}: more than one mistake{one}")
    return lines


def own_steps(feeds: Mapping[str, Sequence[str]], wrong: Sequence[str]) -> list[str]:
    """List of each of several wrong results the last step that feeds it alone; none if one has no such step."""
    fed: dict[str, set[str]] = {}
    for node, results in feeds.items():
        if number_of(node) != node:
            fed.setdefault(number_of(node), set()).update(results)
    own = {next(iter(results)): number for number, results in fed.items() if len(results) == 1}
    told = [number for name, number in own.items() if name in wrong]
    return told if 1 < len(told) == len(wrong) <= MOST_PLACES else []


def listed(nodes: Sequence[str], most: int = MOST_LISTED) -> list[str]:
    """List steps by their numbers, the last ones of many, and what is given, which may be read wrongly."""
    given = [node for node in nodes if node.partition("/")[0] in Given._fields]
    steps = [node for node in nodes if node not in given]
    more = [f"{len(steps) - most} before these"] if len(steps) > most else []
    read = {
        group: [name for first, _, name in (one.partition("/") for one in given) if first == group]
        for group in Given._fields
    }
    params = read["params"] if len(read["params"]) <= MOST_READ else [f"{len(read['params'])} parameters"]
    names = [*params, *read["inputs"], *(f"dy of {name}" for name in read["upstream"])]
    return [*steps[-most:], *more, *([f"the reading of {', '.join(names)}"] if names else [])]


def fold(text: str, indent: str = "") -> list[str]:
    """Fold a sentence into lines."""
    return textwrap.wrap(text, LINE_WIDTH, initial_indent=indent, subsequent_indent="  ")
