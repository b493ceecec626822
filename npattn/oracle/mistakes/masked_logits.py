"""Mistakes in attention with masks: of what is done to logits and beside them, bias, softcap, sink and logsumexp."""

import functools
import math
from typing import Any

import numpy as np

from npattn.ops.attention import transpose
from npattn.oracle.mistakes.arrays import HALF, SINGLE, both
from npattn.oracle.mistakes.attention_weights import WAYS
from npattn.oracle.mistakes.masked_weights import (
    NAME,
    capped,
    capped_before_scale,
    clipped,
    given,
    hides,
    scaled,
    slope_of_capped,
    unscaled_logs,
    with_mistake,
)
from npattn.oracle.mistakes.mistake import Apply, When, argument, dropped, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def not_summed(original: Apply, *qkv: Array, **options: Any) -> tuple[Any, Backward]:
    """Let the gradient of a bias that serves all heads be the first head's alone."""
    right, backward = original(*qkv, **options)
    first = np.zeros(qkv[0].shape[1], qkv[0].dtype)
    first[0] = 1

    def wrong(do, dl=0.0):
        found = [*backward(do, dl)]
        _, of_first = original(*qkv, **options)
        weighed = dl if np.ndim(dl) == 0 else dl * first[:, None]
        found[3] = of_first(do * first[:, None, None], weighed)[3]
        return tuple(found)

    return right, wrong


def serves_heads(q: Array, *_: Any, bias: Array | None, **__: Any) -> bool:
    return bias is not None and bias.ndim == 4 and bias.shape[1] == 1 < q.shape[1]


def of_logsumexp(change: Apply) -> Apply:
    return lambda pair, *_, **__: (pair[0], change(pair[1]))


def no_gradient(of: Any) -> Apply:
    """Take the gradients of some arguments as 0."""

    def other(original, *qkv, **options):
        right, backward = original(*qkv, **options)
        return right, lambda *dy: tuple(dropped(g) if i in of else g for i, g in enumerate(backward(*dy)))

    return other


def heads_served(g: Array, dy: Array, q: Array, *_: Any, **__: Any) -> Array:
    return g / q.shape[1]


def in_pairs(first: int) -> Apply:
    """Take sinks in another order: heads in pairs are numbered the other way."""
    shape = (2, -1) if first else (-1, 2)
    return lambda *_, sink, **__: sink.reshape(*sink.shape[:-1], *shape).swapaxes(-1, -2).reshape(sink.shape)


def several_pairs(*_: Any, sink: Array | None, **__: Any) -> bool:
    return sink is not None and sink.shape[-1] > 2 and sink.shape[-1] % 2 == 0


def sink_forgotten(original: Apply, *qkv: Array, sink: Array, **options: Any) -> tuple[Any, Backward]:
    """Make the weights again without the sink, which gets no gradient."""
    right, _ = original(*qkv, sink=sink, **options)
    _, backward = original(*qkv, sink=None, **options)
    return right, lambda *dy: (*backward(*dy)[:4], np.zeros_like(sink))


def overflows(largest: float) -> When:
    """Whether an exponential is beyond a format's largest number."""
    return lambda q, k, v, scale, **_: bool((scale * (transpose(q) @ k) > largest).any())


def of_windows(g: Array, dy: Array, q: Array, *_: Any, **__: Any) -> Array:
    """Average over all that the bias serves: images, and what lies among them."""
    return g / np.prod(q.shape[:-3], dtype=int)


def beside_products(*_: Any, softcap: Any, bias: Array | None, sink: Array | None, **__: Any) -> bool:
    """Whether logits are more than products and their scale."""
    return any(option is not None for option in (softcap, bias, sink))


