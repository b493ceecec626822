"""What every attention system has in common: hyperparameters, parameters, and one door where mistakes are caught.

A system is a frozen dataclass derived from `Module`. It holds hyperparameters and no arrays; `module(params, x)` runs
the forward pass and hands back a `Pass`, whose ``backward`` is a closure over what the forward pass computed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from npattn.calls import as_tuple, check_inputs, check_params, check_takes, find_sizes, leading_input
from npattn.checks import require_addressable, require_inexact, require_seed
from npattn.construction import Constructor
from npattn.equality import equal, held
from npattn.fields import check_fields
from npattn.papers import Paper
from npattn.parameters import Parameter, declared
from npattn.results import check_called, check_gradients, check_outputs, check_upstream, explain_indices, explain_names
from npattn.state_dicts import read_state_dict
from npattn.synonyms import Naming
from npattn.typing import Array, Gradients, Params
from npattn.wording import describe_type

__all__ = ["FAMILIES", "Family", "Module", "Paper", "Pass", "as_tuple"]

Family = Literal["channel", "spatial", "both", "self-attention", "other"]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""What systems weigh: channels, positions, both one after the other or at once, positions or channels by how they go
with each other, or something else."""


@dataclass(frozen=True, eq=False, repr=False)
class Pass:
    """What a forward pass hands back.

    Attributes
    ----------
    output : array or tuple of arrays
    backward : callable
        ``backward(dy)``, with `dy` shaped as the output, returns ``(dx, grads)``: the gradient of every input (a tuple
        where the system has several) and a dict of the gradient of every parameter, by name. It is the vector-Jacobian
        product (VJP) of the whole pass.
    attention : mapping of str to array
        The maps that a reader wants to see, by name: ``{"channel": (B, C)}``.
    buffers : dict of arrays
        New running statistics in training mode, else empty.
    """

    output: Array
    backward: Callable[[Array], tuple[Array, Gradients]]
    attention: Mapping[str, Array] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{y.dtype} {y.shape}" for y in as_tuple(self.output))
        named = [f"{name} {a.shape}" for arrays in (self.attention, self.buffers) for name, a in arrays.items()]
        return f"Pass(output: {'; '.join([outputs, *named])})"


