"""Cases that a golden file says it holds: they are what their system takes and gives, or are refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from npattn.calls import find_sizes
from npattn.module import Module
from npattn.oracle.budgets import Given
from npattn.oracle.budgets.passes import named_results
from npattn.oracle.case import Case
from npattn.oracle.golden_files.archives import Archive, quote, repeated
from npattn.oracle.golden_files.described import Described
from npattn.oracle.golden_files.header import HEADER
from npattn.oracle.judging import judge
from npattn.oracle.systems import is_known
from npattn.wording import brief

__all__ = ["validate_case", "validate_code", "validate_rounded", "validate_steps"]


def validate_case(archive: Archive, case: Case) -> None:
    """Validate a case: its arrays must be what its module takes and gives, its budgets positive."""
    taken, outputs, trained, statistics = find_shapes(archive, case)
    results = {
        **outputs,
        **{f"{name}.grad": x.shape for name, x in case.inputs.items() if f"{name}.grad" in case.expected},
        **{f"{name}.grad": shape for name, shape in trained.items()},
        **(statistics if statistics.keys() & case.expected.keys() else {}),  # in training
    }
    results |= {name: y.shape for name, y in case.expected.items() if name not in results and is_map_name(name)}
    for group, expected in {"params": taken, "upstream": outputs, "expected": results, "budget": results}.items():
        found = {name: array.shape for name, array in getattr(case, group).items()}
        for name in (*expected, *found):
            if name not in found or name not in expected:
                raise archive.error(f"{group}: {quote(name)} is {'missing' if name in expected else 'unknown'}")
        if list(found) != list(expected):
            raise archive.error(f"{group}: {HEADER} does not list them in order")
        for name, shape in expected.items():
            if found[name] != tuple(shape):
                raise archive.error(f"{group}/{name}.npy has shape {found[name]}; expected {tuple(shape)}")
    for name, budget in case.budget.items():
        validate_budget(archive, f"expected/{name}", case.expected[name], f"budget/{name}", budget)


def validate_steps(archive: Archive, case: Case) -> None:
    """Validate the steps that a case has: each with a budget for each of its elements, and results that it feeds."""
    for name, step in (case.measured_steps or {}).items():
        if step.budget.shape != step.expected.shape:
            raise archive.error(f"{quote(name)} has shape {step.expected.shape}, and its budget {step.budget.shape}")
        validate_budget(archive, f"steps/{name}", step.expected, f"step_budgets/{name}", step.budget)
        unknown = [one for one in step.feeds if one not in case.expected] or repeated(step.feeds)
        if unknown:
            raise archive.error(f"{HEADER}: {quote(name)} feeds {brief(unknown[0])}; expected results, each once")


def validate_rounded(archive: Archive, case: Case) -> None:
    """Validate that what is said to have been rounded is there, and as large."""
    for member, change in case.rounded.items():
        group, _, name = member.partition("/")
        arrays = getattr(case, group)
        if name not in arrays or arrays[name].size != change.size:
            raise archive.error(f"{HEADER}: rounded holds {quote(member)} of {change.size} values, which is no array")


def validate_code(archive: Archive, case: Case) -> None:
    """Refuse classes of somebody's own that compute something else than the file holds."""
    if is_known(case.module) or is_described(case.module):
        return
    given = Given(case.params, case.inputs, case.upstream).each(lambda a: np.array(a, np.float64, order="C"))
    hint = "load the file without it in systems, and it judges all the same"
    try:
        with np.errstate(all="ignore"):
            found = named_results(case.module, given)
            judged = [judge(case, one, np.asarray(found[one])) for one in case.expected if one in found]
    except Exception as error:  # whatever a class of someone's own raises
        raise archive.error(f"the class given in systems fails on its inputs ({brief(str(error))}); {hint}") from error
    wrong = next((one.name for one in judged if not one.within), None)
    if wrong is not None:
        raise archive.error(f"the class given in systems has other code: it computes another {wrong}; {hint}")


def validate_budget(archive: Archive, name: str, expected: np.ndarray, budget_name: str, budget: np.ndarray) -> None:
    """Validate budgets: above 0, and finite for numbers alone."""
    if not (budget > 0).all():
        raise archive.error(f"{budget_name}.npy holds what is not above 0")
    if np.isnan(expected[np.isfinite(budget)]).any():
        raise archive.error(f"{name}.npy is NaN where its budget is finite")


def is_described(value: Any) -> bool:
    """Tell whether a file holds no code of a system, or of one within it."""
    if isinstance(value, tuple):
        return any(map(is_described, value))
    if not isinstance(value, Module) or isinstance(value, Described):
        return isinstance(value, Described)
    return any(is_described(getattr(value, field.name)) for field in fields(value))


def find_shapes(archive: Archive, case: Case) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Find shapes by name: of parameters and buffers, outputs, parameters alone, and buffers alone.

    Of a module that is a description alone, the case itself says what the module takes and gives.
    """
    module, inputs = case.module, tuple(case.inputs.values())
    if isinstance(module, Described):
        taken = {name: value.shape for name, value in case.params.items()}
        outputs = {name: value.shape for name, value in case.upstream.items()}
        trained = {name: shape for name, shape in taken.items() if f"{name}.grad" in case.expected}
        return taken, outputs, trained, {name: shape for name, shape in taken.items() if name in case.expected}
    names = list(module.input_shapes(1, 1, 1))
    if list(case.inputs) != names:
        raise archive.error(f"{HEADER} lists the inputs {', '.join(case.inputs)}; expected {', '.join(names)}")
    try:
        module.check_inputs(inputs)
    except (TypeError, ValueError) as error:
        raise archive.error(str(error)) from None
    sizes = find_sizes(module, inputs)
    outputs = module.output_shapes(*sizes)
    if tuple(x.shape for x in inputs) != tuple(module.input_shapes(*sizes).values()):
        # As pcm, which takes maps of any number, and hands back as many.
        outputs = {
            name: case.upstream[name].shape if name in case.upstream else shape for name, shape in outputs.items()
        }
    trained, statistics = module.parameter_shapes(), module.buffer_shapes()
    return trained | statistics, outputs, trained, statistics


def is_map_name(name: str) -> bool:
    """Tell whether a result that is none of the others may be an attention map, of which only its pass knows."""
    return not name.endswith(".grad") and name.partition(".")[0] != "output"