def counted(tile: int) -> tuple[Apply, When]:
    """Count the sink once for each tile of keys: the change, and when that is another number than with other tiles."""

    def times(k, size):
        return -(-k.shape[-1] // size)

    def change(_, k, *__, sink, **___):
        return sink + math.log(times(k, tile))

    def when(_, k, *__, sink, **___):
        smaller = (times(k, 2**i) for i in range(1, 7) if 2**i < tile)
        return sink is not None and times(k, tile) > 1 and times(k, tile) not in smaller

    return change, when


TUNED_ON = [
    with_mistake(
        "softcap's derivative left out", given("softcap"), "backward", cap=functools.partial(capped, slope=False)
    ),
    value(NAME, "logsumexp to base 2", of_logsumexp(lambda log_sum: log_sum / math.log(2))),
    instead(NAME, "sink without gradient", no_gradient((4,)), given("sink"), way="backward"),
]
HELD_OUT = [
    argument(NAME, "sink", "sink ignored", lambda *_, **__: None, given("sink")),
    argument(NAME, "softcap", "softcap ignored", lambda *_, **__: None, given("softcap"), way="both"),
    with_mistake("bias before the softcap", both(given("softcap"), given("bias")), "both", bias_first=True),
    with_mistake("gradient of the logsumexp left out", way="backward", through_l=0),
    instead(NAME, "bias without gradient", no_gradient((3,)), given("bias"), way="backward"),
    instead(NAME, "bias of the first head alone", not_summed, serves_heads, way="backward"),
]
ADDED = [
    *(
        with_mistake(name, overflows(largest), way, largest=largest)
        for name, largest in (("maximum not subtracted", SINGLE), ("maximum not subtracted, float16", HALF))
        for way in WAYS
    ),
    gradient(NAME, 3, "of the bias averaged over images and windows", of_windows, given("bias")),
    *(argument(NAME, "sink", f"sink counted once a tile of {2**i} keys", *counted(2**i)) for i in range(1, 7)),
    with_mistake("base 2, in bias and sink too", beside_products, base=2),
    with_mistake("logsumexp without the maximum", log=lambda highest, total, *_: np.log(total)),
    with_mistake("logsumexp of logits before the scale", scaled, log=unscaled_logs),
    with_mistake(
        "logsumexp without the sink", given("sink"), log=lambda highest, total, keys, *_: highest + np.log(keys)
    ),
    *(with_mistake("sink added without the maximum taken off", given("sink"), w, shift_sink=False) for w in WAYS),
    argument(NAME, "sink", "sink of 0, whatever was learnt", lambda *_, sink, **__: 0 * sink, given("sink")),
    argument(
        NAME, "sink", "sink scaled as the logits are", lambda q, k, v, scale, sink, **_: scale * sink, given("sink")
    ),
    argument(NAME, "sink", "sinks in the order of key heads first", in_pairs(True), several_pairs),
    argument(NAME, "sink", "sinks in the order of groups first", in_pairs(False), several_pairs),
    gradient(NAME, 4, "of the sink averaged over images", lambda g, dy, q, *_, **__: g / len(q), given("sink")),
    instead(NAME, "weights made again without the sink", sink_forgotten, given("sink"), way="backward"),
    with_mistake("softcap's derivative by the capped logit", given("softcap"), "backward", cap=slope_of_capped),
    with_mistake("softcap not multiplied again", given("softcap"), cap=functools.partial(capped, factor=False)),
    with_mistake("softcap before the scale", both(given("softcap"), scaled), cap=capped_before_scale),
    with_mistake("clipped, not capped by tanh", given("softcap"), cap=clipped),
    with_mistake(
        "softcap behind the mask, hidden keys in the sum alone", both(given("softcap"), hides), low="cap", keep=False
    ),
    argument(
        NAME, "bias", "bias scaled as the logits are", lambda q, k, v, scale, bias, **_: scale * bias, given("bias")
    ),
    gradient(NAME, 3, "of the bias scaled as dq is", lambda g, dy, q, k, v, scale, **_: scale * g, given("bias")),
    with_mistake("softcap behind the mask", both(given("softcap"), hides), low="cap"),
    with_mistake("gradient of the logsumexp with its sign turned", way="backward", through_l=-1),
    gradient(NAME, 4, "of the sink with its sign turned", lambda g, *_, **__: -g, given("sink")),
    gradient(NAME, 3, "of the bias with its sign turned", lambda g, *_, **__: -g, given("bias")),
    gradient(NAME, 3, "of the bias averaged over heads", heads_served, serves_heads),
    argument(NAME, "bias", "bias in base 2", lambda *_, bias, **__: bias * math.log(2), given("bias")),
    argument(NAME, "bias", "bias lost", lambda *_, **__: None, given("bias")),
    argument(NAME, "bias", "bias twice", lambda *_, bias, **__: 2 * bias, given("bias"), way="both"),
    argument(NAME, "bias", "bias taken off", lambda *_, bias, **__: -bias, given("bias"), way="both"),
]