@dataclass(frozen=True)
class Module(metaclass=Constructor):
    """Base of every system: a frozen record of hyperparameters that can be called.

    A subclass declares `key`, `paper`, its hyperparameters (with `npattn.fields`, if they are to be checked), its
    parameters (`parameters`, `buffers`) and the mathematics (`forward`). All that is asked of a caller is checked here,
    once, in ``__call__``; what lies below may trust its arguments.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Square(Module):
    ...     channels: int = 3
    ...
    ...     def forward(self, params, x):
    ...         return Pass(x * x, lambda dy: (2 * x * dy, {}))
    >>> run = Square()({}, np.full((1, 3, 1, 2), 5.0))
    >>> dx, grads = run.backward(np.ones((1, 3, 1, 2)))
    >>> dx[0, 0], grads
    (array([[10., 10.]]), {})
    """

    key: ClassVar[str]
    """The system's name in `npattn.CATALOGUE` and on the command line."""
    paper: ClassVar[Paper]
    """The publication that the system is read from."""
    family: ClassVar[Family] = "other"
    """What it weighs, by which ``npattn list`` puts the systems together: one of `FAMILIES`."""
    estimator: ClassVar[str | None] = None
    """What backward estimates a gradient by, where forward has no useful one: "straight-through", say."""
    without_gradient: ClassVar[tuple[str, ...]] = ()
    """Inputs for which backward returns None: masks, noise, labels. They may be of integers or booleans as well."""
    options: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Hyperparameters that `npattn.oracle.cases` tries: in each case, what differs from the example's."""
    published: ClassVar[Sequence[Naming]] = ()
    """Other names that published code has for its layers: `from_state_dict` reads them as well."""
    pairs_positions: ClassVar[bool] = False
    """Whether every position looks at all others, so that the work grows as the square of their number."""
    derivation: ClassVar[str]
    """The page in which its gradients are derived, from the top of the repository."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.derivation = f"derivations/{cls.__module__.rpartition('.')[2]}.md"

    def __post_init__(self) -> None:
        """Check each hyperparameter as its field declares it; a system whose fields limit each other goes on here."""
        check_fields(self)

    def __eq__(self, other: object) -> bool:
        """Tell whether all that two hold is equal: of classes that are no dataclasses, whose own `__init__` sets it."""
        return equal(held(self), held(other)) if type(self) is type(other) else NotImplemented

    def __str__(self) -> str:
        """Write the class, its first hyperparameter, and those that are not what they are by default."""
        if not is_dataclass(self):
            return repr(self)
        shown = [one for one in fields(self) if one.repr]
        told = {one.name: getattr(self, one.name) for one in shown if one is shown[0] or not is_default(self, one)}
        return f"{type(self).__name__}({', '.join(f'{name}={spell(value)}' for name, value in told.items())})"

    def __hash__(self) -> int:
        return hash(type(self))  # what it holds may be arrays and lists, which have none

    @classmethod
    def example(cls) -> Self:
        """Return a small instance, for tests and first looks: unless a system says otherwise, that of its defaults.

        Raises
        ------
        TypeError
            If a hyperparameter has no default.
        """
        missing = [one.name for one in fields(cls) if one.init and one.default is one.default_factory is MISSING]
        if missing:
            raise TypeError(
                f"{cls.__name__} has no example: {', '.join(missing)} must be given; define a classmethod example() "
                "that returns a small instance, or hand over an instance"
            )
        return cls()

    def parameters(self) -> dict[str, Parameter]:
        """Declare the trainable parameters: name, shape and initial distribution, in the `state_dict`'s order."""
        return {}

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics: remembered by the caller, not trained."""
        return {}

    @abstractmethod
    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Compute the forward pass on checked arguments; ``module(params, x)`` is the way in."""

    def surrogate(self, params: Params, *inputs: Array) -> Callable[..., Pass]:
        """Return the function, called as `forward` is, whose exact derivative at these arguments backward computes.

        It is `forward` itself, but for a system that names an `estimator`: there it is what the estimator
        differentiates in forward's place.
        """
        return self.forward

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs, by name, in call order: unless a system says otherwise, one map of its `channels`.

        Any shape will do, with any number of axes: ``{"x": (batch, height * width, self.channels)}`` for tokens,
        ``{"logits": (batch, self.classes)}``, ``{"q": (batch, height, d), "k": (batch, width, d)}`` for queries and
        keys of different numbers. The sizes of an input are read from its shape again: `expected_shapes`.

        Parameters
        ----------
        batch, height, width : int
            Images, and positions along each axis of the feature map.

        Returns
        -------
        dict of tuple of int

        Raises
        ------
        TypeError
            If a system without a field `channels` does not say it.
        """
        channels = getattr(self, "channels", None)
        if channels is None:
            raise TypeError(
                f"{self}: nothing says what its inputs are; define input_shapes(self, batch, height, width), which "
                "returns the shape of each by its name"
            )
        return {"x": (batch, channels, height, width)}

    def for_size(self, height: int, width: int) -> Self:
        """Return the system for maps of another size: itself, unless a hyperparameter of it says the size of its maps.

        Parameters
        ----------
        height, width : int

        Returns
        -------
        Module
        """
        return self

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs: ``"output"``, or ``"output.0"``, ``"output.1"``, … where there are several.

        Parameters
        ----------
        batch, height, width : int

        Returns
        -------
        dict of tuple of int
            Unless a system says otherwise, its one output has the shape of its first input.
        """
        return {"output": next(iter(self.input_shapes(batch, height, width).values()))}

    def draw_inputs(
        self, shapes: Mapping[str, tuple[int, ...]], random: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Draw generic values of all inputs, by `draw_input`; a system says here what one input means for another.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            As `input_shapes` has them.
        random : numpy.random.RandomState

        Returns
        -------
        dict of numpy.ndarray
        """
        return {name: np.asarray(self.draw_input(name, shape, random)) for name, shape in shapes.items()}

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw generic values of one input, in float64.

        A map's channels have random means, or else their averages, and all that passes through them, would fade as the
        map grows. A system with an input that is no feature map (a mask, noise) says here what it holds.

        Parameters
        ----------
        name : str
            As `input_shapes` has it.
        shape : tuple of int
        random : numpy.random.RandomState

        Returns
        -------
        numpy.ndarray
        """
        means = random.standard_normal((*shape[:2], 1, 1)) if len(shape) == 4 else 0.0
        return random.standard_normal(shape) + means

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the trainable parameters, by name."""
        return {name: parameter.shape for name, parameter in declared(self, "parameters").items()}

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the running statistics, by name; empty for most systems."""
        return {name: buffer.shape for name, buffer in declared(self, "buffers").items()}

    def init(self, seed: int = 0, dtype: Any = np.float64, *, generic: bool = False) -> dict[str, np.ndarray]:
        """Draw parameters and buffers as the paper starts them.

        Parameters
        ----------
        seed : int, default 0
            Of NumPy's frozen `RandomState` stream: the same values on every version.
        dtype : dtype, default float64
        generic : bool, default False
            Move what starts at exactly 0 or 1 off that value, so that no term of a gradient hides behind it.

        Returns
        -------
        dict of numpy.ndarray
            By name: parameters, then buffers.

        Raises
        ------
        TypeError
            If `seed` is no integer, or `dtype` none of floating-point or complex numbers.
        ValueError
            If `seed` is negative, or of more than 32 bits; if no memory holds a parameter.
        """
        name = type(self).__name__
        random = np.random.RandomState(require_seed(f"{name}.init", seed))
        dtype = require_inexact(f"{name}.init", dtype)
        drawn = declared(self, "parameters") | declared(self, "buffers")
        require_addressable(f"{name}.init", {key: parameter.shape for key, parameter in drawn.items()})
        return {name: parameter.draw(random, generic).astype(dtype) for name, parameter in drawn.items()}

    def from_state_dict(self, mapping: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
        """Take parameters and buffers from a published checkpoint.

        Names are those of `parameter_shapes` or, all of them, those that one of `published` has for the same layers;
        arrays under the latter are laid out as they are here.

        Parameters
        ----------
        mapping : mapping of str to array
            NumPy arrays, torch or JAX tensors, or whatever speaks DLPack. The arrays are copied. The number of batches
            that PyTorch's batch norm counts, ``num_batches_tracked``, is left out, as no computation uses it, and so
            are indices that follow from the hyperparameters, ``relative_position_index`` and ``rel_pos_indices``.
        prefix : str, default ""
            Where in a larger checkpoint this system stands, such as ``"layer1.0.se."``; other entries are left alone.

        Returns
        -------
        dict of numpy.ndarray

        Raises
        ------
        TypeError
            If `mapping` is no mapping, or an entry is no array of floating-point numbers.
        ValueError
            If an entry is missing, unknown or of a wrong shape. The message says what would make the checkpoint fit,
            if something does: another prefix, other names, an array laid out anew, other hyperparameters.
        """
        return read_state_dict(self, mapping, prefix)

    def __call__(self, params: Params, *inputs: Array) -> Pass:
        """Run the forward pass.

        Parameters
        ----------
        params : mapping of str to array
            Parameters and buffers, by name, as `init` and `from_state_dict` give them.
        *inputs : array
            As `input_shapes` lists them.

        Returns
        -------
        Pass

        Raises
        ------
        TypeError
            If an argument is no array, not of floating-point numbers, or differs in dtype or kind of array from `x`; if
            forward returns no `Pass`, or an output of another dtype.
        ValueError
            If a shape or a parameter's name is not what the system expects.
        """
        self.check(params, *inputs)
        try:
            run = self.forward(params, *inputs)
        except (LookupError, TypeError) as error:
            check_takes("forward", self, ("params", *self.input_shapes(1, 1, 1)), error)
            explain_indices(self, inputs, error)
            explain_names(self, error)
            raise
        if not isinstance(run, Pass):
            raise TypeError(f"{self}: forward returns {describe_type(run)}; expected Pass(output, backward)")
        leading = leading_input(self, inputs, params)
        output = check_outputs(self, run.output, *leading)

        def backward(dy: Array) -> tuple[Array, Gradients]:
            dy = check_upstream(self, dy, output)
            try:
                found = run.backward(dy)
            except TypeError as error:
                check_called(self, dy, error)
                raise
            except KeyError as error:
                explain_names(self, error)
                raise
            given = {**params, **dict(zip(self.input_shapes(1, 1, 1), inputs, strict=True))}
            return check_gradients(self, found, *leading, given)

        return replace(run, output=output, backward=backward)

    def check(self, params: Params, *inputs: Array) -> None:
        """Refuse parameters and inputs that a call would refuse; the arguments and errors are those of a call.

        Examples
        --------
        >>> from npattn import HardAttention
        >>> module = HardAttention(channels=3)
        >>> module.check(module.init(), np.ones((1, 3, 7, 5)))
        Traceback (most recent call last):
        TypeError: HardAttention(channels=3): got 1 inputs; expected 2: x, noise
        """
        self.check_inputs(inputs)
        check_params(self, params, *leading_input(self, inputs, params))

    def check_inputs(self, inputs: tuple[Array, ...]) -> None:
        """Refuse inputs that are not what `input_shapes` lists; a system with further demands adds them."""
        check_inputs(self, inputs)

    def expected_shapes(self, inputs: tuple[Array, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes that inputs have to have: those of `input_shapes` for the sizes that most of the axes speak of."""
        return self.input_shapes(*find_sizes(self, inputs))


def is_default(module: Module, one: Field[Any]) -> bool:
    """Tell whether a hyperparameter is what it is if nobody says otherwise."""
    made = one.default if one.default_factory is MISSING else one.default_factory()
    return made is not MISSING and equal(getattr(module, one.name), made)


def spell(value: Any) -> str:
    """Write a hyperparameter; a system within another as briefly as that."""
    return str(value) if isinstance(value, Module) else repr(value)
