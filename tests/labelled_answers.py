r"""Builds `data/answers/labelled_answers.jsonl`: answers of models in invented wording, each with the right verdict by construction.

Every reference is drawn from random numbers or is a reference of CHAMP; a right answer is a rewriting of it by a rule that keeps the
value, a wrong one belongs to another value. No grader is asked. Run as a script, this writes the file; a test compares.
"""

import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

PATH = Path(__file__).parents[1] / "data" / "answers" / "labelled_answers.jsonl"
INSTANCES = 6
Made = tuple[str, list[str], list[str]]  # reference, right answers, wrong answers
KINDS: dict[str, tuple[Callable[[random.Random], Made], tuple[str, ...]]] = {}

BOXED = [
    r"\boxed{%s}",
    r"Putting the pieces together we obtain \boxed{%s}",
    r"\[ \boxed{%s} \] which finishes the task.",
    r"So it must be $\boxed{%s}$ .",
]
THOUGHT = [
    "<think>\nA first guess would be \\boxed{77}. Checking that again, it fails.\n</think>\n\n\\boxed{%s}",
    "<think>Try 77 first? No.</think> After a second look the value is \\boxed{%s}.",
    "[THINK]\\boxed{77} perhaps[/THINK]\\boxed{%s}",
]
FORMULA = [
    "Working it out, the requested quantity is $%s$.",
    "Our result: $%s$",
    r"Therefore we end with \(%s\).",
    r"In the end \[ %s \]",
]
PLAIN = ["Working it out, one is left with %s.", "Result: %s", "**%s**", "It follows that there remain %s"]


def kind(*formats: str) -> Callable:
    """Register a kind by its maker's name, with the formats that its answers may stand in."""

    def register(make: Callable[[random.Random], Made]) -> Callable:
        KINDS[make.__name__] = (make, formats or ("boxed", "thought"))
        return make

    return register


ALL, BOX_AND_FORMULA = ("boxed", "thought", "formula", "plain"), ("boxed", "thought", "formula")


def frac(value: Fraction, command: str = "frac") -> str:
    sign = "-" if value < 0 else ""
    return rf"{sign}\{command}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def proper(draw: random.Random) -> Fraction:
    bottom = draw.randrange(3, 40)
    return Fraction(draw.choice([t for t in range(1, bottom) if math.gcd(t, bottom) == 1]), bottom)


def squarefree(draw: random.Random) -> int:
    return draw.choice([2, 3, 5, 6, 7, 10, 11, 13, 14, 15])


@kind(*ALL)
def whole_number(draw: random.Random) -> Made:
    n = draw.randrange(11, 999)
    return str(n), [f"{n}", f"{n}.0", f"+{n}"], [f"{n + 1}", f"{n}0", f"-{n}", f"{n}.5"]


@kind(*ALL)
def negative_number(draw: random.Random) -> Made:
    n = draw.randrange(11, 999)
    return f"-{n}", [f"-{n}", f"\u2212{n}", f"\u2013{n}"], [f"{n}", f"-{n - 1}", f"-{n}0"]


@kind(*BOX_AND_FORMULA)
def thousands(draw: random.Random) -> Made:
    a, b = draw.randrange(1, 99), draw.randrange(100, 999)
    return (
        f"{a}{b}",
        [f"{a},{b}", f"{a}{{,}}{b}", rf"{a}\,{b}", rf"{a},\!{b}"],
        [f"{a},{b + 1}", rf"{a + 1}\,{b}", f"{b}", f"{a}.{b}"],
    )


@kind("boxed", "thought", "plain")
def spaced_thousands(draw: random.Random) -> Made:
    a, b = draw.randrange(1, 99), draw.randrange(100, 999)
    return f"{a}{b}", [f"{a}\u202f{b}", f"{a}\u00a0{b}", f"{a} {b}"], [f"{a}\u202f{b - 1}", f"{a + 1} {b}"]


@kind(*ALL)
def decimal(draw: random.Random) -> Made:
    n = draw.randrange(101, 9999)
    n += n % 10 == 0
    text, value = f"{n / 100:.2f}", Fraction(n, 100)
    return text, [text, f"{text}0", str(value)], [f"{n / 10:.1f}", f"-{text}", f"{(n + 1) / 100:.2f}", f"{n}"]


@kind()
def decimal_comma(draw: random.Random) -> Made:
    n, d = draw.randrange(0, 60), draw.choice([d for d in range(11, 99) if d % 10])
    return f"{n}.{d}", [f"{n},{d}", f"{n}.{d}"], [f"{n},{d + 1}", f"{n + 1},{d}", f"{n}{d}"]


