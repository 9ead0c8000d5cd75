import pytest

from opsd_lab.tokens.classes import CLASSES, token_classes

STYLE, NUMBER, OPERATOR, CONNECTIVE, SPECIAL, SPACE, OTHER = CLASSES


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["Wait", ",", " so", " let", "'s", " check"], [STYLE, OTHER, STYLE, STYLE, STYLE, OTHER]),
        ([" the", "refore", " x"], [CONNECTIVE, CONNECTIVE, OTHER]),
        ([" so", "me", " well", "-", "known"], [OTHER] * 5),
        (["1", ",", "2", "3", "4", ".", "5", "."], [NUMBER] * 7 + [OTHER]),
        (["5", ".", " If", " 3", ","], [NUMBER, OTHER, CONNECTIVE, NUMBER, OTHER]),
        ([" $5", " (", "which", ")", ".", "\n\n", " "], [NUMBER, OPERATOR, OTHER, OPERATOR, OTHER, SPACE, SPACE]),
        (["x", "-y", " =", " -", "4"], [OTHER, OPERATOR, OPERATOR, OPERATOR, NUMBER]),
        ([" \\", "frac", "{", "1", "}", "\\alpha", "\\times"], [OPERATOR, OPERATOR, OTHER, NUMBER, OTHER, OTHER, OPERATOR]),
        (["**", "Now", "**", ":\n", "-", " milk", "\n", "  ", "*", " x"], [OTHER, STYLE, *[OTHER] * 4, SPACE, SPACE, OTHER, OTHER]),
        (["<|im_end|>", "<", "think", ">", "<｜end▁of▁sentence｜>", "</s>", "<s>"], [SPECIAL] * 7),
        ([" ", "", "", "×", "", "é"], [SPACE, OPERATOR, OPERATOR, OPERATOR, OTHER, OTHER]),
        ([" NOW", " Let’s", " Hmm"], [STYLE] * 3),
        (["a", "<", "b"], [OTHER, OPERATOR, OTHER]),
        ([" 7", " -", " 4", " *", " x"], [NUMBER, OPERATOR, NUMBER, OPERATOR, OTHER]),
    ],
)
def test_each_token_has_the_class_of_the_word_number_or_sign_it_belongs_to(tokens, expected):
    assert token_classes(tokens) == expected


def test_cutting_the_same_text_differently_gives_each_character_the_same_class():
    text = "Okay, so 1,234.5 / 2 = 617.25; \\frac{1}{2} x well-known because therefore.<|im_end|>"
    whole = token_classes(list(text))
    for size in (2, 3, 7):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        for i, name in enumerate(token_classes(pieces)):
            inside = whole[i * size : (i + 1) * size]
            own = [c for c in inside if c not in (OTHER, SPACE)]
            assert name == (own[0] if own else OTHER if OTHER in inside else SPACE)


def test_no_tokens_and_tokens_without_text_have_an_answer():
    assert token_classes([]) == []
    assert token_classes(["", ""]) == [OTHER, OTHER]
    assert token_classes(["5", ""]) == [NUMBER, OTHER]
