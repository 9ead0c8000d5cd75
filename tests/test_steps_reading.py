"""What may stand beside written arithmetic, and what its verdict is then."""

import time

import pytest

from opsd_lab.steps import arithmetic_steps


def labels(text: str) -> list[str]:
    return [step.label for step in arithmetic_steps(text)]


@pytest.mark.parametrize(
    "text",
    [
        "so .5*2=1 hour",
        "4+2+.50+1.50 = $8.00",
        "17 000/5 = 3 400.",
        "$80 000 x 20/100 = $16 000.",
        r"\[69{,}999 \div 3 = 23{,}333\]",
        r"1\,000 \times 3 = 3\,000",
        r"9 \times 100 = 4,\!060 - 3,\!160",
        "8 x 1 1/2 = 12 rolls",
        "3 / 2 = 1 1/2 hours",
        "16½ + 24½ = 41",
        "120 – 80 - 15 = 25 points",
        "10 — 4 - 1 = 5",
        r"$x=\frac{1}{2}(2+6)=4$",
        r"$\frac{5}{12}(40)(39)=650$",
        r"$\left(1+2\right)(1+3)=3 \cdot 4$",
        r"$\frac12 + \frac{1}{3} = \dfrac{5}{6}$",
        "2 * [3 + (4 - 1)] = 12",
        "５＋３＝８",
        "3 ∗ 4 ∙ 2 = 24 ∕ 1 ⁄ 1",
        "1/2 * 4 = \n2",
        "7 + 5\n   = 12",
        "60 students x 2/3 = 40 students",
        "2 trains * 80 miles/train = 160 miles",
        "200 GB / 2 GB/minute = 100 minutes",
        "16 bottles of bleach * $2 per bottle = $32",
        r"3 \text{ hours} \times 60 = 180 \text{ miles}",
        "9 * $2 = $18",
        "30 * 20% = 6",
        "20% + 30% = 50%",
        "3/4 * 100 = 75%",
        "90° + 30° = 120°",
        r"90^\circ - 30^{\circ} = 60^\circ",
        "for a total of 5 + 27 = 32 crayons",
        "a profit of $60-$40 = $20",
        "She has 3 - 1 = 2 times the money",
        "That is 1 + 5 = 6th place",
        "所以3+4=7，对",
    ],
)
def test_what_was_read_whole_and_agrees_is_correct(text):
    assert set(labels(text)) == {"correct"}


@pytest.mark.parametrize(
    "text",
    [
        "a total of 5 + 27 = 33 crayons",
        "so the profit is $60-$40 = $30",
        "12 miles + 3 miles = 45 miles",
        "Seattle has 4 * 20 sheep = 81 sheep",
        "He paid (3 + 4 = 8) and left.",
        "1 + 1 = 3 and 2 + 2 = 5",
        "- 3 + 4 = 8\n- 5 + 6 = 12",
        "1. 3 + 4 = 8\n2. 5 + 6 = 12",
        r"\[ 3 + 4 = 8 \] and $5 \cdot 6 = 31$",
        r"$$\frac{1}{2} + \frac{1}{3} = \frac{2}{5}$$",
        "If she pays 20, she gets 20 - 10 = 11 back.",
        "so that's 5*5 = 55 classes",
        "20% + 30% = 60%",
        "Therefore $3 + $4 = $8.",
        "5 + 3 = 9 ; 5 + 4 = 10 ; 6 : 1 + 1 = 3",
        "5 + 3 = 9. 9 * 2 = 19. The end",
        "<think>1 + 1 = 3</think>",
    ],
)
def test_what_was_read_whole_and_does_not_agree_is_incorrect(text):
    assert set(labels(text)) == {"incorrect"}


