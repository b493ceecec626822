"""How a module is made: what a call that fits none of a system's hyperparameters is told."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABCMeta
from collections.abc import Mapping
from types import FunctionType
from typing import Any, TypeVar

from npattn.checks import check_hyperparameters

__all__ = ["Constructor"]

System = TypeVar("System")


class Constructor(ABCMeta):
    """The type of `Module`: a call that doesn't fit a system's hyperparameters is told which one is meant."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """The hyperparameters, for `help` and editors."""
        of_init = inspect.signature(inspect.getattr_static(cls, "__init__"))
        return inspect.Signature(list(of_init.parameters.values())[1:])

    def __call__(cls: type[System], *args: Any, **kwargs: Any) -> System:
        """Make a module."""
        if "pytestmark" in vars(cls) and not kwargs and len(args) == 1 and isinstance(args[0], FunctionType):
            raise TypeError(
                f"pytest takes @pytest.mark.golden({cls.__name__}) for a mark of the class, not of {args[0].__name__}: "
                f"write @pytest.mark.golden.with_args({cls.__name__})"
            )
        try:
            module = type.__call__(cls, *args, **kwargs)
        except TypeError:
            complaint = misfit(cls, args, kwargs)
            if complaint is None:
                raise
            raise complaint from None
        require_values(module)
        return module


def require_values(module: Any) -> None:
    """Refuse a module of which a field, that no argument sets, is left without a value."""
    for field in dataclasses.fields(module):
        if not (field.init or hasattr(module, field.name)):
            raise TypeError(
                f"{type(module).__name__}: {field.name} is a field(init=False) without a value; set it in "
                f"__post_init__, by object.__setattr__(self, {field.name!r}, ...), or give it a default"
            )


def misfit(system: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TypeError | None:
    """Say what is wrong with the arguments that a system is made from; None if they fit its constructor."""
    signature = inspect.signature(system)
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        pass
    else:
        return None
    name = system.__name__
    fields = {name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    positional = [field for field, p in fields.items() if p.kind != p.KEYWORD_ONLY]
    filled = positional[: len(args)]
    missing = [field for field, p in fields.items() if p.default is p.empty and field not in {*filled, *kwargs}]
    twice = [field for field in kwargs if field in filled]
    bare = [field for field in kwargs if field not in fields and field in inspect.get_annotations(system)]
    if bare:
        return TypeError(
            f"{name}: {bare[0]} is declared, but {name} is no dataclass; put @dataclass(frozen=True) on it"
        )
    try:
        check_hyperparameters(name, [*filled, *kwargs], fields)
    except TypeError as error:
        return error
    if len(args) > len(positional):
        expected = f"at most {len(positional)}: {', '.join(positional)}" if positional else "none"
        return TypeError(f"{name}: got {len(args)} hyperparameters by position; expected {expected}")
    if twice:
        return TypeError(f"{name}: got {twice[0]!r} twice, by position and by name; expected it once")
    noun = "hyperparameter" if len(missing) == 1 else "hyperparameters"
    return TypeError(f"{name}: missing {noun} {', '.join(map(repr, missing))} (expected {', '.join(fields)})")
