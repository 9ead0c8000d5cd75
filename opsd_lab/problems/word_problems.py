"""Arithmetic word problems made from a seed: the built-in problems, small enough for a 135M-parameter model to learn.

Run `python -m opsd_lab.problems.word_problems --out data/word_problems --seed 0` to write the splits as JSONL files.
"""

import operator
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, cycle, product
from pathlib import Path

import tyro

from opsd_lab.problems.files import save_jsonl
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.word_templates import FIRST_HINTS, LAST_HINTS, ONE_STEP_HINTS, TEMPLATES, Cast, Template

Step = tuple[int, str, int, int]
"""One line of working: a, operation, b, result."""
Key = tuple[tuple[str, int, int], ...]
"""The (operation, smaller or first number, other number) of each step."""
Pool = dict[Key, list[tuple[Step, ...]]]

SIZES = {"train": 320, "validation": 64, "test": 512}
FAMILIES: dict[str, tuple[str, ...]] = {
    "one_step": ("+", "-", "+", "-", "*"),
    "two_digit": ("+", "-", "+", "-", "*"),
    "two_step": ("++", "+-", "-+", "--", "*+", "*-", "+*"),
}
"""The operations of each family, in the proportions in which they are drawn: there are few products to draw from."""

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def generate(family: str, n: int, seed: int, *, exclude: Iterable[Problem] = ()) -> list[Problem]:
    """Return `n` problems with distinct texts, none of which shares its `key` with a problem in `exclude`.

    `family` is one of `FAMILIES`. The same `seed` gives the same problems.

    Raises:
        ValueError: for an unknown family, or when fewer than `n` such problems exist.
    """
    taken = {key(problem) for problem in exclude}
    pool = {numbers: expressions for numbers, expressions in _pool(family).items() if numbers not in taken}
    return _draw(family, pool, n, random.Random(seed), prefix=f"{family}-{seed}")


def splits(family: str, sizes: Mapping[str, int], seed: int) -> dict[str, list[Problem]]:
    """Return named sets of problems; no two sets share a step, that is an (operation, numbers) pair.

    The steps are shared out first, operation by operation, so that the expected number of keys is proportional to the
    sizes; then texts are drawn. Within one set a key comes back (in another text) only after all others of its
    operations. A problem of two steps whose steps fall to different sets is in none of them; a very small set can lack
    some operations.

    Raises:
        ValueError: for an unknown family, a size below 1, or more problems or sets than there are keys for.
    """
    rng, pool = random.Random(seed), _pool(family)
    if not sizes or min(sizes.values()) < 1:
        raise ValueError(f"splits: sizes is {dict(sizes)}; it must name at least one set, of at least one problem each")
    by_operation = defaultdict(list)
    for step in sorted({step for numbers in pool for step in numbers}):
        by_operation[step[0]].append(step)
    n_steps = len(FAMILIES[family][0])
    # A key is kept when all its steps fall to one set, so shares of steps are roots of the shares of keys.
    weights = [size ** (1 / n_steps) for size in sizes.values()]
    owner = {}
    for steps in by_operation.values():
        if len(steps) < len(sizes):
            raise ValueError(f"splits: {len(sizes)} sets, but only {len(steps)} steps with {steps[0][0]!r} in {family}")
        rng.shuffle(steps)
        counts = [max(1, int(len(steps) * weight / sum(weights))) for weight in weights]
        counts[counts.index(max(counts))] += len(steps) - sum(counts)
        names = [name for name, count in zip(sizes, counts, strict=True) for _ in range(count)]
        owner.update(zip(steps, names, strict=True))
    parts: dict[str, Pool] = {name: {} for name in sizes}
    for numbers, expressions in pool.items():
        owners = {owner[step] for step in numbers}
        if len(owners) == 1:
            parts[owners.pop()][numbers] = expressions
    return {name: _draw(family, parts[name], size, rng, prefix=f"{family}-{name}") for name, size in sizes.items()}


def key(problem: Problem) -> Key:
    """Return the (operation, numbers) of each step, the numbers of + and * in ascending order.

    Raises:
        ValueError: for a problem without `meta["steps"]`, which did not come from this module.
    """
    if "steps" not in problem.meta:
        raise ValueError(f"Problem {problem.id!r} has no meta['steps']; only built-in word problems have a key")
    return _key(problem.meta["steps"])


def builtin(family: str, split: str) -> list[Problem]:
    """Return a built-in split, equal to `data/word_problems/<family>_<split>.jsonl`, without needing the file.

    Raises:
        ValueError: for an unknown family or split.
    """
    if split not in SIZES:
        raise ValueError(f"no built-in split {split!r}; there are {', '.join(SIZES)}")
    return splits(family, SIZES, seed=0)[split]


