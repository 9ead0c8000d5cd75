"""What a docstring says of a function's parameters; read from the source, so that nothing is run."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "opsd_lab").rglob("*.py"))}


def functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Yield each public function, method and constructor with its docstring; a constructor's begins with its class's."""
    for node in tree.body:
        within = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for function in within:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = ast.get_docstring(function) or ""
                if function.name == "__init__":
                    yield function, f"{ast.get_docstring(node) or ''}\n{doc}"
                elif not function.name.startswith("_"):
                    yield function, doc


def undescribed(tree: ast.Module) -> list[str]:
    """Return the functions with more than three parameters whose docstring leaves some out, with those."""
    found = []
    for function, doc in functions(tree):
        given = function.args
        names = [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs] if one.arg not in {"self", "cls"}]
        missing = [name for name in names if not re.search(rf"\b{name}\b", doc)]
        if len(names) > 3 and missing:
            found.append(f"{function.name} (line {function.lineno}): {', '.join(missing)}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_every_parameter_of_a_function_with_more_than_three_is_described(file):
    missing = undescribed(ast.parse(FILES[file].read_text(encoding="utf-8")))
    assert not missing, f"{file}: the docstring leaves out parameters of {'; '.join(missing)}"


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f(a, b, c, d): 'Of a, b and c.'", ["f (line 1): d"]),
        ("def f(a, b, *, c, d): 'Of a, b, c and d.'", []),
        ("def f(a, b, c): 'Of nothing.'", []),
        ("class A:\n 'Of a and b.'\n def __init__(self, a, b, c, d): 'Of c.'", ["__init__ (line 3): d"]),
        ("class A:\n 'Of a.'\n def f(self, a, b, c, d): 'Of b, c and d.'", ["f (line 3): a"]),
        ("def _f(a, b, c, d): ...", []),
    ],
)
def test_a_parameter_that_no_docstring_names_is_noticed(source, missing):
    assert undescribed(ast.parse(source)) == missing
