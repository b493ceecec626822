"""``npattn trace``: every step of a system, on the photograph or on a map that can be computed on paper."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npattn.cli.arguments import FORCE_HELP, Parser, UsageError, add_command, parse_seed
from npattn.cli.check import parse_size
from npattn.cli.golden import check_sizes
from npattn.cli.photo import CHECKED_SIZE, PAIRED_SIZE, checked_size, photo_values
from npattn.cli.show import parse_pixel
from npattn.cli.systems import configure, find_system
from npattn.data import photograph
from npattn.files import whole_file
from npattn.module import Module
from npattn.tracing import Trace, trace
from npattn.tracing.text import table
from npattn.typing import Array

__all__ = ["add_trace"]

SMALL_SIZE = 2, 2
"""Rows and columns of a map on paper."""
ON_PAPER = {
    "channels": 2,
    "in_channels": 2,
    "out_channels": 2,
    "reduction": 2,
    "kernel_size": 3,
    "classes": 2,
    "window": 2,
    "shift": 1,
    "groups": 1,
    "heads": 2,
    "key_heads": 1,
    "head_dim": 2,
    "k": 2,
    "embedding": 2,
    "rates": (1,),
}
"""Hyperparameters of a system on paper, where it has them."""
DRAWS = 12
"""Of so many draws the one whose steps tell most is taken for paper."""


def add_trace(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    command = add_command(
        commands,
        "trace",
        run_trace,
        "Print every step of a system, forward and backward, by name.\n\n"
        "On the photograph each step is a line of code and, of each value that it\n"
        "assigns, the shape, mean, root mean square, least and largest number. With\n"
        "--small the map has 2x2 positions and whole numbers, and every step is written\n"
        "out below its equation, as one would on paper.\n\n"
        "With --page both stand in one web page, without a network: the circuit, and\n"
        "step by step, each beside its mirror image, the equation, the code and every\n"
        "array as a picture. Needs the extra page: pip install 'npattn[page]'.",
        "npattn trace eca",
        "npattn trace eca --small",
        "npattn trace eca --page eca.html",
        "npattn trace cbam channels=16 --size 28x42 --at 75,115",
    )
    command.add_argument("key", metavar="KEY", help="a system, by its key in npattn list")
    command.add_argument(
        "fields",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        help="hyperparameters that differ from those of the small instance",
    )
    command.add_argument(
        "--size",
        type=parse_size,
        metavar="HxW",
        help="positions of the map (default: 40x60, or 20x30 on a page and where every position looks at all others)",
    )
    command.add_argument(
        "--at",
        type=parse_pixel,
        metavar="ROW,COLUMN",
        help="pixel of the photograph: of what lies on the map, only the numbers there are summarised",
    )
    command.add_argument("--small", action="store_true", help="a map of 2x2 positions, every number written out")
    command.add_argument(
        "--page", metavar="FILE", help="web page to write: the photograph's steps and the small example's"
    )
    command.add_argument("--seed", type=parse_seed, default=0, help="seed of the parameters (default: 0)")
    command.add_argument("--force", action="store_true", help=FORCE_HELP)


def run_trace(arguments: argparse.Namespace) -> int:
    """Print the steps, or write them to a page."""
    example = find_system(arguments.key).example()
    if arguments.page is not None:
        return write_page(example, arguments)
    if arguments.force:
        raise UsageError("--force replaces a page, and none is written; expected --page FILE too")
    if arguments.small:
        if arguments.at:
            raise UsageError("--at is a pixel of the photograph, which --small leaves out; expected one of the two")
        size = arguments.size or SMALL_SIZE
        module = configure(shrink(example.for_size(*size)), arguments.fields)
    else:
        size = arguments.size or checked_size(configure(example, arguments.fields))
        module = configure(example.for_size(*size), arguments.fields)
    check_sizes(module, 1, *size)
    select = select_position(size, arguments.at) if arguments.at else None
    params, inputs = (small_values if arguments.small else photo_values)(module, size, arguments.seed)
    with np.errstate(all="ignore"):  # the numbers themselves tell of infinities and NaN
        steps = trace(module, params, *inputs.values())
        steps.backward(draw_upstream(steps.run.output, arguments.seed, whole=arguments.small))
        if arguments.small:
            print(steps.in_full())
        else:
            print(steps if select is None else table(steps, select))
    return 0


def write_page(example: Module, arguments: argparse.Namespace) -> int:
    """Write the page with both examples."""
    for option in ("small", "at"):
        if getattr(arguments, option):
            raise UsageError(f"--{option} selects what is printed, and --page shows all; expected one of the two")
    try:
        from npattn.tracing.web import web_page
    except ImportError as error:
        raise UsageError(f"latex2mathml can't be imported ({error}): pip install 'npattn[page]'") from error
    with whole_file(arguments.page, force=arguments.force) as temporary:
        temporary.write_text(web_page(examples(example, arguments.fields, arguments.size, arguments.seed)), "utf-8")
    print(arguments.page)
    return 0


def examples(example: Module, fields: Sequence[str], size: tuple[int, int] | None, seed: int) -> dict[str, Trace]:
    """Trace a system on the photograph and on paper, there and back, each by the heading that a page gives it."""
    module = configure(example.for_size(*(size or PAIRED_SIZE)), fields)
    on_paper = [field for field in fields if field.partition("=")[0] not in ON_PAPER]
    small = configure(shrink(example.for_size(*SMALL_SIZE)), on_paper)
    cases = [
        ("On the photograph", module, size or PAIRED_SIZE, False),
        ("On paper, a map of 2×2", small, SMALL_SIZE, True),
    ]
    traces = {}
    for heading, one, positions, whole in cases:
        check_sizes(one, 1, *positions)
        params, inputs = (small_values if whole else photo_values)(one, positions, seed)
        with np.errstate(all="ignore"):
            steps = trace(one, params, *inputs.values())
            steps.backward(draw_upstream(steps.run.output, seed, whole=whole))
        traces[heading] = steps
    return traces


def shrink(module: Module) -> Module:
    """Make a system so small that it can be computed on paper."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if isinstance(value, Module):
            changes[field.name] = shrink(value)
        elif field.name in ON_PAPER and (value is not None or field.name == "kernel_size"):
            changes[field.name] = ON_PAPER[field.name]
    return dataclasses.replace(module, **changes)


