from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd_lab.steps import Segment, Step, arithmetic_steps, error_phases, label_segments, segments, span_tokens

TEXTS = st.text(alphabet=list("ab1 .!?\n\t$\\[](){}*-=+<>/think🙂שé。…")) | st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "7 + 5 = 12",
            "e.g. ",
            "\n\n",
            "1. ",
            "$x. y$",
            "Dr. A",
            "3.5",
            " ",
            "2. ",
            "[THINK]",
            "<|channel|>analysis",
            "<|end|>",
        ]
    )
).map("".join)


def texts_of(text: str, by: str) -> list[str]:
    return [text[part.start : part.end] for part in segments(text, by)]


@pytest.mark.parametrize("by", ["lines", "sentences", "think"])
@given(text=TEXTS)
def test_segments_are_disjoint_in_order_and_hold_every_visible_character(by, text):
    parts = segments(text, by)
    assert all(before.end <= after.start for before, after in pairwise(parts))
    covered = {i for part in parts for i in range(part.start, part.end)}
    assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    assert all(piece == piece.strip() != "" for piece in texts_of(text, by))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It is 3.5 m, e.g. Dr. Who vs. him. Yes.", ["It is 3.5 m, e.g. Dr. Who vs. him.", "Yes."]),
        ("So $a. B$ holds. \\[x. Y\\] too.", ["So $a. B$ holds.", "\\[x. Y\\] too."]),
        ("First\n\nsecond", ["First", "second"]),
        ("Cases:\n1. This. And that.\n2. More.", ["Cases:", "1. This.", "And that.", "2. More."]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("שלום. 你好。🙂", ["שלום.", "你好。", "🙂"]),
        ("Wait 30 min. later he left. Done.", ["Wait 30 min. later he left.", "Done."]),
        ("It is 5 sq. ft. each. So 10.", ["It is 5 sq. ft. each.", "So 10."]),
        ("He is 3 ft. 4 in. tall. He grew 2 in. Then 3 more.", ["He is 3 ft. 4 in. tall.", "He grew 2 in.", "Then 3 more."]),
        ("Jan. 5 was cold. See vol. 3.", ["Jan. 5 was cold.", "See vol. 3."]),
        ("1. First. 2. Second. 3. Third.", ["1. First.", "2. Second.", "3. Third."]),
        ("Steps: 1. Add. 2. Stop.", ["Steps:", "1. Add.", "2. Stop."]),
        ("He has 2. She has 3. They have 5.", ["He has 2.", "She has 3.", "They have 5."]),
        ("a.\nb. c</think> d.", ["a.", "b.", "c</think>", "d."]),
        ("<think>a. b.</think> C.", ["<think>a.", "b.</think>", "C."]),
        ("◁think▷So◁/think▷It is 5.", ["◁think▷So◁/think▷", "It is 5."]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text, sentences):
    assert texts_of(text, "sentences") == sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a. b</think> c", [("<think>a. b</think>", "think"), ("c", "answer")]),
        ("a <think>open to the end", [("a", "answer"), ("<think>open to the end", "think")]),
        ("begun in the prompt</think> c", [("begun in the prompt</think>", "think"), ("c", "answer")]),
        ("no thoughts", [("no thoughts", "answer")]),
        ("<thinking>a</thinking>b", [("<thinking>a</thinking>", "think"), ("b", "answer")]),
        ("[THINK]a[/THINK]b", [("[THINK]a[/THINK]", "think"), ("b", "answer")]),
        ("a[/THINK]b", [("a[/THINK]", "think"), ("b", "answer")]),
        ("◁think▷a◁/think▷b", [("◁think▷a◁/think▷", "think"), ("b", "answer")]),
        ("<think>a</thinking>b</think>c", [("<think>a</thinking>b</think>", "think"), ("c", "answer")]),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
            [
                ("<|channel|>analysis<|message|>a<|end|>", "think"),
                ("<|start|>assistant<|channel|>final<|message|>b", "answer"),
            ],
        ),
        ("<|channel|>analysis a <|channel|>final b", [("<|channel|>analysis a", "think"), ("<|channel|>final b", "answer")]),
        ("<think>a</think>b<think>c", [("<think>a</think>", "think"), ("b", "answer"), ("<think>c", "think")]),
    ],
)
def test_what_is_thought_is_told_from_what_is_answered(text, parts):
    assert [(text[p.start : p.end], p.kind) for p in segments(text, "think")] == parts


def test_lines_and_equations_are_cut_as_they_stand():
    assert texts_of(" a\r\n\n b \n", "lines") == ["a", "b"]
    assert texts_of("so 1 + 1 = 2.", "equations") == ["1 + 1 = 2"]


def test_an_unknown_way_to_cut_is_refused():
    with pytest.raises(ValueError, match="by='words' is not one of"):
        segments("a", "words")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1 + 1 = 2 and 2 + 2 = 4", "correct"),
        ("1 + 1 = 2 and 2 + 2 = 5", "incorrect"),
        ("1 + 1 = 2 and 2x + 1 + 1 = 4", "unverifiable"),
        ("2x + 1 + 1 = 4 and 2 + 2 = 5", "incorrect"),
        ("nothing to check", "unverifiable"),
    ],
)
def test_a_segment_is_as_good_as_its_worst_equation(text, label):
    (step,) = label_segments(text, segments(text, "lines"), arithmetic_steps(text))
    assert step == Step(0, len(text), text, label, "arithmetic" if "=" in text else "", "line")


def test_an_equation_across_two_segments_counts_where_it_begins():
    text = "1 + 1 = 3 end"
    steps = label_segments(text, [Segment(0, 4, "line"), Segment(4, 13, "line")], arithmetic_steps(text))
    assert [step.label for step in steps] == ["incorrect", "unverifiable"]


def test_phases_part_at_the_first_incorrect_step():
    tokens = ["1+1=2", " ", "1+1=3", ", ", "1+1=4"]
    steps = arithmetic_steps("".join(tokens))
    assert error_phases(tokens, steps) == ["before", "before", "first_error", "after", "after"]
    assert error_phases(tokens[:2], steps[:1]) == ["before", "before"]


def test_a_span_is_mapped_to_the_tokens_that_hold_it():
    tokens = ["The", " cat", " sat", ".\n"]
    assert span_tokens(tokens, 4, 7) == (1, 2)
    assert span_tokens(tokens, 3, 8) == (1, 2), "blanks at the edges count for nothing"
    assert span_tokens(tokens, 0, 13) == (0, 4)


def test_parts_of_a_character_belong_to_the_token_that_completes_it():
    assert span_tokens(["a", "", "", "🙂", "b"], 1, 2) == (1, 4)


def test_a_span_that_cuts_a_token_is_refused_or_widened():
    tokens = ["The", " cat", " sat"]
    with pytest.raises(ValueError, match=r"cuts token 1, ' cat', between 'c' and 'at'"):
        span_tokens(tokens, 5, 11)
    assert span_tokens(tokens, 5, 11, cut="widen") == (1, 3)


@given(tokens=st.lists(st.text(max_size=4), min_size=1), data=st.data())
def test_widened_spans_hold_their_visible_characters(tokens, data):
    text = "".join(tokens)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    if not text[start:end].strip():
        with pytest.raises(ValueError, match="no visible character"):
            span_tokens(tokens, start, end, "widen")
        return
    first, last = span_tokens(tokens, start, end, "widen")
    assert text[start:end].strip() in "".join(tokens[first:last])
