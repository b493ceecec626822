"""Mistakes made by rule in what a system is given: another hyperparameter, layers in each other's place."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from npattn.module import Module
from npattn.oracle.mistakes.mistake import Mistake, always, mistake

__all__ = ["rules_of_settings"]

CHOICES = {"code": "paper", "paper": "code", "top-left": "bottom-right", "bottom-right": "top-left"}
"""What is taken for a hyperparameter of so many letters."""
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
    return found + [one for pair in pairs for one in (exchanged(*pair, training), shared(*pair, training))]


def readings(own: Any) -> Iterator[Any]:
    """List what a hyperparameter may be taken for."""
    if isinstance(own, bool):
        yield not own
    elif isinstance(own, int):
        yield from (n for n in dict.fromkeys((own + 1, own - 1, 2 * own, own // 2, 1)) if n != own)
    elif isinstance(own, str) and own in CHOICES:
        yield CHOICES[own]
    elif isinstance(own, tuple) and own and all(type(n) is int for n in own):
        others = own[::-1], tuple(n + 1 for n in own), tuple(n - 1 for n in own), (1,) * len(own)
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
    """Let two layers stand in each other's place."""
    partner = {f"{a}.{name}": f"{b}.{name}" for a, b in ((one, other), (other, one)) for name in names}

    def plain(run: Any, module: Any, params: Any, *given: Any) -> Any:
        return run(module, {name: params[partner.get(name, name)] for name in params}, *given)

    def apply(run: Any, *given: Any) -> Any:
        results = plain(run, *given)
        ends = "", ".grad"
        swapped = {a + end: results[b + end] for a, b in partner.items() for end in ends if b + end in results}
        return results | swapped

    return carried(f"layers {one} and {other} exchanged", apply, plain, training)


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