@kind(*BOX_AND_FORMULA)
def fraction(draw: random.Random) -> Made:
    q, k = proper(draw), draw.randrange(2, 7)
    a, b = q.numerator, q.denominator
    right = [
        frac(q),
        frac(q, "dfrac"),
        frac(q, "tfrac"),
        f"{a}/{b}",
        rf"\frac{{{a * k}}}{{{b * k}}}",
        rf"\displaystyle\frac{{{a}}}{{{b}}}",
    ]
    return f"{a}/{b}", right, [frac(1 / q), frac(q + Fraction(1, b)), frac(-q), str(a), str(b)]


@kind(*BOX_AND_FORMULA)
def negative_fraction(draw: random.Random) -> Made:
    q = -proper(draw)
    a, b = abs(q.numerator), q.denominator
    return (
        frac(q),
        [frac(q), f"-{a}/{b}", rf"\frac{{-{a}}}{{{b}}}", rf"-\dfrac{{{a}}}{{{b}}}"],
        [frac(-q), f"-{b}/{a}", f"-{a}", f"{b}"],
    )


@kind("boxed", "thought", "plain")
def mixed_number(draw: random.Random) -> Made:
    n, q = draw.randrange(2, 20), proper(draw)
    value, part = n + q, f"{q.numerator}/{q.denominator}"
    right = [f"{n} {part}", rf"{n} \frac{{{q.numerator}}}{{{q.denominator}}}"]
    return str(value), right, [f"{n + 1} {part}", f"{n} {part}".replace("/", "1/"), f"{n}"]


@kind("boxed", "thought", "plain")
def written_fraction(draw: random.Random) -> Made:
    n = draw.randrange(1, 30)
    sign, value = draw.choice(
        [("½", Fraction(1, 2)), ("¼", Fraction(1, 4)), ("¾", Fraction(3, 4)), ("⅔", Fraction(2, 3)), ("⅛", Fraction(1, 8))]
    )
    return str(n + value), [f"{n}{sign}", f"{n} {sign}"], [f"{n + 1}{sign}", f"{n}", sign]


@kind()
def percent(draw: random.Random) -> Made:
    n = draw.choice([n for n in range(11, 98) if n % 10])
    return rf"{n}\%", [rf"{n}\%", f"{n}%", f"{n} percent", f"0.{n}", f"{n}"], [rf"{n + 1}\%", f"0.0{n}", rf"{n / 10}\%"]


@kind()
def money(draw: random.Random) -> Made:
    n, c = draw.randrange(3, 90), draw.randrange(11, 99)
    right = [rf"\${n}.{c}", f"${n}.{c}", rf"{n}.{c}\text{{ dollars}}", f"€{n}.{c}", f"£{n}.{c}"]
    return f"{n}.{c}", right, [rf"\${n}.{c - 1}", rf"\${n}{c}", f"£{n + 1}.{c}", rf"{n}\text{{ dollars}}"]


@kind()
def cents_for_dollars(draw: random.Random) -> Made:
    c = draw.randrange(11, 99)
    return rf"\$0.{c}", [f"{c} cents", rf"{c}\text{{ cents}}", f"$0.{c}"], [f"{c + 1} cents", f"${c}"]


@kind()
def unit_in_the_answer(draw: random.Random) -> Made:
    n = draw.randrange(11, 500)
    units = [
        r"\text{ cm}",
        r"~\mathrm{km}",
        r"\ \text{square feet}",
        " marbles",
        r"\text{ m}^2",
        " kilometres per hour",
        " kg",
        r"\,\text{N}",
        " litres",
    ]
    draw.shuffle(units)
    return str(n), [f"{n}{unit}" for unit in units[:5]], [f"{n + 1}{unit}" for unit in units[5:]] + [f"{n}x"]


@kind()
def variable_in_the_reference(draw: random.Random) -> Made:
    n, letter = draw.randrange(3, 60), draw.choice("mgskthld")
    return f"{n}{letter}", [f"{n}{letter}", rf"{n} \cdot {letter}", f"{letter} * {n}"], [f"{n}", f"{n + 1}{letter}", f"{n}{letter}^2"]


@kind()
def converted_unit(draw: random.Random) -> Made:
    h, m = draw.randrange(2, 9), draw.choice([15, 30, 45])
    total = 60 * h + m
    right = [f"{h} hours {m} minutes", f"{total / 60} hours"]
    return f"{total} minutes", right, [f"{h + 1} hours {m} minutes", f"{h} hours", f"{total + 5} minutes"]


