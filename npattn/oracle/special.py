"""Special inputs: large ones, ties and zeros, at which kernels go wrong that are right elsewhere."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.formats import Format
from npattn.typing import Array

__all__ = ["VALUES", "special"]

VALUES = ("generic", "large", "ties", "zeros", "ones")
"""Kinds of inputs; the last, of upstream gradients."""
MAX_SCALE = 1024.0
"""Inputs of systems without an exponential grow no further."""
MIN_RATIO_TO_LARGEST = 2**16
"""What is so many times smaller than a format's largest number changes little about how near others come to that."""


def special(values: str, module: Module, given: Given, format: Format, draw: int = 0) -> Given:
    """Make special inputs of generic ones. What is no feature map (a mask, noise) stays as it is.

    Parameters
    ----------
    values : str
        "generic", as they are; "large": so large that an exponential overflows unless the largest of its arguments is
        subtracted first, while nothing else does; "ties": rounded to integers from -2 to 2, so that
        maxima tie; "zeros": every other channel is 0, and so is the last image if there are several; "ones": upstream
        gradients are 1, as those of a sum.
    module : Module
    given : Given
    format : Format
    draw : int, default 0
        How often inputs were drawn that would not do: with each, large ones are a quarter as large; from the first on,
        "zeros" have no image of them.

    Returns
    -------
    Given

    Examples
    --------
    >>> import npattn
    >>> from npattn.oracle import generic_values
    >>> from npattn.oracle.formats import FORMATS
    >>> module = npattn.EfficientChannelAttention(channels=4)
    >>> given = Given(*generic_values(module, batch=1, height=1, width=2), {})
    >>> special("zeros", module, given, FORMATS["float16"]).inputs["x"].any(axis=(0, 2, 3))
    array([ True, False,  True, False])
    """
    if values == "large":
        return enlarged(module, given, large_scale(module, given, format, draw))
    if values == "ties":
        return with_maps(module, given, lambda x: np.clip(np.rint(x), -2, 2) + 0.0)
    if values == "zeros":
        return with_maps(module, given, functools.partial(blank, image=draw == 0))
    if values == "ones":
        return given._replace(upstream={name: np.ones_like(dy) for name, dy in given.upstream.items()})
    return given


def with_maps(module: Module, given: Given, change: Callable[[Array], Array]) -> Given:
    """Change those inputs that have a gradient, and are neither noise nor masks."""

    def is_map(name: str, x: Array) -> bool:
        drawn = module.draw_input(name, x.shape, np.random.RandomState(0))
        return name not in module.without_gradient and not np.isin(drawn, (0, 1)).all()

    return given._replace(inputs={name: change(x) if is_map(name, x) else x for name, x in given.inputs.items()})


def blank(x: Array, *, image: bool = True) -> Array:
    """Set every other channel to 0, and the last image, if asked to and there are several."""
    if not x.ndim:
        return 0 * x
    x = x.copy()
    x[(slice(None),) * (x.ndim > 1) + (slice(1, None, 2),)] = 0
    if image:
        x[max(1, len(x) - 1) :] = 0
    return x


def enlarged(module: Module, given: Given, scale: float) -> Given:
    """Scale the maps."""
    return with_maps(module, given, lambda x: scale * x)


def large_scale(module: Module, given: Given, format: Format, draw: int = 0) -> float:
    """Find a power of two to scale by: careless exponentials overflow, nothing else does.

    With each draw it is a quarter of that, down to 1; what is below that is not looked for.
    """
    least, highest = 2 * draw, round(np.log2(MAX_SCALE))
    if least >= highest:
        return 1.0

    def run(scale: float, unscaled: Magnitudes | None = None) -> Magnitudes:
        magnitudes = Magnitudes(unscaled, max(1.0, format.largest / MIN_RATIO_TO_LARGEST))
        with np.errstate(all="ignore"):
            named_results(module, enlarged(module, given, scale).each(lambda a: watch(a, magnitudes)))
        return magnitudes

    unscaled = run(1.0)
    enlarged_run = functools.cache(lambda power: run(2.0**power, unscaled))
    overflow, power = 2 * np.log(format.largest), highest
    if unscaled.exponentials:
        # What exponentials are taken of grows with the inputs.
        powers = range(max(1, least), highest)
        power = powers.start + bisect_left(powers, overflow, key=lambda power: enlarged_run(power).exponent)
    while power > least and enlarged_run(power).number > format.largest / 2:
        power -= 1
    return float(2 ** (power - least))


