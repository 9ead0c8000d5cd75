"""Is one value the other: exact where both are rational, with their units and percent signs; else the worker is asked."""

from collections.abc import Callable
from fractions import Fraction

from opsd_lab.grading.readings import Value
from opsd_lab.grading.trees import Tree, exact, has_constant, names, to_json
from opsd_lab.grading.units import KNOWN, same_measure

Ask = Callable[..., str]  # the question, its trees as JSON, further arguments; "yes", "no", "open" or a sign

ROUNDED = 6  # places and significant digits that a rounded decimal must have
MAX_QUESTIONS = 40  # to the worker, for one answer


class ValueComparison:
    """Holds values against each other; `ask` puts a question about two trees to the worker and returns its reply."""

    def __init__(self, ask: Ask) -> None:
        self.ask, self.questions = ask, 0

    def values(self, gold: Value, answer: Value) -> bool | None:
        """Compare two values with their units and percent signs."""
        if gold.unit and answer.unit and gold.unit != answer.unit:
            if sizes := same_measure(gold.unit, answer.unit):
                scaled = [("*", ("num", size), value.tree) for size, value in zip(sizes, (gold, answer), strict=True)]
                return self.trees(*scaled)
            return False if self._numbers(gold, answer) is False else None
        same = self._numbers(gold, answer)
        if same is not False:
            return same
        if gold.percent != answer.percent:
            plain = [Value(("/", v.tree, ("num", Fraction(100)))) if v.percent else v for v in (gold, answer)]
            return self._numbers(*plain)
        if {gold.unit, answer.unit} & {"degree", r"\degree", "deg"} and None in (gold.unit, answer.unit):
            turned = [("*", v.tree, ("/", ("const", "pi"), ("num", Fraction(180)))) if v.unit else v.tree for v in (gold, answer)]
            if any(has_constant(v.tree, "pi") for v in (gold, answer)):
                return self.trees(*turned)
        if answer.unit in KNOWN and gold.unit is None and self._converted(gold, answer):
            return None
        return False

    def _converted(self, gold: Value, answer: Value) -> bool:
        wanted, given = exact(gold.tree), exact(answer.tree)
        measure, size = KNOWN[answer.unit]
        if wanted is None or given is None or not wanted:
            return False
        return any(given * size == wanted * other for kind, other in KNOWN.values() if kind == measure and other != size)

    def _numbers(self, gold: Value, answer: Value) -> bool | None:
        wanted, given = exact(gold.tree), exact(answer.tree)
        if wanted is not None and wanted == given:
            return True
        if gold.places is None and answer.places is None:
            return self.trees(gold.tree, answer.tree)
        if gold.places is not None and answer.places is not None:
            fewer, more = sorted((gold, answer), key=lambda value: value.places)
            return _rounds_to(exact(more.tree), fewer)
        decimal, other = (gold, answer) if gold.places is not None else (answer, gold)
        value = exact(other.tree)
        if value is not None:
            return _rounds_to(value, decimal)
        if names(other.tree):
            return self.trees(gold.tree, answer.tree)
        if not _may_round(decimal):
            return self.trees(gold.tree, answer.tree)
        return self._put("near", decimal.tree, ("+", other.tree, ("num", Fraction())), decimal)

    def trees(self, gold: Tree, answer: Tree) -> bool | None:
        """Return whether two expressions have one value wherever both have one."""
        if gold == answer:
            return True
        wanted, given = exact(gold), exact(answer)
        if wanted is not None and given is not None:
            return wanted == given
        return self._put("same", gold, answer)

    def _put(self, question: str, a: Tree, b: Tree, decimal: Value | None = None) -> bool | None:
        self.questions += 1
        if self.questions > MAX_QUESTIONS:
            return None
        extra = [str(decimal.places), str(int(decimal.goes_on))] if decimal else []
        return {"yes": True, "no": False}.get(self.ask(question, to_json(a), to_json(b), *extra))


def _may_round(decimal: Value) -> bool:
    return decimal.digits >= (2 if decimal.goes_on else ROUNDED) and (decimal.goes_on or decimal.places >= ROUNDED)


def _rounds_to(value: Fraction | None, decimal: Value) -> bool:
    """Whether a value rounds to a decimal of enough places; digits that go on may have been cut instead."""
    if value is None or not _may_round(decimal):
        return False
    gap = abs(value - exact(decimal.tree))
    unit = Fraction(10) ** -decimal.places
    return gap < unit if decimal.goes_on else 2 * gap <= unit