@kind()
def degrees(draw: random.Random) -> Made:
    n = draw.randrange(11, 179)
    return f"{n}", [rf"{n}^\circ", rf"{n}^{{\circ}}", f"{n}°", f"{n} degrees"], [rf"{n + 2}^\circ", f"{n - 1}°"]


@kind()
def time_of_day(draw: random.Random) -> Made:
    h, m = draw.randrange(1, 11), draw.randrange(13, 58)
    return (
        f"{h}:{m}",
        [f"{h}:{m}", rf"{h}:{m}\text{{ a.m.}}", f"0{h}:{m}" if h < 10 else f"{h}:{m}"],
        [f"{h}:{m + 1}", f"{h + 1}:{m}", f"{m}", f"{h}"],
    )


@kind("plain")
def piece_of_a_time(draw: random.Random) -> Made:
    h, m = draw.randrange(1, 12), draw.randrange(13, 58)
    return f"{h}:{m}", [f"{h}:{m}"], [f"{h}:{m + 1}", f"{m}"]


@kind()
def ratio(draw: random.Random) -> Made:
    a, b = draw.choice([(a, b) for a in range(2, 30) for b in range(2, 30) if math.gcd(a, b) == 1 and a != b])
    return f"{a}:{b}", [f"{a} : {b}", f"{a}:{b}", f"{3 * a}:{3 * b}"], [f"{b}:{a}", f"{a}", f"{a + 1}:{b}", f"{a}:{b}:1"]


@kind(*BOX_AND_FORMULA)
def radical(draw: random.Random) -> Made:
    a, r = draw.randrange(2, 12), squarefree(draw)
    right = [rf"{a}\sqrt{{{r}}}", rf"\sqrt{{{a * a * r}}}", f"{a}√{r}", f"{a}*sqrt({r})", rf"\frac{{{a * r}}}{{\sqrt{{{r}}}}}"]
    return rf"{a}\sqrt{{{r}}}", right, [rf"{a + 1}\sqrt{{{r}}}", rf"\sqrt{{{a * r}}}", f"{a}", f"{r}", rf"{a}\sqrt[3]{{{r}}}"]


@kind(*BOX_AND_FORMULA)
def sum_with_radical(draw: random.Random) -> Made:
    a, b, r = draw.randrange(2, 20), draw.randrange(2, 9), squarefree(draw)
    right = [rf"{b}\sqrt{{{r}}}+{a}", rf"{a} + {b} \sqrt{{{r}}}", rf"{a}+\sqrt{{{b * b * r}}}"]
    return rf"{a}+{b}\sqrt{{{r}}}", right, [rf"{a}-{b}\sqrt{{{r}}}", rf"{b}+{a + b}\sqrt{{{r}}}", rf"{a}+\sqrt{{{b * r}}}"]


@kind(*BOX_AND_FORMULA)
def multiple_of_pi(draw: random.Random) -> Made:
    n = draw.randrange(2, 60)
    return (
        rf"{n}\pi",
        [rf"{n}\pi", f"{n}π", f"{n} pi", rf"\frac{{{2 * n}\pi}}{{2}}"],
        [f"{n}", rf"{n + 1}\pi", rf"{n}\pi^2", rf"\frac{{\pi}}{{{n}}}"],
    )


@kind(*BOX_AND_FORMULA)
def power(draw: random.Random) -> Made:
    a, n = draw.randrange(2, 9), draw.randrange(3, 9)
    return (
        f"{a}^{{{n}}}",
        [f"{a}^{n}" if n < 10 else f"{a}^{{{n}}}", f"{a**n}", rf"{a} \cdot {a}^{{{n - 1}}}"],
        [f"{a}^{{{n + 1}}}", f"{a * n}", f"{n}"],
    )


@kind("boxed", "thought", "formula", "plain")
def scientific(draw: random.Random) -> Made:
    m, e = draw.choice([m for m in range(12, 98) if m % 10]), draw.randrange(3, 9)
    value = m * 10 ** (e - 1)
    return (
        str(value),
        [rf"{m / 10} \times 10^{{{e}}}", rf"{m / 10} \cdot 10^{{{e}}}"],
        [rf"{m / 10} \times 10^{{{e + 1}}}", rf"{(m + 1) / 10} \times 10^{{{e}}}"],
    )


