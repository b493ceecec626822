"""What a definition may be made of: short, mathematics alone, nothing that decides by speed."""

import ast
import re
import sys
from pathlib import Path

import npattn.ops
from tests.naming import for_each

MAX_LINES = 20
KINDS = {"dtype", "type", "flags", "char", "kind", "itemsize"}
SIZES = {"size", "nbytes", "shape", "len", "prod"}
FOLDER = Path(npattn.ops.__file__).parent
MACHINERY = {"__init__.py", "context.py", "primitive.py"}
"""Files without definitions: the names, and what decides between definitions and other ways."""
DEFINING = [path for path in sorted(FOLDER.glob("*.py")) if path.name not in MACHINERY]
STANDARD = {"__future__", "collections.abc", "functools", "itertools", "math", "operator"}
"""Modules of the standard library that mathematics needs."""


def parse(path):
    return ast.parse(path.read_text())


def definitions_of(tree):
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(decorator, ast.Name) and decorator.id == "primitive" for decorator in node.decorator_list)
    ]


def count_lines(function, source):
    """Count the lines of a function's body that hold code: no docstring, comment or blank line."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    lines = source.splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def imported(tree):
    """List the modules that are imported, whole or in part."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def names_in(node):
    """List all names and attributes of an expression."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Name):
            yield part.id


def decisions(tree):
    """List comparisons and questions that decide by what kind of array there is, or how large it is."""
    for node in ast.walk(tree):
        names = set(names_in(node))
        if isinstance(node, ast.Compare):
            limits = {name for name in names if name.isupper() and len(name) > 1}
            by_size = any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops) and (
                limits | names & SIZES
            )
            decides = names & KINDS or by_size
        else:
            asks = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            decides = asks in {"type", "hasattr", "getattr"} or (asks == "isinstance" and "ndarray" in names)
        if decides:
            yield node


def written_to(tree):
    """List arguments ``out=``, by which memory is saved and not mathematics done."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword for keyword in node.keywords if keyword.arg == "out")


def changed_in_place(tree):
    """List assignments that change an array in its place, by which memory is saved; but sums that a loop adds up."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    sums = {node for loop in loops for node in ast.walk(loop) if isinstance(getattr(node, "op", None), ast.Add)}
    return [node for node in ast.walk(tree) if isinstance(node, ast.AugAssign) and node not in sums]


every_file = for_each("path", DEFINING)


@every_file
def test_a_definition_takes_at_most_20_lines_and_so_do_its_steps(path):
    source, tree = path.read_text(), parse(path)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    found = {function.name: count_lines(function, source) for function in functions}
    assert found.keys() >= {function.name for function in definitions_of(tree)} != set()
    assert {name: lines for name, lines in found.items() if lines > MAX_LINES} == {}


def test_all_primitives_stand_in_these_files():
    there = {function.name for path in DEFINING for function in definitions_of(parse(path))}
    assert there == {
        primitive.__name__
        for primitive in npattn.ops.primitive.PRIMITIVES
        if primitive.__module__.startswith("npattn.ops")
    }


@every_file
def test_a_docstring_says_by_a_formula_what_is_computed_and_shows_it(path):
    for function in definitions_of(parse(path)):
        summary, *sections = re.split(r"^(\w+)\n-+$", ast.get_docstring(function), flags=re.MULTILINE)
        assert re.search(r"\w\S* = ", summary), function.name
        assert {"Parameters", "Returns", "Examples"} <= {*sections[::2]}, function.name
        assert ">>> " in sections[-1], function.name


@every_file
def test_definitions_import_mathematics_alone(path):
    for module in imported(parse(path)):
        root = module.split(".")[0]
        if root in sys.stdlib_module_names:
            assert module in STANDARD
        else:
            assert module == "npattn.typing" or root in {"numpy", "scipy"} or module.startswith("npattn.ops")


@every_file
def test_definitions_ask_neither_for_the_kind_of_array_nor_for_its_size(path):
    assert [ast.unparse(node) for node in decisions(parse(path))] == []


@every_file
def test_definitions_give_no_memory_to_write_to(path):
    assert [ast.unparse(keyword) for keyword in written_to(parse(path))] == []


@every_file
def test_definitions_change_nothing_in_place_but_sums_of_a_loop(path):
    assert [ast.unparse(node) for node in changed_in_place(parse(path))] == []


@every_file
def test_definitions_multiply_matrices_by_the_primitive_alone(path):
    found = [ast.unparse(node) for node in ast.walk(parse(path)) if isinstance(getattr(node, "op", None), ast.MatMult)]
    assert found == (["a @ b"] if path.name == "products.py" else [])  # elsewhere forks and threads would meet BLAS


@for_each(
    ("source", "decides"),
    [
        ("x.dtype == np.float32", True),
        ("x.dtype.kind in 'fd'", True),
        ("x.size >= 2**17", True),
        ("x.shape[0] * x.shape[1] < 100", True),
        ("len(x) > 5", True),
        ("n > MANY", True),
        ("type(x) is np.ndarray", True),
        ("isinstance(x, np.ndarray)", True),
        ("getattr(x, 'fast', None)", True),
        ("isinstance(stride, tuple)", False),
        ("x.real <= 0", False),
        ("n == m", False),
        ("np.zeros_like(x, dtype=x.real.dtype)", False),
    ],
)
def test_decisions_are_told_from_mathematics(source, decides):
    assert bool(list(decisions(ast.parse(source)))) is decides