def small_values(module: Module, size: tuple[int, int], seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draw parameters and inputs of small whole numbers; every channel of a map has a whole mean.

    Of a few draws the one is taken in whose steps most numbers differ, and fewest vanish: where two gates are equal, or
    a gradient is 0, the mistake to take one for the other can't be seen.

    Examples
    --------
    >>> from npattn import CATALOGUE
    >>> params, inputs = small_values(shrink(CATALOGUE["eca"].example()), SMALL_SIZE, seed=0)
    >>> inputs["x"].mean(axis=(2, 3)) % 1
    array([[0., 0.]])
    """

    def told(drawn: tuple[dict[str, Array], dict[str, Array]]) -> float:
        params, inputs = drawn
        with np.errstate(all="ignore"):
            steps = trace(module, params, *inputs.values())
            steps.backward(draw_upstream(steps.run.output, seed, whole=True))
        return sum(map(share_told, (np.asarray(step.value) for step in steps.steps)))

    return max((draw_small(module, size, DRAWS * seed + i) for i in range(DRAWS)), key=told)


def share_told(value: np.ndarray) -> float:
    """Return the share of numbers that differ from all others and from 0, to three digits.

    Examples
    --------
    >>> share_told(np.array([0.25, 0.2501, 1e-9, -2.0]))
    0.5
    """
    different = {f"{number:.3g}" for number in value.ravel() if abs(number) > 1e-3}
    return len(different) / max(1, value.size)


def draw_small(module: Module, size: tuple[int, int], seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Draw parameters and inputs once."""
    random = np.random.RandomState([seed, 3])
    params = {name: whole(value) for name, value in module.init(seed, generic=True).items()}
    inputs = {}
    for name, shape in module.input_shapes(1, *size).items():
        drawn = module.draw_input(name, shape, random)
        if len(shape) == 4 and (drawn % 1).any():  # a map, not a mask
            drawn = random.randint(-1, 3, shape).astype(float)
            positions = shape[2] * shape[3]
            drawn[:, :, -1, -1] -= (drawn.sum(axis=(2, 3)) + positions // 2) % positions - positions // 2
        inputs[name] = np.rint(drawn) + 0.0
    return params, inputs


def whole(value: np.ndarray) -> np.ndarray:
    """Round to whole numbers, none of them 0: a channel or a weight would drop out."""
    rounded = np.clip(np.rint(value), -2, 2)
    return np.where(rounded == 0, np.copysign(1, value), rounded)


def draw_upstream(output: Any, seed: int, *, whole: bool) -> Any:
    """Draw upstream gradients, shaped as the output."""
    random = np.random.RandomState([seed, 2])

    def draw(y: Array) -> Array:
        return random.choice([-1.0, 1.0, 2.0], y.shape) if whole else random.standard_normal(y.shape)

    return tuple(map(draw, output)) if isinstance(output, tuple) else draw(output)


def select_position(size: tuple[int, int], pixel: tuple[int, int]) -> Callable[[Array], Array]:
    """Return a function that takes, of a value that lies on the map, the numbers at the position of a pixel."""
    whole = [max(shown, checked) for shown, checked in zip(size, CHECKED_SIZE, strict=True)]
    at = [
        place * all_ // pixels - (all_ - shown) // 2  # a small map is cut from the middle of a larger one
        for place, all_, pixels, shown in zip(pixel, whole, photograph().shape, size, strict=False)
    ]
    if not all(0 <= place < shown for place, shown in zip(at, size, strict=True)):
        raise UsageError(
            f"--at {pixel[0]},{pixel[1]}: the map of {size[0]}x{size[1]} positions shows the middle of the photograph; "
            "expected a pixel there, or a larger --size"
        )

    def select(value: Array) -> Array:
        trailing = zip(value.shape[-2:], size, strict=False)
        if value.ndim > 2 and all(length in (1, shown) for length, shown in trailing) and max(value.shape[-2:]) > 1:
            row, column = (0 if length == 1 else place for length, place in zip(value.shape[-2:], at, strict=True))
            return value[..., row, column]
        if value.ndim > 1 and value.shape[-1] == size[0] * size[1]:
            return value[..., at[0] * size[1] + at[1]]
        return value

    return select