# One list a kind of thing that touches the arithmetic without being read, or gives it another reading.
NOT_JUDGED_FALSE = {
    "mixed numbers and remainders": [
        "12 x 1 and 1/4 = 15",
        "8 x 1-1/2 = 12",
        "17/3 = 5 and 2/3 loads",
        "7 / 2 = 3 and a half",
        r"\[ 63 \div 5 = 12 \text{ remainder } 3. \]",
        "63 / 5 = 12 R3",
        "63 / 5 = 12 r 3",
        "63 / 5 = 12, remainder 3",
        "63 / 5 = 12 (remainder 3)",
        "13 / 6 = 2 full cycles with a remainder of 1",
        "23 / 4 = 5 with 3 left over",
        "The quotient: 500 / 13 = 13 * 38 + 6",
    ],
    "factors without a sign": [
        "$|{-3}|(2+1)=8$",
        "(1/2) 278 = 139 + 1",
        "1/2 (68) = 33 + 0",
        r"$2^2)(1+3)=4 \cdot 5$",
        r"\frac{1}{2} 3 + 4 = 8",
    ],
    "unknowns": [
        "26=5+3x",
        "150 =10+4c.",
        "4000=(1/2)X",
        "$7 - 3 = 2 k$",
        "20 x 60 = 10 x S2",
        "so 12 = 3 * 2 y",
        "1 + 2 = 4ab",
        "y 3 + 4 = 8",
    ],
    "functions and operators": [
        r"$\log_{2} 8=1+2$",
        r"$\sin 30 = 1/2$",
        "log 100 = 1 + 1",
        "f(6) = 3 + 4",
        r"$5\star 1 = 9(5)+2(1)$",
        "√16 + 1 = 5",
        "∠ 3 + 4 = 8",
        "|3 - 5| = 2 + 1",
        "twice 3 + 4 = 10",
        "5 more than 3 + 4 = 12",
        "7 // 2 = 3",
        "7 % 2 = 1 + 1",
        "10 choose 2 = 9 * 5",
        "We have $4 * 3 = 2(4)+3(3)$",
    ],
    "groups of digits": ["1.000,5 + 1 = 1.001,5", "16,0000 + 1 = 16,001", "14, 400 + 1 = 14, 401", "0x10 + 1 = 17", "3 + 4 = 5, 007"],
    "units between factors or behind the result": [
        "5 feet * 2 = 120 inches",
        "$2.50 - $2.24 = 26 cents",
        "$1 / 2 = 50 cents",
        "1500 + 500 = 2 thousand",
        "30 + 30 = 1 hour",
        "6 + 6 = 1 dozen",
        "500 + 500 = 1 km",
        "1/4 + 1/4 = 50%",
        "45 + 45 = 1 hour 30 minutes",
        "5 weeks * 2 = 11 days",
    ],
    "digits that go on or were rounded": [
        "100/18=5.5 ...",
        "2/3 = 0.666…",
        r"2/3 = 0.6\ldots",
        r"40/3=13 . \overline{3}",
        "140/60=2.3333333333333335",
        "100 / 0.30 = 333.33333333333337",
        "2/3 = 0.66",
        "16.67 * 3 = 50",
        "0.33 + 0.33 + 0.33 = 1",
        "100 / 12 = 8 boxes",
        "about 100 / 3 = 30",
    ],
    "numbers that are names": [
        "Weeks 3-4 from Weeks 1-2 = 96 - 70",
        "pages 3-5 = 3 pages",
        "on day 1 * 2 = 20 pages",
        "Equation (1) + (2) = 10 + 5",
        "Problem 3.2 = 5*1",
        "The 2 + 2 deal = 5",
    ],
    "clocks": ["The time is 3:45 + 30 = 4:15", "0900-0130 = 0730 hours", "9 + 5 = 2 pm", "9 + 5 = 2 o'clock", "9:00: 9 + 5 = 2 PM"],
    "several readings": [
        "14 / 1 / 4 = 14 * 4",
        "$2000 / 2/3 = $3000",
        "6 ÷ 2(1+2) = 1",
        "4*3*2/3*2*1 = 4",
        "12 / 2*3 = 2",
        "5 -- 3 + 4 = 6",
        "2 * (3 + 4 = 14",
        "5 +\n3 + 4 = 12",
        "2 * 4 = 5\n* 3",
    ],
    "supposed or denied": [
        "Suppose 2 + 2 = 5; that is a contradiction.",
        "If 7*8 = 54, then ... but 7*8=56.",
        "We can't have 5 + 5 = 11.",
        "It is not 5 + 5 = 11.",
        "Let us try: 5 + 5 = 11. This is not true.",
        "Is 5 + 5 = 11?",
        "5 + 5 = 11 is impossible",
        "Assume the opposite. Then 2 + 2 = 5.",
        "He thinks 2 + 2 = 5",
    ],
    "a dash that may be a minus": ["- 5 + 3 = -2", "First:\n- 5 + 3 = -2", "- 2 * 3 + 1 = -5", "- 7 - 1 = -8"],
    "other rules": [
        r"$1 + 1 = 10_2$",
        "1 + 1 = 10₂",
        "In base 5, 3 + 4 = 12",
        "7 * 8 = 6 (mod 10)",
        "In binary 1 + 1 = 10",
        "on a clock 9 + 5 = 2",
    ],
}


@pytest.mark.parametrize("text", [text for texts in NOT_JUDGED_FALSE.values() for text in texts])
def test_what_touches_it_unread_or_reads_it_otherwise_keeps_it_from_being_called_incorrect(text):
    assert "incorrect" not in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "√16 + 1 = 17",
        "5/5 – 1/5 = 1/5",
        "1 1/2 x 4 = 2",
        r"$\log_{2} 8 = 4 + 4$",
        ".5*2 = 10",
        "half of 3 + 4 = 7",
        "2 plus 3 + 4 = 7",
        "x3 + 4 = 7",
        "3 + 4 = 7x",
        "3 + 4 = 7.5.1",
        "3 + 4 = 7:30",
        "5 3 + 4 = 7",
        "$2^{3} + 4 = 7$",
        "20% of 3 + 4 = 7",
        "a * b, c 3 + 4 = 7",
    ],
)
def test_a_part_that_agrees_by_chance_is_not_called_correct(text):
    assert "correct" not in labels(text)


def test_powers_are_found_but_not_judged():
    assert labels("3² + 4² = 5²") == ["unverifiable"]
    assert labels("$5^{2} = 25$ and 2**3 = 9") == ["unverifiable", "unverifiable"]


def test_characters_of_other_scripts_keep_their_places():
    (step,) = arithmetic_steps("そう：\u3000５\u2009＋３＝８！")
    assert step.text == "５\u2009＋３＝８"


@pytest.mark.parametrize(
    "piece",
    [
        "1 apple * ",
        "1 1/2 ",
        "1 000 ",
        "½",
        "[",
        r"\frac{",
        r"\text{a} ",
        "=\n",
        "\n ",
        " \n=",
        "1,\\!000",
        "**",
        "% ",
        "1\\,",
        "5/",
        "1 = ",
        "a ",
        "– ",
    ],
)
def test_time_grows_with_the_length_of_the_text_only(piece):
    started = time.monotonic()
    arithmetic_steps("1 + " + piece * (60_000 // len(piece)) + " = 2")
    assert time.monotonic() - started < 10


def test_half_a_surrogate_pair_is_a_character_like_others():
    assert labels("so 1 + 1 = 2 \udfff") == ["unverifiable"]
    assert labels("\ud800\n1 + 1 = 2") == ["correct"]