@kind("boxed", "thought", "plain")
def e_notation(draw: random.Random) -> Made:
    m, e = draw.choice([m for m in range(12, 98) if m % 10]), draw.randrange(2, 9)
    return str(m * 10 ** (e - 1)), [f"{m / 10}e{e}", f"{m / 10}E{e}"], [f"{m / 10}e{e + 1}", f"{m / 10}e-{e}", f"{e}"]


@kind()
def tiny_number(draw: random.Random) -> Made:
    n, m = draw.randrange(30, 300), draw.randrange(2, 9)
    right = [rf"\frac{{1}}{{{n}!}}", rf"\frac{{{m}}}{{{m}\cdot {n}!}}", rf"\dfrac{{1}}{{{n} \cdot {n - 1}!}}"]
    return rf"\frac{{1}}{{{n}!}}", right, [rf"\frac{{1}}{{{n + 1}!}}", rf"\frac{{{m}}}{{{n}!}}", "0"]


@kind()
def tiny_decimal(draw: random.Random) -> Made:
    m, zeros = draw.randrange(2, 8), draw.randrange(7, 14)
    text = "0." + "0" * zeros + str(m)
    return (
        text,
        [text, rf"{m} \times 10^{{-{zeros + 1}}}", f"{m}e-{zeros + 1}"],
        ["0." + "0" * zeros + str(m + 1), f"{m}e-{zeros}", "0"],
    )


@kind()
def repeating_decimal(draw: random.Random) -> Made:
    cycle = draw.choice([c for c in range(12, 99) if c % 11])
    q = Fraction(cycle, 99)
    return (
        str(q),
        [rf"0.\overline{{{cycle}}}", f"0.({cycle})", f"0.{cycle}{cycle}{cycle}..."],
        [rf"0.\overline{{{cycle + 1}}}", f"0.{cycle}"],
    )


@kind()
def rounded_to_six_places(draw: random.Random) -> Made:
    q = draw.choice([Fraction(a, b) for b in (7, 13, 17, 19, 23) for a in range(1, b)])
    text = f"{q.numerator / q.denominator:.8f}"
    return str(q), [text], [f"{q.numerator / q.denominator:.2f}", f"{q.numerator / q.denominator + 1e-4:.8f}"]


@kind(*BOX_AND_FORMULA)
def polynomial(draw: random.Random) -> Made:
    p, q = draw.randrange(2, 9), draw.randrange(10, 15)
    right = [
        f"x^2-{p + q}x+{p * q}",
        f"(x-{p})(x-{q})",
        f"{p * q} - {p + q}x + x^2",
        rf"\left(x-{q}\right)\left(x-{p}\right)",
        f"x²-{p + q}x+{p * q}",
    ]
    return f"x^2-{p + q}x+{p * q}", right, [f"x^2+{p + q}x+{p * q}", f"(x+{p})(x-{q})", f"x^2-{p + q}x", f"y^2-{p + q}y+{p * q}"]


@kind(*BOX_AND_FORMULA)
def rational_function(draw: random.Random) -> Made:
    a, b = draw.randrange(2, 9), draw.randrange(10, 19)
    right = [rf"\frac{{{a}}}{{x+{b}}}", f"{a}/(x+{b})", rf"{a}(x+{b})^{{-1}}", rf"\frac{{{2 * a}}}{{2x+{2 * b}}}"]
    return rf"\frac{{{a}}}{{x+{b}}}", right, [rf"\frac{{{a}}}{{x-{b}}}", rf"\frac{{{a}}}{{x}}+{b}", rf"\frac{{x+{b}}}{{{a}}}"]


@kind()
def several_variables(draw: random.Random) -> Made:
    a, b = draw.randrange(2, 9), draw.randrange(2, 9)
    return (
        f"{a}xy+{b}z",
        [f"{b}z+{a}xy", f"{a}yx+{b}z", rf"{a} \cdot x \cdot y + {b} z"],
        [f"{a}xy-{b}z", f"{a}xz+{b}y", f"{a}Xy+{b}z", f"{a}x+{b}z"],
    )


@kind()
def letter_case_and_index(draw: random.Random) -> Made:
    letter = draw.choice("nmkpqrt")
    return letter, [letter, f"${letter}$"], [letter.upper(), f"{letter}_1", f"{letter}'"]


@kind()
def line(draw: random.Random) -> Made:
    m, b = draw.randrange(2, 9), draw.randrange(2, 30)
    return (
        f"y = {m}x + {b}",
        [f"y={b}+{m}x", f"{m}x - y + {b} = 0", f"y - {b} = {m}x", f"{m}x+{b}"],
        [f"y={m}x-{b}", f"x={m}y+{b}", f"{m}x+y+{b}=0"],
    )


