"""Mistakes in how gates and branches meet: what each reads, and whether they are multiplied."""

from typing import Any

from npattn import ops
from npattn.module import Module
from npattn.oracle.mistakes.elementwise import logistic
from npattn.oracle.mistakes.forwarding import with_steps
from npattn.oracle.mistakes.gating import broadcast
from npattn.oracle.mistakes.mistake import Apply, Arrays, mistake
from npattn.oracle.mistakes.planting import Run, answering
from npattn.typing import Array

__all__ = ["ADDED"]


def gates_in_turn(module: Module, *_: Any) -> bool:
    """Whether a map passes two gates, one behind the other."""
    return getattr(module, "key", None) == "coordinate" or gates_positions_of_gated(module)


def gates_positions_of_gated(module: Any, *_: Any) -> bool:
    """Whether gates of positions are made of a map whose channels have been gated."""
    return getattr(module, "key", None) == "cbam" and module.spatial


def joins_branches(module: Module, *_: Any) -> bool:
    """Whether two branches make the logits of one gate."""
    return getattr(module, "key", None) == "bam"


def adds_answers(module: Module, *_: Any) -> bool:
    """Whether the answers of two pools are added to logits."""
    return getattr(module, "key", None) in ("flexible", "flexible-segmentation")


def of_map(arguments: Any) -> bool:
    """Whether these are a map and the gates of it."""
    return arguments[1].size > 1


def gates_added(*_: Any) -> Apply:
    """Multiply the map by the sum of both gates."""
    waiting: list[Array] = []

    def answer(primitive, arguments, options):
        if primitive is not ops.gate or not of_map(arguments):
            return NotImplemented
        x, a = arguments
        if not waiting:
            waiting.append(broadcast(a, x))
            return x * 1.0
        return x * (waiting.pop() + broadcast(a, x))

    return answer


def read_from_input(x: Array, *_: Any) -> Apply:
    """Pool the map as it came, over its channels."""

    def answer(primitive, arguments, options):
        if primitive not in (ops.max_pool, ops.average_pool):
            return NotImplemented
        return primitive(x, *arguments[1:], **options)[0]

    return answer


def input_gated(x: Array, *_: Any) -> Apply:
    """Multiply the map as it came by the second gate."""
    count = []

    def answer(primitive, arguments, options):
        if primitive is not ops.gate or not of_map(arguments):
            return NotImplemented
        count.append(1)
        return primitive(x, arguments[1])[0] if len(count) == 2 else NotImplemented

    return answer


def branches_through_sigmoid(*_: Any) -> Apply:
    """Take the sigmoid of every branch, and none of what they make together."""
    joined: list[bool] = []

    def answer(primitive, arguments, options):
        if primitive in (ops.gate, ops.shift) and not joined:
            joined.append(True)
            return primitive(*map(logistic, arguments), **options)[0]
        return arguments[0] * 1.0 if primitive is ops.sigmoid else NotImplemented

    return answer


def answers_multiplied(*_: Any) -> Apply:
    """Multiply the sigmoids of both pools' answers."""
    last: list[Array] = []

    def answer(primitive, arguments, options):
        if primitive is ops.linear:
            last[:] = [primitive(*arguments, **options)[0]]
            return last[0]
        if primitive is ops.sigmoid and last:
            half = len(last[0]) // 2
            return logistic(last[0][:half]) * logistic(last[0][half:])
        return NotImplemented

    return answer


def gradient_of_gate(run: Run, *given: Any, first: bool) -> Arrays:
    """Leave the other gate out of the gradient of the first one, or of the second."""
    left: dict[str, Array] = {}

    def spoil(primitive, arguments, options):
        if primitive is not ops.gate or not of_map(arguments):
            return NotImplemented
        x, a = arguments
        y, back = primitive(x, a)
        second = "x" in left
        left.setdefault("x", x)

        def back_gate(dy):
            dx, da = back(dy)
            left.setdefault("dy", dy)
            if first and not second:
                da = back(left["dy"])[1]
            if not first and second:
                da = ops.gate(left["x"], a)[1](dy)[1]
            return dx, da

        return y, back_gate

    with answering(spoil):
        return run(*given)


def first_without_second(run: Run, *given: Any) -> Arrays:
    return gradient_of_gate(run, *given, first=True)


def second_without_first(run: Run, *given: Any) -> Arrays:
    return gradient_of_gate(run, *given, first=False)


ADDED = [
    *with_steps("gates added, not multiplied", gates_added, gates_in_turn),
    *with_steps("gates in parallel: those of positions made of the raw map", read_from_input, gates_positions_of_gated),
    *with_steps("second gate multiplies the input, not the gated map", input_gated, gates_in_turn),
    *with_steps("sigmoid of each branch before they are joined", branches_through_sigmoid, joins_branches),
    *with_steps("sigmoids of the pools' answers multiplied", answers_multiplied, adds_answers),
    mistake("", "of the first gate without the second one", "backward", first_without_second, gates_in_turn),
    mistake("", "of the second gate without the first one", "backward", second_without_first, gates_in_turn),
]
