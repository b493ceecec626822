"""What a case is given: numbers that a format holds, drawn where the caller gives none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from npattn.checks import MAX_SEED
from npattn.module import Module
from npattn.oracle.budgets import Given, exact_results
from npattn.oracle.formats import Format, representable
from npattn.oracle.own import Own, exact_names
from npattn.oracle.special import special
from npattn.oracle.values import generic_values

__all__ = ["MAX_REPEATED", "Chosen", "choose_params", "draw_case", "require_drawn"]

MAX_REPEATED = 8
"""Images that may all be the same: equal terms err by the same, and many of them by more than sums are allowed to."""
MAX_CHOICES, NUM_ENOUGH = 64, 16
"""Parameters that are drawn until no result is 0 throughout; and until a few are whatever the parameters."""
SMALL_VARIANCE = 2.0**-6
"""Of what is drawn for a variance where the network computes, as a batch norm's that divides by it."""
SEED_STEP = 2**20
"""From the seed of one draw to that of the next."""


def require_drawn(values: str, given: Mapping[str, Any]) -> None:
    """Refuse a kind of values for what the caller gives."""
    group = {"generic": "", "ones": "upstream"}.get(values, "inputs")
    if group and given[group] is not None:
        raise ValueError(
            f"golden: values={values!r} asks for {group} that are drawn, but {group} is given: leave one out"
        )


def draw_case(
    module: Module,
    own: Own,
    format: Format,
    seed: int,
    *,
    values: str,
    choice: int = 0,
    draw: int = 0,
    repeated: bool = False,
) -> Given:
    """Draw the parameters, inputs and upstream gradients that are not given, of numbers that a format holds.

    `choice` numbers the parameters, `draw` the inputs. Where `repeated`, what is drawn is the same for every image, of
    a few.
    """

    def repeat(a: np.ndarray) -> np.ndarray:
        return np.repeat(a[:1], len(a), axis=0) if repeated and a.ndim and len(a) <= MAX_REPEATED else a

    params, inputs, upstream = (own.arrays.get(group) for group in Given._fields)
    if params is None:
        params = with_small_variances(module, module.init(seed_of(seed, choice), generic=True))
    if inputs is None:
        _, drawn = generic_values(module, **own.sizes, seed=seed_of(seed, draw))
        inputs = {name: repeat(x) for name, x in drawn.items()}
    if upstream is None:
        random = np.random.RandomState([seed, 2])
        upstream = {name: repeat(random.standard_normal(shape)) for name, shape in own.outputs.items()}
    given = special(values, module, Given(params, inputs, upstream), format, draw)
    held = given.each(lambda a: representable(a, format))
    return held._replace(inputs=held.inputs | {name: given.inputs[name] for name in exact_names(module, given.inputs)})


def seed_of(seed: int, number: int) -> int:
    """Return the seed of one of the draws of a case."""
    return (seed + SEED_STEP * number) % (MAX_SEED + 1)


def with_small_variances(module: Module, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Make running variances small that training goes on with: beside large ones it hardly shows what a batch adds."""
    if not getattr(module, "training", False):
        return params
    variances = {name for name in module.buffer_shapes() if name.endswith("running_var")}
    return {name: a * SMALL_VARIANCE if name in variances else a for name, a in params.items()}


class Chosen(NamedTuple):
    """Parameters that were chosen.

    Attributes
    ----------
    number : int
        For `draw_case`.
    given : Given, or None
        What it draws first; None where nothing was tried.
    results : dict of numpy.ndarray, or None
        The exact ones of that.
    """

    number: int
    given: Given | None = None
    results: dict[str, np.ndarray] | None = None


def choose_params(module: Module, own: Own, format: Format, seed: int, **options: Any) -> Chosen:
    """Choose parameters for `draw_case`: the first of those with the fewest results that are 0 throughout.

    Behind a relu that lets nothing through every gradient is 0, whatever a kernel computes there.
    """
    if "params" in own.arrays or own.sizes["batch"] == 0:
        return Chosen(0)
    best, fewest, always = Chosen(0), set[str](), set[str]()
    for number in range(MAX_CHOICES):
        with np.errstate(all="ignore"):
            given = draw_case(module, own, format, seed, choice=number, **options)
            results = exact_results(module, given)
        dead = {name for name, a in results.items() if not a.any()}
        always = dead if number == 0 else always & dead
        if number == 0 or len(dead) < len(fewest):
            best, fewest = Chosen(number, given, results), dead
        hopeless = fewest == always and len(fewest) < len(results) / 2
        if not dead or (hopeless and number + 1 >= NUM_ENOUGH):
            break
    return best