@kind()
def circle(draw: random.Random) -> Made:
    r, a = draw.randrange(2, 9), draw.randrange(1, 9)
    right = [f"(x-{a})^2 + y^2 = {r * r}", f"y^2 = {r * r} - (x-{a})^2", f"x^2-{2 * a}x+{a * a}+y^2={r * r}"]
    return f"(x-{a})^2+y^2={r * r}", right, [f"(x+{a})^2+y^2={r * r}", f"(x-{a})^2+y^2={r}", f"(x-{a})^2-y^2={r * r}"]


@kind()
def equation_without_real_roots(draw: random.Random) -> Made:
    a = draw.randrange(2, 90)
    return f"t^2+{a}=0", [f"t^2=-{a}", f"2t^2+{2 * a}=0"], [f"t^2+{a + 1}=0", f"u^2=-{a + 3}", f"t^4+{a}=0"]


@kind()
def named_value(draw: random.Random) -> Made:
    n, name = draw.randrange(11, 400), draw.choice(["x", "n", "S_{10}", "f(3)", r"\angle ABC", r"\text{Area}"])
    return f"{n}", [f"{name} = {n}", f"{name}={n}.0", f"{n}"], [f"{name} = {n + 3}", f"{name}=-{n}"]


@kind()
def interval(draw: random.Random) -> Made:
    a, b = sorted(draw.sample(range(-20, 40), 2))
    right = [
        f"[{a},{b})",
        f"[{a}, {b}[",
        rf"{a} \le x < {b}",
        rf"\{{x \mid {a} \leq x < {b}\}}",
        rf"x \in [{a}, {b})",
        rf"\left[{a}, {b}\right)",
    ]
    return f"[{a}, {b})", right, [f"({a},{b})", f"[{a},{b}]", rf"{a} < x \le {b}", f"[{a},{b + 1})", f"x \\ge {a}"]


@kind()
def half_line(draw: random.Random) -> Made:
    a = draw.randrange(2, 60)
    right = [rf"({a}, \infty)", f"x > {a}", rf"{a} < x", rf"(\frac{{{2 * a}}}{{2}}, +\infty)", rf"]{a}, \infty[", f"x>{a}.0"]
    return rf"({a},\infty)", right, [rf"[{a},\infty)", f"x<{a}", rf"x \ge {a}", rf"(-\infty, {a})", f"{a}"]


@kind()
def inequality(draw: random.Random) -> Made:
    a = draw.randrange(2, 60)
    return (
        rf"x \leq {a}",
        [rf"(-\infty, {a}]", f"x ≤ {a}", f"{a} >= x", rf"]-\infty, {a}]"],
        [f"x < {a}", rf"x \ge {a}", rf"(-\infty, {a})", f"x={a}"],
    )


@kind()
def union_of_intervals(draw: random.Random) -> Made:
    a, b = sorted(draw.sample(range(-20, 40), 2))
    right = [rf"(-\infty,{a})\cup({b},\infty)", rf"({b},\infty) \cup (-\infty,{a})", rf"x<{a} \text{{ or }} x>{b}", f"x>{b} or x<{a}"]
    return (
        rf"(-\infty, {a}) \cup ({b}, \infty)",
        right,
        [rf"(-\infty,{a}]\cup[{b},\infty)", f"({a},{b})", rf"(-\infty,{a})", rf"{a}<x<{b}"],
    )


@kind()
def solutions(draw: random.Random) -> Made:
    a, b, c = draw.sample(range(-30, 60), 3)
    right = [
        f"{c}, {a}, {b}",
        rf"\{{{a}, {b}, {c}\}}",
        rf"{b}, {a} \text{{ and }} {c}",
        f"{a}; {b}; {c}",
        f"x = {a}, x = {b}, x = {c}",
    ]
    return f"{a}, {b}, {c}", right, [f"{a}, {b}", f"{a}, {b}, {c + 1}", f"{a}", f"{a}, {b}, {c}, 99"]


@kind()
def boxes_in_a_row(draw: random.Random) -> Made:
    a, b = draw.sample(range(11, 90), 2)
    joins = [r" \text{ and } ", ", ", r" \quad ", " or "]
    draw.shuffle(joins)
    return f"{a}, {b}", [f"{a}}}{join}\\boxed{{{b}" for join in joins[:3]], [f"{a}}}{joins[3]}\\boxed{{{b + 1}", f"{b}"]


