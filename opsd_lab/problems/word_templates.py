"""The wordings of the built-in word problems: who does what with which things, and the hints for each operation."""

from dataclasses import dataclass
from itertools import permutations, product

Cast = tuple[str, str, str]
"""Who acts, who else, and with what."""
NAMES = ("Mia", "Sam", "Ana", "Ben", "Lily", "Tom", "Emma", "Jack", "Nina", "Omar", "Rosa", "Leo")
THINGS = ("apple", "pen", "coin", "book", "card", "shell", "stamp", "marble", "button", "sticker", "cookie", "flower")
ONE_PERSON: list[Cast] = [(name, "", thing) for name, thing in product(NAMES, THINGS)]
TWO_PEOPLE: list[Cast] = [(*pair, thing) for pair, thing in product(permutations(NAMES, 2), THINGS)]


@dataclass(frozen=True)
class Template:
    """A wording: {a} {b} {c} are the numbers in order, {A} {B} the people, {s} the things."""

    question: str

    @property
    def casts(self) -> list[Cast]:
        """Every cast that gives this wording a text of its own."""
        return TWO_PEOPLE if "{B}" in self.question else ONE_PERSON


def _templates(*wordings: str) -> tuple[Template, ...]:
    return tuple(Template(wording) for wording in wordings)


TEMPLATES: dict[str, tuple[Template, ...]] = {
    "+": _templates(
        "{A} has {a} {s}. {B} gives {A} {b} more. How many {s} does {A} have now?",
        "There are {a} {s} in a box. {A} puts in {b} more. How many {s} are in the box now?",
        "{A} finds {a} {s} on Monday and {b} {s} on Tuesday. How many {s} does {A} find?",
    ),
    "-": _templates(
        "{A} has {a} {s}. {A} gives {b} of them to {B}. How many {s} does {A} have left?",
        "There are {a} {s} in a box. {A} takes out {b}. How many {s} are left in the box?",
        "{A} has {a} {s}. {B} has {b} {s}. How many more {s} does {A} have than {B}?",
    ),
    "*": _templates(
        "{A} has {a} boxes. Each box holds {b} {s}. How many {s} does {A} have?",
        "{A} buys {a} bags with {b} {s} in each bag. How many {s} does {A} buy?",
        "{A} lays out {a} rows of {b} {s}. How many {s} does {A} lay out?",
    ),
    "++": _templates(
        "{A} has {a} {s}. {B} gives {A} {b} and {A} buys {c}. How many {s} does {A} have now?",
        "{A} finds {a} {s} on Monday, {b} on Tuesday and {c} on Friday. How many {s} is that?",
    ),
    "+-": _templates(
        "{A} has {a} {s}, buys {b} more and then loses {c}. How many {s} does {A} have left?",
        "There are {a} {s} in a box. {A} adds {b}. {B} takes out {c}. How many {s} are left?",
    ),
    "-+": _templates(
        "{A} has {a} {s}, gives {b} to {B} and buys {c}. How many {s} does {A} have now?",
        "There are {a} {s} in a box. {A} takes {b}. {B} adds {c}. How many {s} are there now?",
    ),
    "--": _templates(
        "{A} has {a} {s}, gives {b} to {B} and loses {c}. How many {s} does {A} have left?",
        "There are {a} {s} in a box. {A} takes {b} and {B} takes {c}. How many {s} are left?",
    ),
    "*+": _templates(
        "{A} has {a} boxes with {b} {s} in each, and {c} loose {s}. How many {s} does {A} have?",
        "{A} lays out {a} rows of {b} {s}. {B} adds {c} {s}. How many {s} are there now?",
    ),
    "*-": _templates(
        "{A} has {a} boxes with {b} {s} in each. {A} loses {c} {s}. How many {s} are left?",
        "{A} buys {a} bags of {b} {s}. {A} gives {c} {s} to {B}. How many {s} does {A} keep?",
    ),
    "+*": _templates(
        "{A} puts {a} red {s} and {b} blue {s} into each box. How many {s} are in {c} boxes?",
        "{A} finds {a} {s} and {B} finds {b} each day. How many {s} do they find in {c} days?",
    ),
}
ONE_STEP_HINTS = {
    "+": "The answer is larger than both numbers.",
    "-": "The answer is smaller than the first number.",
    "*": "Every group has the same size.",
}
FIRST_HINTS = {
    "+": "Add the first two numbers",
    "-": "Subtract the second number from the first",
    "*": "Multiply the first two numbers",
}
LAST_HINTS = {"+": "add the last number", "-": "subtract the last number", "*": "multiply by the last number"}
