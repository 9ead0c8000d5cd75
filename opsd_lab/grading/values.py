"""One value with its unit: decimals, percents, repeating digits, numerals in a base, mixed numbers, expressions."""

import re
from dataclasses import replace
from fractions import Fraction

from opsd_lab.grading.dressing import UPRIGHT
from opsd_lab.grading.expressions import parse_expression
from opsd_lab.grading.numbers import as_number
from opsd_lab.grading.operands import MAX_EXPONENT
from opsd_lab.grading.readings import Readings, Value
from opsd_lab.grading.tokens import Unreadable, in_base
from opsd_lab.grading.units import KNOWN, MULTIPLES, singular, split_unit

DECIMAL = re.compile(r"([-+]?)\s*([0-9]*)\.([0-9]+)(?:(?:[eE]|\s*(?:\*|x)\s*10\s*(?:\^|\*\*)\s*\{?)\(?\s*([-+]?[0-9]{1,3})\)?\}?)?")
SCIENTIFIC = re.compile(r"([-+]?[0-9]*\.?[0-9]+)\s*(?:x|\*)\s*10\s*(?:\^|\*\*)\s*[{(]?\s*([-+]?[0-9]+)\s*[})]?")
REPEATING = re.compile(r"([-+]?)\s*([0-9]*)\s*\.\s*([0-9]*)\s*(?:\\overline\s*(?:\{([0-9]+)\}|([0-9]))|\(([0-9]+)\))")
GOES_ON = re.compile(r"([-+]?[0-9]*\.[0-9]+)\s*(?:\\ldots|\.\.+)")
BASED = re.compile(r"(?=[A-Fa-f]*[0-9])([0-9A-Fa-f]+)\s*(?:_\s*(?:\{([^{}]*)\}|([0-9]))|\(?\s*(?:in\s+)?base\s+([0-9a-z]+)\)?)")
MULTIPLE = re.compile(rf"(.*?[0-9.)}}])\s*({'|'.join(MULTIPLES)})s?\b\s*(?:of\s+)?(.*)", re.S)
SPACED_GROUPS = re.compile(r"([-+]?[0-9]{1,3}(?: [0-9]{3})+)((?:\.[0-9]+)?)(?![0-9])")
MIXED = re.compile(r"([0-9]+)\s+and\s+((?:[0-9]+/[0-9]+)|\\frac\s*\{?[0-9]+\}?\s*\{?[0-9]+\}?)(.*)", re.S)
DANGLING = re.compile(r".*[0-9A-Za-z)}\]]\s*(?:[-+*/^=]|\*\*)", re.S)
PERCENT = re.compile(r"(.*?)\s*(?:%|(?<![A-Za-z])(?:percent|per cent)(?:age)?)(?:\s+of\s.*|\s+[a-z]+)?", re.S)
PART = re.compile(r"([-+]?[0-9.,/ ]*[0-9])\s*([A-Za-z]+\.?)(?:\s*(?:,|and)\s*|\s+|$)")


def read_value(text: str, reference: bool) -> Readings:
    """Return the ways to read one value; in a reference a bare letter is a variable, in an answer it may be a unit.

    Raises:
        Unreadable: when there is none.
    """
    if (whole := _compound(text)) is not None:
        return Readings((whole,))
    if (times := MULTIPLE.fullmatch(text)) is not None:
        return _multiplied(times, reference)
    bare, unit, sure = split_unit(text)
    if unit is None:
        return Readings(_bare_values(text))
    as_unit = tuple(replace(value, unit=unit) for value in _bare_values(bare))
    if sure and (reference or UPRIGHT not in text):
        return Readings(as_unit)
    try:
        as_variable = _bare_values(text.replace(UPRIGHT, ""))
    except Unreadable:
        as_variable = ()
    if not reference or not as_variable:
        return Readings((*as_variable, *as_unit))
    # "3 m" and "5 m/s" may be meant as measures, "3m" is a product.
    return Readings(as_variable, as_unit if re.search(r"[0-9)}] [A-Za-z]|[a-z]/[a-z]", text) else ())


def _multiplied(times: re.Match[str], reference: bool) -> Readings:
    readings = read_value(f"{times[1]} {times[3]}".strip() if times[3] else times[1], reference)
    size = ("num", Fraction(MULTIPLES[times[2]]))
    scaled = (tuple(Value(("*", size, v.tree), unit=v.unit) for v in ways) for ways in (readings.sure, readings.doubtful))
    return Readings(*scaled)


def _compound(text: str) -> Value | None:
    """Read such as "2 hours 30 minutes" in the first unit's measure; None for anything else."""
    parts = list(PART.finditer(text))
    if len(parts) < 2 or "".join(part.group() for part in parts) != text:
        return None
    units = [KNOWN.get(singular(part[2])) for part in parts]
    numbers = [as_number(part[1]) for part in parts]
    if None in units or None in numbers or len({measure for measure, _ in units}) > 1:
        return None
    first = units[0][1]
    if any(units[i][1] <= units[i + 1][1] for i in range(len(units) - 1)):
        return None
    total = sum(number * size for number, (_, size) in zip(numbers, units, strict=True)) / first
    return Value(("num", total), unit=singular(parts[0][2]))


def _bare_values(text: str) -> tuple[Value, ...]:
    if percent := PERCENT.fullmatch(text):
        return tuple(replace(value, percent=True) for value in _bare_values(percent[1]))
    text = SPACED_GROUPS.sub(lambda m: m[1].replace(" ", "") + m[2], text) if SPACED_GROUPS.fullmatch(text) else text
    text = re.sub(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])", lambda m: m[1].replace(",", ""), text)
    text = re.sub(r"(?<=[0-9)}])\s*(?<![A-Za-z])x\s*(?=[0-9(])", "*", text) if re.search(r"[0-9] ?x ?10 ?\^", text) else text
    if mixed := MIXED.fullmatch(text):
        text = f"{mixed[1]} {mixed[2]}{mixed[3]}"
    if (value := _decimal(text)) is not None:
        return (value,)
    if based := BASED.fullmatch(text):
        return (Value(("num", Fraction(in_base(based[1], based[2] or based[3] or based[4])))),)
    trees = [parse_expression(text)]
    if "/" in text and (tight := parse_expression(text, tight=True)) not in trees:
        trees.append(tight)
    return tuple(Value(tree) for tree in trees)


def _decimal(text: str) -> Value | None:
    if found := DECIMAL.fullmatch(text):
        sign, whole, places, power = found.groups()
        value = Fraction(f"{whole or 0}.{places}") * (-1 if sign == "-" else 1)
        shift = int(power or 0)
        if abs(shift) > MAX_EXPONENT:
            return None
        return Value(("num", value * Fraction(10) ** shift), len(places) - shift, len((whole + places).lstrip("0")))
    if (found := SCIENTIFIC.fullmatch(text)) and abs(int(found[2])) <= MAX_EXPONENT:
        return Value(("num", Fraction(found[1]) * Fraction(10) ** int(found[2])))
    if found := REPEATING.fullmatch(text):
        sign, whole, lead = found[1], found[2] or "0", found[3]
        cycle = found[4] or found[5] or found[6]
        tail = Fraction(int(cycle), 10 ** len(lead) * (10 ** len(cycle) - 1))
        value = Fraction(f"{whole}.{lead or 0}") + tail
        return Value(("num", -value if sign == "-" else value))
    if found := GOES_ON.fullmatch(text):
        places = len(found[1].partition(".")[2])
        return Value(("num", Fraction(found[1])), places, len(found[1].lstrip("-+0.").replace(".", "")), goes_on=True)
    return None