@kind()
def boxed_twice_in_the_reference(draw: random.Random) -> Made:
    a, b = draw.sample(range(11, 90), 2)
    return rf"\boxed{{{a}}}\text{{ or }}\boxed{{{b}}}", [f"{a}, {b}", rf"\{{{b}, {a}\}}"], [f"{b}", f"{a}", f"{a}, {b + 1}"]


@kind()
def plus_minus(draw: random.Random) -> Made:
    a, r = draw.randrange(2, 20), squarefree(draw)
    right = [
        rf"{a} \pm \sqrt{{{r}}}",
        rf"{a}+\sqrt{{{r}}}, {a}-\sqrt{{{r}}}",
        rf"\{{{a}-\sqrt{{{r}}}, {a}+\sqrt{{{r}}}\}}",
        f"{a}±√{r}",
    ]
    return rf"{a}\pm\sqrt{{{r}}}", right, [rf"{a}+\sqrt{{{r}}}", rf"\pm\sqrt{{{r}}}", rf"{a + 1}\pm\sqrt{{{r}}}"]


@kind(*BOX_AND_FORMULA)
def point(draw: random.Random) -> Made:
    a, b = draw.sample(range(-20, 20), 2)
    right = [f"({a},{b})", rf"\left({a}, {b}\right)", rf"\big({a},{b}\big)", rf"({a},\, {b}.0)"]
    return f"({a}, {b})", right, [f"({b},{a})", f"({a},{b + 1})", f"{a}", f"({a},{b},0)"]


@kind()
def pair_by_name(draw: random.Random) -> Made:
    a, b = draw.sample(range(-20, 20), 2)
    return (
        f"x={a}, y={b}",
        [rf"x = {a} \text{{ and }} y = {b}", f"y={b}, x={a}", f"({a}, {b})"],
        [f"x={b}, y={a}", f"({b},{a})", f"x={a}"],
    )


@kind()
def matrix(draw: random.Random) -> Made:
    a, b, c, d = draw.sample(range(-9, 30), 4)
    body = rf"{a} & {b} \\ {c} & {d}"
    right = [
        rf"\begin{{pmatrix}} {body} \end{{pmatrix}}",
        rf"\begin{{bmatrix}}{a}&{b}\\{c}&{d}\end{{bmatrix}}",
        rf"\left(\begin{{array}}{{cc}} {body} \end{{array}}\right)",
    ]
    wrong = [
        rf"\begin{{pmatrix}} {a} & {c} \\ {b} & {d} \end{{pmatrix}}",
        rf"\begin{{pmatrix}} {a} & {b} \\ {c} & {d + 1} \end{{pmatrix}}",
        f"({a},{b},{c})",
    ]
    return right[0], right, wrong


@kind()
def column_vector(draw: random.Random) -> Made:
    a, b, c = draw.sample(range(-9, 30), 3)
    reference = rf"\begin{{pmatrix}} {a} \\ {b} \\ {c} \end{{pmatrix}}"
    right = [reference, f"({a}, {b}, {c})", rf"\langle {a}, {b}, {c} \rangle", rf"\begin{{bmatrix}}{a}\\{b}\\{c}\end{{bmatrix}}"]
    return reference, right, [f"({c}, {b}, {a})", f"({a}, {b})", rf"\begin{{pmatrix}} {a} \\ {b} \\ {c + 2} \end{{pmatrix}}"]


@kind(*BOX_AND_FORMULA)
def complex_number(draw: random.Random) -> Made:
    a, b = draw.randrange(2, 30), draw.randrange(2, 30)
    return f"{a}+{b}i", [f"{b}i+{a}", rf"{a} + {b}\mathrm{{i}}", f"{a} + {b}.0i"], [f"{a}-{b}i", f"{b}", f"{a}", f"{b + 1}+{a}i"]


@kind()
def base_numeral(draw: random.Random) -> Made:
    n, base = draw.randrange(9, 60), draw.choice([2, 3, 5])
    digits, rest = "", n
    while rest:
        digits, rest = str(rest % base) + digits, rest // base
    other = base + 1 if base < 5 else 7
    return (
        f"{digits}_{base}",
        [f"{digits}_{{{base}}}", f"{digits}_{base}", f"{n}"],
        [f"{digits}", f"{digits}_{other}", f"{digits}0_{base}"],
    )