def one_per_key(problems: Iterable[Problem]) -> list[Problem]:
    """Return the first problem of each key, so that no two of them ask for the same calculation.

    Problems that share a calculation are right or wrong together; intervals that count problems need independent ones.
    """
    return list({key(problem): problem for problem in reversed(list(problems))}.values())[::-1]


def write_files(out: Path, seed: int = 0) -> None:
    """Write `<family>_<split>.jsonl` for every built-in family and split into a folder, made if it does not exist."""
    out.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        for name, problems in splits(family, SIZES, seed).items():
            save_jsonl(problems, out / f"{family}_{name}.jsonl")


def _key(steps: Iterable[Iterable]) -> Key:
    return tuple((op, a, b) if op == "-" else (op, min(a, b), max(a, b)) for a, op, b, _ in steps)


def _pool(family: str) -> Pool:
    if family not in FAMILIES:
        raise ValueError(f"no family {family!r} of word problems; there are {', '.join(FAMILIES)}")
    pool = defaultdict(list)
    for operations in dict.fromkeys(FAMILIES[family]):
        for steps in _expressions(family, operations):
            pool[_key(steps)].append(steps)
    return dict(pool)


def _expressions(family: str, operations: str) -> Iterator[tuple[Step, ...]]:
    small, digits, two_digits = range(2, 21), range(2, 10), range(10, 100)
    numbers = two_digits if family == "two_digit" else small
    if operations[0] != "*":
        pairs = product(numbers, numbers)
    elif family == "two_digit":
        pairs = chain(product(digits, two_digits), product(two_digits, digits))
    else:
        pairs = product(digits, digits)
    for a, b in pairs:
        expressions = [(_step(a, operations[0], b),)]
        for operation in operations[1:]:
            subtotal = expressions[0][0][3]
            # Factors up to twelve: the product stays within the times tables.
            following = small if operation != "*" else digits if subtotal <= 12 else ()
            expressions = [(*expressions[0], _step(subtotal, operation, c)) for c in following]
        yield from (steps for steps in expressions if all(step[3] > 0 for step in steps))


def _step(a: int, operation: str, b: int) -> Step:
    return a, operation, b, OPERATIONS[operation](a, b)


def _draw(family: str, pool: Pool, n: int, rng: random.Random, *, prefix: str) -> list[Problem]:
    by_operations: dict[str, list[Key]] = defaultdict(list)
    room = {}
    for numbers, expressions in pool.items():
        operations = "".join(step[0] for step in numbers)
        by_operations[operations].append(numbers)
        room[numbers] = len(expressions) * sum(len(template.casts) for template in TEMPLATES[operations])
    if not 0 <= n <= sum(room.values()):
        raise ValueError(f"{prefix}: {n} problems asked for, but {sum(room.values())} with distinct texts exist")
    used, decks, drawn = defaultdict(set), defaultdict(list), []
    turns = cycle(FAMILIES[family])
    while len(drawn) < n:
        operations = next(turns)
        if not decks[operations]:
            decks[operations] = [numbers for numbers in by_operations[operations] if len(used[numbers]) < room[numbers]]
            rng.shuffle(decks[operations])
        if decks[operations]:
            numbers = decks[operations].pop()
            choice = _choose(pool[numbers], TEMPLATES[operations], rng)
            while choice in used[numbers]:
                choice = _choose(pool[numbers], TEMPLATES[operations], rng)
            used[numbers].add(choice)
            drawn.append(choice)
    rng.shuffle(drawn)  # the turns would otherwise tell the operations from the position
    return [_problem(f"{prefix}-{number}", family, *choice) for number, choice in enumerate(drawn)]


def _choose(
    expressions: list[tuple[Step, ...]], templates: tuple[Template, ...], rng: random.Random
) -> tuple[tuple[Step, ...], Template, Cast]:
    template = rng.choice(templates)
    return rng.choice(expressions), template, rng.choice(template.casts)


def _problem(name: str, family: str, steps: tuple[Step, ...], template: Template, cast: Cast) -> Problem:
    actor, other, thing = cast
    result = steps[-1][3]
    words = {"a": steps[0][0], "b": steps[0][2], "c": steps[-1][2], "A": actor, "B": other, "s": f"{thing}s"}
    working = " ".join(f"{a} {op} {b} = {r}." for a, op, b, r in steps)
    first, *rest = (step[1] for step in steps)
    outline = "The question takes two steps." if rest else ONE_STEP_HINTS[first]
    recipe = ", then ".join([FIRST_HINTS[first], *(LAST_HINTS[operation] for operation in rest)])
    return Problem(
        id=name,
        question=template.question.format(**words),
        answer=str(result),
        solution=f"{working} The answer is \\boxed{{{result}}}.",
        hints=(outline, f"{recipe}."),
        meta={"family": family, "steps": [list(step) for step in steps]},
    )


if __name__ == "__main__":
    tyro.cli(write_files)
