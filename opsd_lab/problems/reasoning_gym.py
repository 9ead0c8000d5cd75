"""Problems that the package `reasoning-gym` (arXiv 2505.24760, Apache-2.0) draws by a seed, each with a worked solution.

The package gives answers; of the tasks here a solution follows from what it says about them, line by line, each an equation that
can be checked. The solutions of gsm_symbolic are the package's own; a few of their equations round down ("0.74*40 = 29"). The
package is the extra `reasoning-gym`.
"""

import ast
import operator
import re
from collections.abc import Callable, Generator, Mapping
from fractions import Fraction
from importlib import import_module
from types import ModuleType
from typing import Any

from opsd_lab.basics.options import whole
from opsd_lab.problems.problem import Problem

SIGNS = {ast.Add: ("+", operator.add), ast.Sub: ("-", operator.sub), ast.Mult: ("*", operator.mul), ast.Div: ("/", operator.truediv)}
Meta = Mapping[str, Any]


def reasoning_gym_problems(task: str, count: int, seed: int = 0, **options: Any) -> list[Problem]:
    """Return the first `count` problems that a task of `TASKS` draws with a seed; the same ones for the same version of the package.

    `options` are the task's own, such as `max_terms` of chain_sum. `meta` names the task, the seed and the package's version.

    Raises:
        ValueError: for a task that is none of `TASKS`, whose solutions could not be told, or a count below one.
        ModuleNotFoundError: when the package is not installed.
        AssertionError, TypeError: from the package, for an option that the task does not take.
    """
    if task not in TASKS:
        raise ValueError(f"reasoning-gym's {task!r} gives no steps to show a teacher; there are {', '.join(TASKS)}")
    whole("count", count, least=1)
    package = _package()
    about = {"task": task, "seed": seed, "reasoning_gym": package.__version__}
    rows = package.create_dataset(task, size=count, seed=seed, **options)
    return [_problem(f"{task}-{seed}-{number}", row, TASKS[task](row["metadata"]), about) for number, row in enumerate(rows)]


def _problem(name: str, row: Mapping[str, Any], lines: list[str], about: Mapping[str, Any]) -> Problem:
    answer = str(row["answer"]).strip("$")
    solution = "\n".join([*lines, f"So \\boxed{{{answer}}}."])
    return Problem(name, str(row["question"]).strip(), answer, solution, meta=dict(about))


def written_out(expression: str) -> list[str]:
    """Return a calculation one operation a line, in the order in which they are done: "2 * 3 = 6", then "1 + 6 = 7".

    Raises:
        ValueError: for what is no calculation of numbers with +, -, *, / and parentheses.
    """
    return list(_operations(_numbers(ast.parse(expression.strip(), mode="eval").body, expression)))


Node = Fraction | tuple["Node", type[ast.operator], "Node"]


def _numbers(node: ast.expr, expression: str) -> Node:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _numbers(node.operand, expression)
        return -inner if isinstance(inner, Fraction) else (Fraction(-1), ast.Mult, inner)
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        return _numbers(node.left, expression), type(node.op), _numbers(node.right, expression)
    raise ValueError(f"{expression!r} is no calculation of numbers")


def _operations(node: Node) -> Generator[str, None, Fraction]:
    """Yield the lines of a calculation, from inside out and from left to right, and return its value."""
    if isinstance(node, Fraction):
        return node
    left, kind, right = (yield from _operations(node[0])), node[1], (yield from _operations(node[2]))
    sign, function = SIGNS[kind]
    result = function(left, right)
    yield f"{left} {sign} {f'({right})' if right < 0 else right} = {result}"
    return result


def _gsm(meta: Meta) -> list[str]:
    text = re.sub(r"\n?####.*\Z", "", str(meta["answer_cot"]), flags=re.DOTALL)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _calculation(meta: Meta) -> list[str]:
    return written_out(meta["expression"])


def _legs(meta: Meta) -> list[str]:
    legs = import_module("reasoning_gym.arithmetic.leg_counting").ANIMALS
    each = [(name, number, legs[name]) for name, number in meta["animals"].items()]
    lines = [f"{name}: {number} * {of} = {number * of}" for name, number, of in each]
    return [*lines, *written_out(" + ".join(str(number * of) for _, number, of in each))]


def _fraction(meta: Meta) -> list[str]:
    factor = meta["reduction_factor"]
    parts = [(meta["numerator"], meta["simplified_numerator"]), (meta["denominator"], meta["simplified_denominator"])]
    return [f"Both can be divided by {factor}.", *(f"{number} / {factor} = {simple}" for number, simple in parts)]


TASKS: dict[str, Callable[[Meta], list[str]]] = {
    "gsm_symbolic": _gsm,
    "chain_sum": _calculation,
    "basic_arithmetic": _calculation,
    "leg_counting": _legs,
    "fraction_simplification": _fraction,
}
"""The tasks by the package's names, with what writes the lines of a solution."""


def _package() -> ModuleType:
    try:
        return import_module("reasoning_gym")
    except ModuleNotFoundError as error:
        remedy = "pip install 'opsd-lab[reasoning-gym]'"
        raise ModuleNotFoundError(f"{error}: these problems come with the extra `reasoning-gym`: {remedy}") from None
