"""Mistakes made by rule in what a system is given: another hyperparameter, layers in each other's place."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from npattn.module import Module
from npattn.oracle.mistakes.mistake import Mistake, always, mistake

__all__ = ["is_setting", "rules_of_settings"]

CHOICES = {"code": "paper", "paper": "code", "top-left": "bottom-right", "bottom-right": "top-left"}
"""What is taken for a hyperparameter of so many letters."""
SETTING = re.compile(r"\w+=.+ for ")
"""What the names of hyperparameters read wrongly say."""
MOST_LAYERS = 60
"""Pairs of layers that are exchanged."""


def rules_of_settings(module: Module) -> list[Mistake]:
    """List a system's hyperparameters read wrongly, and its layers of one shape exchanged.

    Parameters
    ----------
    module : Module

    Returns
    -------
    list of Mistake
        Of whole passes. Where a wrong hyperparameter changes shapes, the pass raises.

    Examples
    --------
    >>> import npattn
    >>> [one.name for one in rules_of_settings(npattn.MultiScaleConcat(8, 4, rates=(1, 2))) if "rates" in one.name][:2]
    ['rates=(2, 1) for (1, 2)', 'rates=(2, 3) for (1, 2)']
    """
    found = []
    for field in dataclasses.fields(module):
        own = getattr(module, field.name)
        for other in readings(own):
            found.append(misread(field.name, own, other))
    pairs = itertools.islice(layers_alike(module), MOST_LAYERS)
    training = getattr(module, "training", False)
    found += [one for pair in pairs for one in (exchanged(*pair, training), shared(*pair, training))]
    found += [exchanged(one, other, ("",), training) for one, other in own_alike(module)]
    return found + [
        carried_by(f"{one} and {other} exchanged", partner, training) for one, other, partner in levels(module)
    ]


def is_setting(mistake: Mistake) -> bool:
    """Tell whether a mistake is a hyperparameter read wrongly."""
    return not mistake.primitive and SETTING.match(mistake.name) is not None


def own_alike(module: Module) -> Iterator[tuple[str, str]]:
    """Yield pairs of a system's own parameters, of no layer, that have one shape."""
    shapes = {name: shape for name, shape in module.parameter_shapes().items() if "." not in name}
    return ((a, b) for a, b in itertools.combinations(shapes, 2) if shapes[a] == shapes[b])


def levels(module: Module) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield pairs of words in parameters' names, `di_0` and `di_1`, whose layers are alike, with who takes whose place.

    More than one layer is named by such a word: one alone is exchanged by itself.
    """
    shapes = module.parameter_shapes() | module.buffer_shapes()
    words = dict.fromkeys(found for name in shapes for found in re.findall(r"[a-z]+_?[0-9]+(?![0-9])", name))
    for one, other in itertools.combinations(words, 2):
        if one.rstrip("0123456789") != other.rstrip("0123456789"):
            continue
        pairs = {name: name.replace(one, other) for name in shapes if one in name}
        layers = {name.rpartition(".")[0] for name in pairs}
        if len(layers) > 1 and all(shapes.get(b) == shapes[a] for a, b in pairs.items()):
            yield one, other, pairs | {b: a for a, b in pairs.items()}


def readings(own: Any) -> Iterator[Any]:
    """List what a hyperparameter may be taken for."""
    if isinstance(own, bool):
        yield not own
    elif isinstance(own, int):
        yield from (n for n in dict.fromkeys((own + 1, own - 1, 2 * own, own // 2, 1)) if n != own)
    elif isinstance(own, str) and own in CHOICES:
        yield CHOICES[own]
    elif isinstance(own, tuple) and own and all(type(n) is int for n in own):
        others = [own[::-1], tuple(n + 1 for n in own), tuple(n - 1 for n in own), (1,) * len(own)]
        others += [(n,) * len(own) for n in own]
        yield from (other for other in dict.fromkeys(others) if other != own)


def misread(name: str, own: Any, other: Any) -> Mistake:
    """Run a system with another hyperparameter."""

    def apply(run: Any, module: Any, params: Any, *given: Any) -> Any:
        wrong = dataclasses.replace(module, **{name: other})
        if wrong.parameter_shapes() != module.parameter_shapes():
            raise ValueError("parameters would have other shapes")
        kept = {name: params[name] for name in module.buffer_shapes()}  # by a pass that remembers nothing
        return kept | run(wrong, params, *given)

    return mistake("", f"{name}={other!r} for {own!r}", "both", apply)


def layers_alike(module: Module) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield pairs of layers whose parameters have the same names and shapes, with these names."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in (module.parameter_shapes() | module.buffer_shapes()).items():
        for place in (i for i, letter in enumerate(name) if letter == "."):
            layers.setdefault(name[:place], {})[name[place + 1 :]] = shape
    for one, other in itertools.combinations(sorted(layers, key=lambda layer: layer.count(".")), 2):
        if layers[one] == layers[other]:
            yield one, other, tuple(layers[one])


def exchanged(one: str, other: str, names: tuple[str, ...], training: bool) -> Mistake:
    """Let two layers, or two parameters, stand in each other's place."""
    partner = {
        ".".join(filter(None, (a, n))): ".".join(filter(None, (b, n)))
        for a, b in ((one, other), (other, one))
        for n in names
    }
    return carried_by(
        f"layers {one} and {other} exchanged" if any(names) else f"{one} and {other} exchanged", partner, training
    )


def carried_by(name: str, partner: dict[str, str], training: bool) -> Mistake:
    """Let parameters stand in the place of their partners."""

    def plain(run: Any, module: Any, params: Any, *given: Any) -> Any:
        return run(module, {name: params[partner.get(name, name)] for name in params}, *given)

    def apply(run: Any, *given: Any) -> Any:
        results = plain(run, *given)
        ends = "", ".grad"
        swapped = {a + end: results[b + end] for a, b in partner.items() for end in ends if b + end in results}
        return results | swapped

    return carried(name, apply, plain, training)


def shared(one: str, other: str, names: tuple[str, ...], training: bool) -> Mistake:
    """Let one layer stand in another's place too."""

    def plain(run: Any, module: Any, params: Any, *given: Any) -> Any:
        return run(module, params | {f"{other}.{name}": params[f"{one}.{name}"] for name in names}, *given)

    def apply(run: Any, *given: Any) -> Any:
        results = plain(run, *given)
        of_one, of_other = ([f"{layer}.{name}.grad" for name in names] for layer in (one, other))
        pairs = [(a, b) for a, b in zip(of_one, of_other, strict=True) if a in results]
        summed = {a: results[a] + results[b] for a, b in pairs}
        return results | summed | {b: 0 * results[b] for _, b in pairs}

    return carried(f"layer {one} in the place of {other} too", apply, plain, training)


def carried(name: str, apply: Any, plain: Any, training: bool) -> Mistake:
    """Make a mistake carried through backward; in training running statistics have other names in `plain`."""
    return Mistake("", name, "carried", apply, always, None if training else plain)
