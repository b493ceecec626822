"""The floors of the house: what each part of the package may import, in functions as at the top of a file."""

import ast
import functools
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import npattn
from tests.naming import for_each

BASE = {
    "typing",
    "scalars",
    "version",
    "calls",
    "checks",
    "array_checks",
    "wording",
    "construction",
    "equality",
    "files",
    "foreign_arrays",
    "data",
    "parameters",
    "candidates",
    "fitting",
    "variations",
    "attention_maps",
    "pairing",
    "state_dict_hints",
    "state_dicts",
    "synonyms",
    "fields",
    "module",
    "papers",
    "processes",
    "results",
}
SYSTEMS = BASE | {"ops", "transforms", "layers", "attention"}
ORACLE = SYSTEMS | {"fast", "hyperparameters", "tracing", "oracle"}
HOUSE = ORACLE | {"training", "pictures", "cli", "plugin", "__main__", "npattn"}
FLOORS = {
    "typing": set(),
    "scalars": set(),
    "ops": {"typing", "scalars", "ops"},
    "fast": {"typing", "ops", "fast"},
    **dict.fromkeys(BASE - {"typing", "scalars"}, BASE),
    "transforms": BASE | {"ops"},
    "layers": BASE | {"ops", "layers"},
    "attention": SYSTEMS,
    "training": SYSTEMS | {"training"},
    **dict.fromkeys(["hyperparameters", "tracing", "oracle"], ORACLE),
    **dict.fromkeys(["pictures", "cli", "plugin", "__main__", "npattn"], HOUSE),
}
"""What each part may import of the package; `npattn` is its own file, on which only the top floor leans."""
LIBRARIES = {"ops": {"numpy", "scipy"}}
"""The only libraries that a part may import, beside Python's own."""
EXEMPT = {("npattn.ops", "npattn.fast")}
"""Imports that break the rules: whoever takes the primitives gets the faster ways too, where they are installed."""


@functools.cache
def package():
    """The text of every module, by its name."""
    folder = Path(npattn.__file__).parent
    return {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            "utf-8"
        )
        for path in folder.rglob("*.py")
    }


parse = functools.cache(ast.parse)


def imports(text, modules, running=False):
    """What a module imports, at whatever depth or by name; while `running`, without what type checkers alone import."""
    found, nodes = set(), [parse(text)]
    while nodes:
        node = nodes.pop()
        if running and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and name_of(node.func).endswith("import_module"):
            found |= {name.value for name in node.args if isinstance(name, ast.Constant)}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the package"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in modules or node.module == "npattn" else node.module)
    return found


def name_of(function):
    """The last name of what is called."""
    return getattr(function, "attr", getattr(function, "id", ""))


def part_of(module):
    """The part of the package that a module belongs to."""
    return [*module.split("."), "npattn"][1]


def crossings(texts):
    """Pairs of a module and what it must not import."""
    return {
        (module, other)
        for module, text in texts.items()
        for other in imports(text, texts.keys())
        if not may_import(part_of(module), other)
    }


def may_import(part, other):
    library = other.partition(".")[0]
    if library == "npattn":
        return part_of(other) in FLOORS.get(part, set())
    return library in LIBRARIES.get(part, {library}) | sys.stdlib_module_names


def circle(texts):
    """Modules that wait for one another when they are imported; none if there is no such circle."""
    needs = {
        # Importing a module runs the packages around it first; those around the importer have begun already.
        module: {
            step
            for other in imports(text, texts.keys(), running=True)
            if (module, other) not in EXEMPT
            for step in packages_of(other)
            if step in texts and step not in packages_of(module)
        }
        for module, text in texts.items()
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def packages_of(module):
    """A module's name and those of the packages around it."""
    names = module.split(".")
    return [".".join(names[: i + 1]) for i in range(len(names))]


def test_every_part_has_its_floor():
    assert {part_of(module) for module in package()} <= FLOORS.keys()


def test_no_import_runs_upwards():
    assert crossings(package()) == EXEMPT


def test_no_import_runs_in_a_circle():
    assert circle(package()) == []


ABOVE = {"npattn": "", "npattn.oracle": "", "npattn.oracle.case": "x = 1", "npattn.cli": "import npattn.oracle.case"}


@for_each(
    ("text", "found"),
    [
        ("from npattn.oracle.case import x", "npattn.oracle.case"),
        ("from npattn.oracle import case", "npattn.oracle.case"),
        ("def f():\n    import npattn.cli", "npattn.cli"),
        ("if True:\n    from npattn import cli", "npattn.cli"),
        ("import npattn", "npattn"),
        ("from npattn import CATALOGUE", "npattn.CATALOGUE"),
        ("import_module('npattn.cli')", "npattn.cli"),
        ("import torch.nn", "torch.nn"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import npattn.cli", "npattn.cli"),
    ],
)
def test_an_import_that_runs_upwards_is_found_wherever_it_stands(text, found):
    assert crossings(ABOVE | {"npattn.ops": "import os, numpy.linalg", "npattn.ops.a": text}) == {
        ("npattn.ops.a", found)
    }


@pytest.mark.parametrize(
    "texts",
    [
        {"npattn.a": "import npattn.b", "npattn.b": "def f():\n    from npattn.a import x"},
        {
            "npattn.a": "from npattn.b.c import x",
            "npattn.b": "import npattn.b.d",
            "npattn.b.c": "",
            "npattn.b.d": "import npattn.a",
        },
    ],
)
def test_a_circle_is_found_through_functions_and_packages(texts):
    assert {*circle(texts)} >= {"npattn.a"}


def test_packages_import_their_modules_and_type_checkers_what_they_like():
    texts = {"npattn": "", "npattn.a": "from npattn.a import b", "npattn.a.b": "from npattn.a.c import x"}
    texts["npattn.a.c"] = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from npattn.a.b import x"
    assert circle(texts) == []


FOLDER = Path(npattn.__file__).parent
PRODUCTS = {f"np.{name}" for name in ("matmul", "dot", "inner", "tensordot", "vdot", "vecdot", "matvec", "vecmat")}
"""NumPy's functions that call BLAS, beside the operator."""


@for_each("path", [FOLDER / "layers.py", *(FOLDER / "attention").glob("*.py"), *(FOLDER / "fast").glob("*.py")])
def test_matrices_are_multiplied_by_primitives_and_one_file_that_knows_blas(path):
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    assert not any(isinstance(getattr(node, "op", None), ast.MatMult) for node in nodes)  # a fork would meet BLAS
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert called & PRODUCTS == ({"np.matmul"} if path.name == "blas.py" else set())


def parameters_of(function):
    """The parameters of a function, or of a method but for that whose it is."""
    given = function.args
    named = [one for one in (*given.posonlyargs, *given.args, *given.kwonlyargs) if one.arg not in ("self", "cls")]
    return named + [one for one in (given.vararg, given.kwarg) if one is not None]


def test_every_function_but_closures_says_what_it_takes_and_gives():
    silent = [
        f"{module}.{function.name}"
        for module, text in package().items()
        for around in ast.walk(parse(text))
        if isinstance(around, ast.Module | ast.ClassDef)
        for function in around.body
        if isinstance(function, ast.FunctionDef)
        and (function.returns is None or any(one.annotation is None for one in parameters_of(function)))
    ]
    assert silent == []