@kind()
def choice_letter(draw: random.Random) -> Made:
    at, n = draw.randrange(5), draw.randrange(11, 90)
    letter, other = "ABCDE"[at], "ABCDE"[(at + 1) % 5]
    right = [rf"\textbf{{({letter})}}\ {n}", f"({letter})", f"{letter}.", rf"\text{{{letter}}}", f"{letter}) {n}", f"Option {letter}"]
    return letter, right, [rf"\textbf{{({other})}}\ {n}", other, f"({other})", f"{letter}, {other}"]


@kind()
def several_choices(draw: random.Random) -> Made:
    a, b, c = sorted(draw.sample("ABCDEF", 3))
    return f"{a}{b}", [f"{a}, {b}", f"{a} and {b}", f"({a}), ({b})", f"{b}, {a}"], [f"{a}{c}", f"{a}", f"{a}, {b}, {c}"]


@kind()
def yes_or_no(draw: random.Random) -> Made:
    word, other = draw.choice([("Yes", "no"), ("No", "yes"), ("True", "false"), ("false", "True")])
    return word, [word.upper(), rf"\text{{{word.lower()}}}", f"{word}."], [other, rf"\text{{{other}}}"]


@kind()
def words(draw: random.Random) -> Made:
    text, other = draw.sample(
        ["isosceles", "rhombus", "pentagon", "Wednesday", "hyperbola", "Saturn", "ellipse", "trapezoid", "March", "proof"], 2
    )
    return (
        rf"\text{{{text}}}",
        [text, text.capitalize(), rf"\mathrm{{{text}}}", rf"\text{{{text}.}}"],
        [other, rf"\text{{{other}}}", "12"],
    )


@kind()
def number_in_words(draw: random.Random) -> Made:
    n, word = draw.choice(
        list(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]))
    )
    return f"{n}", [word, rf"\text{{{word}}}"], [f"{n + 1}", f"{n}{n or 1}"]


@kind()
def large_scale(draw: random.Random) -> Made:
    n = draw.randrange(2, 90)
    return f"{n}000000", [f"{n} million", rf"{n}\text{{ million}}", f"{n},000,000"], [f"{n}", f"{n} billion", f"{n} thousand"]


@kind()
def logarithm(draw: random.Random) -> Made:
    b, n = draw.choice([2, 3, 5, 7]), draw.randrange(2, 6)
    right = [f"{n}", rf"\log_{{{b}}} {b**n}", rf"\log_{b} {b**n}", rf"\frac{{\ln {b**n}}}{{\ln {b}}}"]
    return f"{n}", right, [rf"\log_{{{b}}} {b ** (n + 1)}", rf"\log_{{{b**n}}} {b}", f"{n + b}"]


@kind()
def trigonometry(draw: random.Random) -> Made:
    name, angle, value = draw.choice(
        [
            ("sin", 30, r"\frac{1}{2}"),
            ("cos", 60, "1/2"),
            ("tan", 45, "1"),
            ("sin", 60, r"\frac{\sqrt{3}}{2}"),
            ("cos", 45, r"\frac{\sqrt2}{2}"),
        ]
    )
    return (
        value,
        [rf"\{name} {angle}^\circ", rf"\{name}({angle}^{{\circ}})", value],
        [rf"\{name} {angle + 15}^\circ", f"{angle}", rf"-{value}"],
    )


@kind()
def factorial_and_binomial(draw: random.Random) -> Made:
    n, k = draw.randrange(7, 12), draw.randrange(2, 5)
    value = math.comb(n, k)
    right = [f"{value}", rf"\dbinom{{{n}}}{{{n - k}}}", rf"\frac{{{n}!}}{{{k}! \cdot {n - k}!}}", f"C({n}, {k})"]
    other = k + 1 if 2 * k + 1 != n else k - 1
    return rf"\binom{{{n}}}{{{k}}}", right, [f"{value + 1}", rf"\binom{{{n}}}{{{other}}}", f"{n}!"]


@kind()
def dressing(draw: random.Random) -> Made:
    n = draw.randrange(11, 900)
    right = [
        rf"\color{{blue}}{{{n}}}",
        rf"\textcolor{{teal}}{{{n}}}",
        rf"\underline{{{n}}}",
        rf"\mathbf{{{n}}}",
        rf"\huge {n}",
        rf"\,{n}\;",
        rf"{n} \\",
        f"{n};",
        rf"~{n}~",
    ]
    draw.shuffle(right)
    return f"{n}", right[:5], [rf"\color{{blue}}{{{n + 1}}}", rf"\mathbf{{{n}0}}", rf"\underline{{{n - 1}}}"]