class Magnitudes:
    """The largest magnitudes of a run: of any number, and of what an exponential was taken of.

    What is there whatever the inputs, such as a mask's -1e9, does not count: magnitudes are those of differences from
    the run on maps as they are drawn.

    Parameters
    ----------
    unscaled : Magnitudes, optional
        Of that run; without it, this is it.
    least : float, default 1
        Numbers are kept of that run where one is larger; of what an exponential is taken of, where one is beyond 1.

    Attributes
    ----------
    number, exponent : float
        The largest of any number, and of what an exponential was taken of.
    exponentials : bool
        Whether there was any.
    """

    def __init__(self, unscaled: Magnitudes | None = None, least: float = 1.0) -> None:
        self.least = least
        self.kept: list[np.ndarray] = []
        self.unscaled = None if unscaled is None else iter(unscaled.kept)
        self.number = self.exponent = 0.0
        self.exponentials = False

    def see(self, a: np.ndarray) -> None:
        """Note what was computed."""
        self.number = max(self.number, self.growth(a, self.least))

    def see_exponents(self, a: np.ndarray) -> None:
        """Note what an exponential is taken of."""
        self.exponentials = True
        self.exponent = max(self.exponent, self.growth(a, 1.0))

    def growth(self, a: np.ndarray, least: float) -> float:
        """Return how far numbers are from those of the other run, at most."""
        if self.unscaled is None:
            self.kept.append(a.copy() if magnitude(a) > least else np.zeros(()))  # which may be changed in place
            return 0.0
        before = next(self.unscaled, np.zeros(()))
        return magnitude(a - before if before.shape in ((), a.shape) else a)


class Watched(np.ndarray):
    """An array that notes the largest magnitudes."""

    magnitudes: Magnitudes | None

    def __array_finalize__(self, source: Any) -> None:
        self.magnitudes = getattr(source, "magnitudes", None)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Array, ...] | None = None, **options: Any
    ) -> Any:
        """Compute on plain arrays."""
        magnitudes = next(a.magnitudes for a in (*inputs, *(out or ())) if isinstance(a, Watched) and a.magnitudes)
        if ufunc is np.exp:
            magnitudes.see_exponents(np.asarray(inputs[0]))
        if out is not None:
            options["out"] = tuple(map(unwatch, out))
        result = getattr(ufunc, method)(*map(unwatch, inputs), **options)
        if isinstance(result, np.ndarray) and result.dtype.kind == "f":  # not what a comparison gives
            magnitudes.see(np.asarray(result))
        if out is not None:
            return out[0]
        return watch(result, magnitudes) if isinstance(result, np.ndarray) else result

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: Iterable[Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Leave the primitives as they are; watch what NumPy's functions make, `where` plain arrays for one."""
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        result = super().__array_function__(function, types, arguments, options)
        if not (self.magnitudes and isinstance(result, np.ndarray)):
            return result
        if function is np.einsum:  # which computes out of sight
            self.magnitudes.see(np.asarray(result))
        return watch(result, self.magnitudes)


def magnitude(a: np.ndarray) -> float:
    """Return the largest finite magnitude.

    Examples
    --------
    >>> magnitude(np.array([1.0, -3.0])), magnitude(np.array([-2.0, np.inf, np.nan])), magnitude(np.empty(0))
    (3.0, 2.0, 0.0)
    """
    largest = np.max(np.abs(a), initial=0)
    if largest < np.inf:  # a selection takes several times as long
        return float(largest)
    return float(np.max(np.abs(a), initial=0, where=np.isfinite(a)))


def watch(a: np.ndarray, magnitudes: Magnitudes) -> Watched:
    """Watch an array."""
    watched = a.view(Watched)
    watched.magnitudes = magnitudes
    return watched


def unwatch(a: Any) -> Any:
    """Take the watch off an array."""
    return a.view(np.ndarray) if isinstance(a, Watched) else a
