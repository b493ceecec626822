"""The words that messages share: a value on one line, the name of its type, what may have been meant instead."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "brief",
    "channel_hint",
    "describe_type",
    "did_you_mean",
    "key_meant",
    "nearest",
    "results_meant",
    "several_meant",
    "suggest",
]

GRADIENTS = ("{}grad", "{}grads", "{}gradient", "grad{}", "grads{}", "gradient{}", "d{}", "g{}", "dld{}", "dlossd{}")
"""How the gradient of something is called elsewhere, letters alone."""

MIN_START = 4
"""Letters of a name that tell which it is the beginning of."""


def brief(value: Any) -> str:
    """Write a value on one line, cut to what a message can hold."""
    return " ".join(reprlib.repr(value).split())


def describe_type(value: Any) -> str:
    """Name a value's type with its article and module, as a reader would import it."""
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def suggest(names: Sequence[str], note: str = "") -> str:
    """Ask whether one of some names is meant, as the clause of a message; say nothing if there are none.

    Examples
    --------
    >>> suggest(["fc1", "fc2"])
    "; did you mean 'fc1' or 'fc2'?"
    """
    listed = " or ".join(filter(None, [", ".join(map(repr, names[:-1])), *map(repr, names[-1:])]))
    return f"; did you mean {listed}{note}?" if names else ""


def did_you_mean(given: Any, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """Ask whether the choice whose spelling is nearest is meant, as the clause of a message.

    Examples
    --------
    >>> did_you_mean("Reductoin", ["channels", "reduction"])
    "; did you mean 'reduction'?"
    """
    return suggest(nearest(given, choices, cutoff))


def several_meant(given: Any, choices: Iterable[str]) -> str:
    """Say that a name is that of several, ``output`` of ``output.0`` and ``output.1``, as the clause of a message.

    Examples
    --------
    >>> several_meant("output", ["output.0", "output.1", "x.grad"])
    ": there are several: 'output.0', 'output.1'"
    """
    found = [name for name in choices if name.startswith(f"{given}.") and name.removeprefix(f"{given}.").isdigit()]
    return f": there are several: {', '.join(map(repr, found))}" if len(found) > 1 else ""


def results_meant(given: Any, names: Iterable[str]) -> list[str]:
    """Find the results whose names are written otherwise: with other signs between words, or as gradients elsewhere.

    Of a gradient the first letters do, as in ``dq``, if they are those of one alone.

    Examples
    --------
    >>> names = ["output", "query.grad", "conv.weight.grad", "bn.running_var"]
    >>> for given in ("bn/running_var", "grad_conv_weight", "dL/dquery", "dq", "expected/output"):
    ...     print(*results_meant(given, names))
    bn.running_var
    conv.weight.grad
    query.grad
    query.grad
    output
    """
    written = str(given).replace("\N{PARTIAL DIFFERENTIAL}", "d")
    spelt = {letters(written), letters(written.rpartition("/")[2])}
    bases = {name: letters(name.removesuffix(".grad")) for name in names if name.endswith(".grad")}
    found = [name for name in names if letters(name) in spelt]
    found = found or [name for name, base in bases.items() if spelt & {form.format(base) for form in GRADIENTS}]
    if not found:
        starts = [one.removeprefix(sign) for one in spelt for sign in ("d", "grad") if one.startswith(sign)]
        found = [name for name, base in bases.items() if any(start and base.startswith(start) for start in starts)]
    return found if len(found) == 1 else []


def letters(name: str) -> str:
    """Leave out of a name all but letters and digits, in lower case."""
    return re.sub(r"[\W_]", "", name.lower())


def key_meant(given: Any, systems: Mapping[str, type], cutoff: float = 0.6) -> str:
    """Ask which key may be meant, by its spelling or by the name of the class that it stands for, or how that begins.

    Examples
    --------
    >>> systems = {"map": dict, "row": list, "field": memoryview}
    >>> key_meant("Dictt", systems), key_meant("rows", systems), key_meant("memory", systems), key_meant("foo", systems)
    ("; did you mean 'map'?", "; did you mean 'row'?", "; did you mean 'field'?", '')
    """
    keys = {system.__name__: key for key, system in systems.items()} | {key: key for key in systems}
    start = letters(str(given))
    begun = [name for name in keys if len(start) >= MIN_START and letters(name).startswith(start)]
    return suggest([keys[name] for name in begun[:1] or nearest(given, keys, cutoff)])


def nearest(given: Any, choices: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """Find the choice whose spelling is nearest, in whatever case; none if none is as near as `cutoff`.

    Of those that are as near, one of the same letters is.

    Examples
    --------
    >>> nearest("eac", ["ema", "eca", "se"])
    ['eca']
    """
    spelt = {choice.lower(): choice for choice in choices}
    word = str(given).lower()
    near = difflib.get_close_matches(word, spelt, n=3, cutoff=cutoff)  # best first

    def nearness(choice: str) -> tuple[float, bool]:
        return difflib.SequenceMatcher(None, choice, word).ratio(), sorted(choice) == sorted(word)

    return [spelt[max(near, key=nearness)]] if near else []


def channel_hint(name: str, given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Say what to do about a map whose channels do not fit."""
    if len(given) != 4 or len(expected) != 4:
        return ""
    if given[3] == expected[1] != given[1]:
        return f"; the channels stand last: {name}.transpose(0, 3, 1, 2) makes (batch, channels, height, width) of them"
    return f"; the map has {given[1]} channels, the module {expected[1]}"
