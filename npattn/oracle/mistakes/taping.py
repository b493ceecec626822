"""What autograd would give of a wrong forward: arrays that remember what they were computed from.

A taped array goes through NumPy's functions and through primitives as any other kind of number does; `pull` carries
gradients back. It is there for mistakes alone: no derivative of the package comes from it.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.ops.context import Setting, run_with
from npattn.ops.masking import sum_to
from npattn.oracle.mistakes.derivatives import FLAT, FUNCTIONS, MOVING, UFUNCS
from npattn.oracle.mistakes.tape import Node, carry_back

__all__ = ["Taped", "answering_taped", "pull", "straight_through", "untape"]


class Taped(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that remembers what it was computed from. What is assigned to a part of it is remembered too.

    Attributes
    ----------
    value : numpy.ndarray
    node : Node

    Examples
    --------
    >>> x = Taped(np.array([1.0, 3.0]))
    >>> y = (x * x).sum()
    >>> pull([(y, np.array(1.0))], [x])
    [array([2., 6.])]
    """

    def __init__(self, value: Any, node: Node | None = None) -> None:
        self.value = np.asarray(value)
        self.node = node or Node()

    def __getattr__(self, name: str) -> Any:
        """Look at the value, or call a method as NumPy's function of that name."""
        if name in ("shape", "ndim", "dtype", "size", "flags", "strides"):
            return getattr(self.value, name)
        if name == "T":
            return np.transpose(self)
        function = {"max": np.max, "min": np.min}.get(name) or getattr(np, name, None)
        if name.startswith("__") or function is None or not hasattr(np.ndarray, name):
            raise AttributeError(f"a taped array has no {name}")
        return lambda *arguments, **options: function(self, *arguments, **options)

    @property
    def real(self) -> Taped:
        """The array itself: taped arrays are of real numbers."""
        return self

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Refuse: NumPy would take it apart, number by number."""
        raise TypeError("a taped array is not a plain one")

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def reshape(self, *shape: Any) -> Any:
        """Lay the elements out in another shape."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        """Put the axes in another order."""
        return np.transpose(self, (axes[0] if len(axes) == 1 else axes) or None)

    def astype(self, dtype: Any) -> Taped:
        """Take the values in another dtype."""
        own = self.value.dtype
        return Taped(self.value.astype(dtype), Node([self.node], lambda g: [g.astype(own)]))

    def __getitem__(self, key: Any) -> Taped:
        return move(lambda a: a[untape(key)], self)

    def __setitem__(self, key: Any, value: Any) -> None:
        def assigned(a: Any, part: Any) -> Any:
            changed = a.copy()
            changed[key] = part
            return changed

        key = untape(key)
        self.become(move(assigned, self, value if isinstance(value, Taped) else np.asarray(value, self.dtype)))

    def become(self, other: Taped) -> None:
        """Take another's place, as what is written to does."""
        self.value, self.node = other.value, other.node

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """Compute on plain arrays; remember where there is a derivative."""
        if method != "__call__":
            return NotImplemented
        values = [untape(a) for a in inputs]
        with np.errstate(all="ignore"):
            y = ufunc(*values, **options)
        if isinstance(y, tuple) or ufunc.__name__ not in UFUNCS:
            return without_gradient(ufunc.__name__, y)
        sources = [i for i, a in enumerate(inputs) if isinstance(a, Taped)]

        def pullback(g: Any) -> list[Any]:
            with np.errstate(all="ignore"):
                if ufunc is np.matmul:
                    found = UFUNCS[ufunc.__name__](g, y, *values)
                    return [sum_to(np.asarray(found[i]), values[i].shape) for i in sources]
                factors = UFUNCS[ufunc.__name__](y, *values)
                # A slope of infinity or NaN where no gradient comes from, as behind a selection, counts for nothing.
                each = [np.where(g == 0, 0, g * factors[i]) for i in sources]
            return [sum_to(np.asarray(d), np.shape(values[i])) for d, i in zip(each, sources, strict=True)]

        found = Taped(y, Node([inputs[i].node for i in sources], pullback))
        if out is None:
            return found
        out[0].become(found)
        return out[0]

    def __array_function__(
        self, function: Callable[..., Any], types: Iterable[type], arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """Compute NumPy's functions and primitives; remember where there is a derivative."""
        if hasattr(function, "definition"):
            return call_primitive(function, arguments, options)
        if function in (np.zeros_like, np.ones_like, np.empty_like, np.full_like):
            return Taped(function(*untape(arguments), **untape(options)))
        if function is np.put_along_axis:
            arguments[0].become(Taped(written_along(*untape(arguments), **options)))
            return None
        if function is np.where:  # whole numbers among its choices are elements too
            kind = taped_in(tuple(arguments[1:]))[0].dtype if taped_in(tuple(arguments[1:])) else float
            arguments = [arguments[0], *(a if isinstance(a, Taped) else np.asarray(a, kind) for a in arguments[1:])]
        if function in MOVING:
            return move(lambda *some: function(*some, **untape(options)), *arguments)
        if function in FUNCTIONS:
            return differentiate(function, arguments, options)
        return without_gradient(function.__name__, function(*untape(arguments), **untape(options)))


def without_gradient(name: str, y: Any) -> Any:
    """Hand on what no gradient comes from; real numbers of a function whose derivative is not known are refused."""
    real = any(
        getattr(part, "dtype", np.dtype(int)).kind == "f" for part in (y if isinstance(y, (tuple, list)) else [y])
    )
    if real and name not in FLAT:
        raise TypeError(f"the derivative of numpy.{name} is not known, so what it makes of a taped array would lose it")
    return y


def written_along(a: Any, index: Any, values: Any, axis: int) -> Any:
    """Return an array with values put along an axis."""
    changed = a.copy()
    np.put_along_axis(changed, index, values, axis)
    return changed


def straight_through(function: Callable[[Any], Any], a: Any) -> Any:
    """Round an array, which changes no gradient: autograd carries it back through a cast as it is."""
    return Taped(function(a.value), Node([a.node], lambda g: [g])) if isinstance(a, Taped) else function(a)


def untape(value: Any) -> Any:
    """Take plain arrays out of taped ones, in nested tuples, lists and dicts too."""
    if isinstance(value, Taped):
        return value.value
    if isinstance(value, (tuple, list)):
        return type(value)(untape(one) for one in value)
    if isinstance(value, dict):
        return {name: untape(one) for name, one in value.items()}
    return value


def taped_in(value: Any) -> list[Taped]:
    """List the taped arrays in nested tuples and lists."""
    if isinstance(value, Taped):
        return [value]
    return [found for one in value for found in taped_in(one)] if isinstance(value, (tuple, list)) else []


def move(function: Callable[..., Any], *arguments: Any) -> Any:
    """Compute what moves elements and changes none: where each came from is read off the same function of numbers."""
    sources = taped_in(arguments)
    starts = np.cumsum([0, *(a.size for a in sources)])
    numbered = {id(a): np.arange(a.size).reshape(a.shape) + start for a, start in zip(sources, starts, strict=False)}
    y = function(*untape(arguments))
    where: list[Any] = []

    def pullback_of(i: int | None) -> Callable[[Any], list[Any]]:
        def pullback(g: Any) -> list[Any]:
            if not where:
                where.append(function(*mark(arguments, numbered)))
            origin = np.asarray(where[0] if i is None else where[0][i]).ravel()
            known = origin >= 0
            total = np.bincount(origin[known], np.broadcast_to(g, np.shape(g)).ravel()[known], starts[-1])
            parts = np.split(total, starts[1:-1])
            return [part.reshape(a.shape).astype(a.dtype) for part, a in zip(parts, sources, strict=True)]

        return pullback

    parents = [a.node for a in sources]
    if isinstance(y, (tuple, list)):
        return type(y)(Taped(one, Node(parents, pullback_of(i))) for i, one in enumerate(y))
    return Taped(y, Node(parents, pullback_of(None)))


def mark(value: Any, numbered: Mapping[int, Any]) -> Any:
    """Put numbers of elements in the place of taped arrays, and -1 in that of other floating-point numbers."""
    if isinstance(value, Taped):
        return numbered[id(value)]
    if isinstance(value, (tuple, list)):
        return type(value)(mark(one, numbered) for one in value)
    if isinstance(value, (float, np.floating)) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        return np.full(np.shape(value), -1)
    return value


def differentiate(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Compute a function of one taped array, or of several, whose derivative is known."""
    values = untape(tuple(arguments))
    y, back = FUNCTIONS[function](*values, **untape(dict(options)))
    sources = [i for i, a in enumerate(arguments) if isinstance(a, Taped)]

    def pullback(g: Any) -> list[Any]:
        found = as_tuple(back(g))
        return [found[i] for i in sources]

    return Taped(y, Node([arguments[i].node for i in sources], pullback))


SEPARATE = {"affinity_sums", "masked_attention"}
"""Primitives whose backward takes the gradient of each value as an argument of its own."""
FIRST_ALONE = {"batch_norm", "top"}
"""Those whose backward takes the gradient of the first value alone."""
OF_OPTIONS = {"masked_attention": ("q", "k", "v", "bias", "sink")}
"""Whose gradients backward returns, where these are not those of the first arguments."""


ANSWER: contextvars.ContextVar[Callable[..., Any] | None] = contextvars.ContextVar("answer", default=None)
"""What gives the results of primitives that are called on taped arrays, or NotImplemented."""


def answering_taped(answer: Callable[..., Any]) -> Setting[Callable[..., Any] | None]:
    """Let ``answer(primitive, arguments, options)`` give the results of calls on taped arrays, or NotImplemented."""
    return Setting(ANSWER, answer)


def call_primitive(primitive: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Call a primitive on plain arrays, and let its own backward carry gradients back."""
    answer = ANSWER.get()
    if answer is not None:
        # What the answer calls is its own affair.
        found = run_with(ANSWER, None, answer, primitive, arguments, options)
        if found is not NotImplemented:
            return found
    result = primitive(*untape(tuple(arguments)), **untape(dict(options)))
    if not (isinstance(result, tuple) and callable(result[-1])):
        return primitive.definition(*arguments, **options)  # a step of others, which has no backward of its own
    value, backward = result
    bound = inspect.signature(primitive.definition).bind(*arguments, **options).arguments
    named = [bound.get(name) for name in OF_OPTIONS.get(primitive.__name__, ())] or list(flat(bound.values()))
    sources = [(i, a) for i, a in enumerate(named) if isinstance(a, Taped)]
    leaves = list(flat(value))

    def output(i: int, y: Any) -> Any:
        if np.asarray(y).dtype.kind != "f" or (i and primitive.__name__ in FIRST_ALONE):
            return y

        def pullback(g: Any) -> list[Any]:
            dy = [g if j == i else np.zeros_like(one) for j, one in enumerate(leaves)]
            found = as_tuple(backward(*upstream_of(primitive, value, dy)))
            return [found[j] if j < len(found) else None for j, _ in sources]

        return Taped(y, Node([a.node for _, a in sources], pullback))

    outputs = iter([output(i, y) for i, y in enumerate(leaves)])
    return rebuilt(value, outputs), backward


def upstream_of(primitive: Any, value: Any, dy: Sequence[Any]) -> tuple[Any, ...]:
    """Return the arguments of a primitive's backward, of the gradients of all its values."""
    name = primitive.__name__
    if not isinstance(value, tuple) or name in FIRST_ALONE:
        return (dy[0],)
    return tuple(dy) if name in SEPARATE else (tuple(dy),)


def flat(value: Any) -> Iterable[Any]:
    """Yield what stands in nested tuples, lists and views of dicts."""
    if isinstance(value, (np.ndarray, Taped)) or not isinstance(value, Iterable) or isinstance(value, str):
        yield value
    else:
        for one in value:
            yield from flat(one)


def rebuilt(value: Any, leaves: Any) -> Any:
    """Put others in the place of what stands in nested tuples and lists."""
    if isinstance(value, (tuple, list)):
        return type(value)(rebuilt(one, leaves) for one in value)
    return next(leaves)


def pull(outputs: Iterable[tuple[Taped, Any]], sources: Sequence[Taped]) -> list[Any]:
    """Carry gradients of outputs back to sources.

    Parameters
    ----------
    outputs : iterable of pair
        Taped array and its gradient.
    sources : sequence of Taped
        What was there before anything was computed.

    Returns
    -------
    list of numpy.ndarray
        The gradient of each source; 0 where nothing leads back to it.
    """
    gradients = carry_back((array.node, gradient) for array, gradient in outputs)
    return [np.asarray(gradients.get(a.node.number, np.zeros_like(a.value)), a.value.dtype) for a in sources]