@kind()
def words_before(draw: random.Random) -> Made:
    n = draw.randrange(11, 900)
    right = [rf"\text{{Final result: }} {n}", rf"\text{{The sum is }}{n}", rf"\text{{about }}{n}", rf"\text{{Ans: }}{n}"]
    return f"{n}", right, [rf"\text{{Final result: }} {n + 1}", rf"\text{{The sum is }}-{n}"]


@kind()
def digits_of_other_scripts(draw: random.Random) -> Made:
    n = draw.randrange(111, 9999)
    scripts = ["\uff10", "\u0660", "\u0966", "\u06f0"]
    written = ["".join(chr(ord(zero) + int(d)) for d in str(n)) for zero in scripts]
    return f"{n}", written, ["".join(chr(ord(zero) + int(d)) for d in str(n + 1)) for zero in scripts]


@kind("formula")
def piece_of_a_formula(draw: random.Random) -> Made:
    n = draw.randrange(12, 90)
    return f"{n}", [f"{n}"], [rf"\sqrt{{{n}}}", f"k^{{{n}}}", rf"\frac{{7}}{{{n}}}", f"a_{{{n}}}", f"2+{n}i", rf"3{{,}}1{n}"]


@kind("plain")
def piece_of_plain_text(draw: random.Random) -> Made:
    n = draw.randrange(12, 60)
    wrong = [f"k^{n}", f"7 - {n}i", f"4√{n}", f"9:{n}" if n < 60 else f"{n}x", f"{n}π", f"5 + {n}x", f"1.5e{n}", f"sqrt({n})"]
    return f"{n}", [f"{n}", f"{n} cm^2", f"{n} plums", f"3 + {n - 3} = {n}"], wrong


@kind()
def unreadable_reference(draw: random.Random) -> Made:
    n = draw.randrange(2, 90)
    reference = draw.choice(
        [
            f"(a) {n} (b) see the figure",
            f"the larger of the two values {n} and its neighbour",
            f"{n} +",
            rf"\frac{{{n}}}{{",
            f"{n}:3q..",
            f"5 < x > {n}",
        ]
    )
    return reference, [], [f"{n + 100}", rf"\frac{{1}}{{{n}}}", r"\text{none of them}"]


def _champ() -> Iterator[Made]:
    from opsd_lab.problems.champ import champ_problems

    for problem in champ_problems():
        text = problem.answer
        digits = [i for i, char in enumerate(text) if char.isdigit()]
        # Long answers are sentences: there is no rule that makes another answer of them.
        if (
            not digits
            or len(text) > 40
            or any(word in text for word in ("i.e.", "equivalent", "approximately", "value", "limit", "least"))
        ):
            continue
        at = digits[0]
        changed = text[:at] + str(int(text[at]) + 1) + text[at + 1 :]
        dressed = text.replace("(", r"\left(").replace(")", r"\right)")
        yield text, [text, f"${text}$", dressed, rf"\displaystyle {text}"], [changed, rf"\displaystyle {changed}"]


def build(seed: int = 20261125) -> list[dict[str, str]]:
    """Return the rows: kind, half ("tune" or "held_out", by instance), format, reference, completion, and the right verdict."""
    rows = []
    for name, (make, formats) in KINDS.items():
        draw = random.Random(f"{name} {seed}")
        for number in range(INSTANCES):
            rows += _rows(draw, name, number, make(draw), formats)
    draw = random.Random(f"champ {seed}")
    for number, made in enumerate(_champ()):
        rows += _rows(draw, "champ_reference", number, made, ("boxed", "thought"))[:: 1 if number % 4 == 0 else 2][:2]
    return rows


def _rows(draw: random.Random, name: str, number: int, made: Made, formats: tuple[str, ...]) -> list[dict[str, str]]:
    reference, right, wrong = made
    unreadable = name.startswith("unreadable")
    rows = []
    for verdict, answers in (("correct", right), ("unverifiable" if unreadable else "incorrect", wrong)):
        for answer in draw.sample(answers, min(2, len(answers))):
            format_ = draw.choice(formats)
            text = draw.choice({"boxed": BOXED, "thought": THOUGHT, "formula": FORMULA, "plain": PLAIN}[format_]) % answer
            half = "tune" if number % 2 == 0 else "held_out"
            rows.append(
                {"kind": name, "half": half, "format": format_, "reference": reference, "completion": text, "verdict": verdict}
            )
    return rows


def as_text(rows: list[dict[str, str]]) -> str:
    """Return the file's content."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PATH
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(as_text(build()), encoding="utf-8")
