import ast
import json
import math
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd_lab.token_view import contexts_view, explore, render, render_views
from opsd_lab.token_view.colours import ABOVE, BELOW, TEXT, colour, contrast
from opsd_lab.token_view.details import NAMES, number, token_details
from opsd_lab.token_view.explorer_data import frame_of_view, rollout_of_view
from opsd_lab.token_view.meanings import MEANINGS
from opsd_lab.token_view.static import default_scale
from opsd_lab.token_view.visible import literal, visible_text
from opsd_lab.tokens.table import COLUMNS, TokenTable
from opsd_lab.tokens.top import ARRAYS, TopTokens

OUR_TAGS = {
    *("div", "style", "span", "figure", "figcaption", "bdi", "i", "br", "wbr", "small", "details", "summary", "table"),
    *("caption", "thead", "tbody", "tr", "th", "td", "mark", "strong", "b"),
}
# Pieces of markup, so that a token that was not escaped is sure to be found out.
PIECES = ("<b>", "</bdi>", "<script>", "</style>", '"', "' onclick=x ", '" onclick="x', "&lt;", "<!--", "\n", " ", "\u202e")
TOKENS = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"])), max_size=4).map("".join)


class Page(HTMLParser):
    """Collects the tags of a page and, for each token, its attributes and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tokens, self.inside, self.text = [], [], False, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "bdi" and "title" in dict(attrs):
            self.tokens.append({**dict(attrs), "text": ""})
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "bdi"

    def handle_data(self, data):
        self.text += data
        if self.inside:
            self.tokens[-1]["text"] += data

    def rows(self):
        return sum(tag == "tr" for tag, _ in self.tags) - sum(tag == "thead" for tag, _ in self.tags)


def make_table(tokens=("7", " +", " 5"), gaps=None, rollout=0, **columns):
    n = len(tokens)
    gaps = np.zeros(n) if gaps is None else np.asarray(gaps, dtype=float)
    student = np.full(n, -0.5)
    numbers = dict.fromkeys(("divergence", "clipped", "loss", "student_entropy", "teacher_entropy"), 0.25)
    whole = dict.fromkeys(("student_rank", "teacher_rank"), 0)
    frame = pd.DataFrame({"token": list(tokens), "student_logprob": student, "teacher_logprob": student + gaps, "gap": gaps})
    frame = frame.assign(rollout=rollout, problem_id="sum-1", position=range(n), token_id=range(n), weight=1.0, step=-1)
    return TokenTable(frame.assign(label="", **numbers, **whole).assign(**columns))


def test_every_real_column_of_a_token_table_can_be_shown():
    real = {name for name, kind in COLUMNS.items() if kind == "float64"}
    assert set(MEANINGS) == real
    for column in real:
        assert len(Page(render(make_table(), column=column).html).tokens) == 3


@pytest.mark.parametrize("value", np.linspace(-1.5, 1.5, 61))
def test_text_is_readable_on_every_colour_of_the_scale(value):
    assert contrast(TEXT, colour(value, 1.0)) >= 4.5


def test_contrast_follows_the_wcag_definition():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


def test_the_scale_is_zero_centred_orange_below_and_blue_above():
    assert colour(0.0, 2.0) == BELOW[0] == ABOVE[0]
    assert colour(-2.0, 2.0) == colour(-9.0, 2.0) == colour(-math.inf, 2.0) == BELOW[-1]
    assert colour(2.0, 2.0) == ABOVE[-1]
    for value in (0.3, 1.0, 1.7):
        below, above = colour(-value, 2.0), colour(value, 2.0)
        assert int(below[1:3], 16) > int(below[5:7], 16)
        assert int(above[1:3], 16) < int(above[5:7], 16)


def test_side_by_side_rollouts_share_one_scale():
    quiet, loud = make_table(gaps=[0.1, 0.2, 0.1]), make_table(gaps=[-4.0, 4.0, 0.1])
    view = render(TokenTable.concatenate([quiet, loud]))
    alone = render(quiet)
    assert (view.scale, alone.scale) == (4.0, 0.5)
    tokens = Page(view.html).tokens
    assert len(tokens) == 6
    assert f"background:{colour(0.2, 4.0)}" in tokens[1]["style"]
    assert "98th percentile" in view.html and "scale ±4 nats" in view.html


def test_the_default_scale_is_the_98th_percentile_and_ignores_infinities():
    values = np.concatenate([np.linspace(-3, 3, 999), [-np.inf]])
    assert default_scale(values) == pytest.approx(np.quantile(np.abs(values[:-1]), 0.98), abs=0.1)
    assert default_scale(values) >= np.quantile(np.abs(values[:-1]), 0.98)
    assert default_scale(np.zeros(3)) == default_scale(np.array([-np.inf])) == 0.5


def test_a_gap_that_is_beyond_the_scale_is_dotted_and_printed():
    page = Page(render(make_table(gaps=[-0.2, -3.0, 1.0]), scale=1.0).html)
    assert ["dotted" in token["style"] for token in page.tokens] == [False, True, False]
    assert "−3.00" in page.text and "beyond the scale" in page.text
    assert "beyond the scale" not in render(make_table(gaps=[-0.2, -0.3, 1.0]), scale=1.0).html


def test_an_infinite_gap_is_shown_as_infinite():
    table = make_table(gaps=[-0.2, -math.inf, 0.1])
    view = render(table)
    assert view.scale == 0.5
    assert "−∞" in Page(view.html).text
    assert "log-prob −∞" in token_details(table.frame.iloc[1].to_dict())


def test_a_masked_token_is_struck_through_and_the_legend_says_so():
    page = Page(render(make_table(weight=[1.0, 0.0, 1.0])).html)
    assert ["line-through" in token["style"] for token in page.tokens] == [False, True, False]
    assert "weight 0: not trained on" in page.text
    assert "weight 0: not trained on" not in render(make_table()).html


def test_the_numbers_of_a_token_are_in_its_tooltip():
    frame = make_table(gaps=[-1.25, 0, 0]).frame.assign(teacher_rank=[7, 0, 0], divergence=[0.125, 0, 0])
    title = Page(render(TokenTable(frame)).html).tokens[0]["title"]
    for part in ("'7'", "position 0", "p 0.607", "p 0.174", "log-prob −1.75", "rank 7", "gap −1.25", "divergence 0.125"):
        assert part in title


def test_every_token_is_a_row_of_the_table_under_its_panel():
    table = TokenTable.concatenate([make_table(), make_table(("a", "b"))])
    page = Page(render(table).html)
    assert page.rows() == 5
    assert sum(tag == "details" for tag, _ in page.tags) == 2
    assert sum(attrs.get("scope") == "row" for _, attrs in page.tags) == 5


def test_steps_carry_their_verdict_in_words_and_the_sum_and_mean_of_their_gaps():
    table = make_table(gaps=[0.5, 0.25, -2.0], step=[0, 0, 1], label=["correct", "correct", "incorrect"])
    text = Page(render(table).html).text
    assert "step 1 ✓ correct: Σ gap +0.75, mean +0.38" in text
    assert "step 2 ✗ incorrect: Σ gap −2.00, mean −2.00" in text
    assert "3 tokens; Σ gap −1.25, mean −0.42" in text
    assert "? unverifiable" in render(make_table(step=0, label="unverifiable")).html
    assert "✓" not in render(make_table()).html


def test_steps_sum_up_the_shown_column_beside_the_gap():
    table = make_table(gaps=[0.5, 0.25, -2.0], step=[0, 0, -1]).with_columns(loss=[0.5, 2.5, 9.0])
    assert "step 1 not judged: Σ gap +0.75, mean +0.38; Σ loss +3.00, mean +1.50" in Page(render(table, column="loss").html).text
    assert "Σ loss" not in render(table).html


def test_the_first_error_and_what_follows_it_are_said_in_words():
    phases = ["before", "first_error", "after"]
    table = make_table(step=[0, 1, 2], label=["correct", "incorrect", "correct"], label_source="<i>me", error_phase=phases)
    page = Page(render(table).html)
    assert "step 1 ✓ correct (<i>me): Σ" in page.text
    assert "step 2 ✗ incorrect (<i>me), first error: Σ" in page.text
    assert "step 3 ✓ correct (<i>me), after the first error: Σ" in page.text
    wanted = ["(<i>me), no error so far", "(<i>me), first error", "(<i>me), after the first error"]
    assert [token["title"].partition("correct ")[2] for token in page.tokens] == wanted


def test_a_phase_or_source_that_nobody_knows_is_not_invented():
    page = Page(render(make_table(step=[0, 0, -1], label=["correct", "correct", ""])).html)
    assert "error" not in page.text and "()" not in page.text
    assert page.tokens[0]["title"].endswith("\nstep 1 ✓ correct")
    assert page.tokens[2]["title"].endswith("entropy 0.25")


def test_the_outcome_of_the_rollout_stands_beside_its_title():
    assert "final answer ✗ incorrect" in Page(render(make_table(outcome="incorrect")).html).text
    assert "final answer" not in render(make_table()).html


def with_top(table, k=4, start=0):
    """Give a table lists of k tokens for each side: the ids from `start` and from `start` + 1, each half as probable as the last."""
    n = len(table)
    student, teacher = (np.tile(np.arange(first, first + k), (n, 1)) for first in (start, start + 1))
    logprobs = np.tile(np.log(0.5) * np.arange(1, k + 1), (n, 1))
    texts = {i: f" <{i}>" for i in range(start, start + k + 1)}
    return TokenTable(table.frame, TopTokens(student, logprobs, logprobs, teacher, logprobs, logprobs, texts))


def test_tooltips_and_table_name_the_three_most_probable_tokens_of_both_sides_and_mark_the_sampled_one():
    page = Page(render(with_top(make_table(token_id=[2, 3, 9]))).html)
    student = ["' <0>' 0.5, ' <1>' 0.25, ' <2>' 0.125 (sampled)", *["' <0>' 0.5, ' <1>' 0.25, ' <2>' 0.125"] * 2]
    teacher = ["' <1>' 0.5, ' <2>' 0.25 (sampled), ' <3>' 0.125", "' <1>' 0.5, ' <2>' 0.25, ' <3>' 0.125 (sampled)"]
    teacher.append("' <1>' 0.5, ' <2>' 0.25, ' <3>' 0.125")
    for token, first, second in zip(page.tokens, student, teacher, strict=True):
        lines = token["title"].split("\n")
        assert lines[2].startswith("student: p") and lines[3] == f"  {first}"
        assert lines[4].startswith("teacher: p") and lines[5] == f"  {second}"
        assert f"{first}{second}" in page.text


def test_the_most_probable_tokens_stay_with_their_rollout():
    one, two = with_top(make_table()), with_top(make_table(), start=50)
    titles = [token["title"] for token in Page(render(TokenTable.concatenate([one, two])).html).tokens]
    assert ["<50>" in title for title in titles] == [False] * 3 + [True] * 3


def test_two_listed_tokens_are_all_that_there_are():
    assert "' <0>' 0.5 (sampled), ' <1>' 0.25\n" in Page(render(with_top(make_table(), k=2)).html).tokens[0]["title"]


def test_a_token_without_text_says_so():
    tokens = Page(render(make_table(["", "é"])).html).tokens
    assert ["no text of its own" in token["title"] for token in tokens] == [True, False]


def test_a_rollout_of_2048_tokens_with_both_sides_lists_is_under_two_megabytes():
    n, k = 2048, 20
    rng = np.random.default_rng(0)
    words = [" the", " answer", "1", "7", " =", " +", ".\n", " therefore", " Natalia", "\\frac", " multiply", "é", "<think>", '"']
    ids = rng.integers(0, len(words), n)
    floats = ("divergence", "clipped", "loss", "student_entropy", "teacher_entropy")
    table = make_table(
        [words[i] for i in ids],
        rng.normal(0, 1, n),
        token_id=ids,
        student_rank=rng.integers(0, 9, n),
        teacher_rank=rng.integers(0, 400, n),
        step=np.arange(n) // 12,
        label="unverifiable",
        label_source="arithmetic",
        error_phase="after",
        **{name: rng.exponential(1, n) for name in floats},
    )
    order, logprobs = np.argsort(rng.random((n, k))), -np.sort(rng.exponential(2, (n, k)))
    texts = {i: words[i % len(words)] for i in range(k)}
    view = render(TokenTable(table.frame, TopTokens(order, logprobs, logprobs, order, logprobs, logprobs, texts)), column="loss")
    print(f"{n} tokens: {len(view.html.encode()) / 1e6:.2f} MB of HTML")
    assert len(view.html.encode()) < 2_000_000


def test_several_views_of_one_rollout_share_one_scale_and_keep_their_names():
    hostile = "</style><script>"
    views = {"reference": make_table(gaps=[0.1, 0.2, 0.1]), hostile: make_table(gaps=[-4.0, 4.0, 0.1])}
    view = render_views(views, rollout=0)
    page = Page(view.html)
    assert view.scale == 4.0 and "<script" not in view.html
    assert [part in page.text for part in views] == [True, True]
    assert f"background:{colour(0.2, 4.0)}" in page.tokens[1]["style"]
    assert page.rows() == 6 and sum(tag == "figure" for tag, _ in page.tags) == 2


def test_several_views_show_the_rollout_asked_for_by_the_column_asked_for():
    two = TokenTable.concatenate([make_table(("a",)), make_table(("b",), loss=3.0)])
    view = render_views({"one": two, "another": two}, rollout=1, column="loss", scale=7.0)
    assert [token["text"] for token in Page(view.html).tokens] == ["b", "b"]
    assert view.scale == 7.0 and "the token’s term of the loss" in view.html


def test_views_that_cannot_be_compared_are_refused_with_their_name_and_the_place():
    table = make_table()
    with pytest.raises(ValueError, match=r"at position 1, 'a' has the token id 1 and 'b' has 7; score the same completion"):
        render_views({"a": table, "b": make_table(token_id=[0, 7, 2])}, rollout=0)
    with pytest.raises(ValueError, match=r"at position 2, 'a' has the token id 2 and 'b' has none \(it has ended\)"):
        render_views({"a": table, "same": table, "b": make_table(("7", " +"))}, rollout=0)
    with pytest.raises(ValueError, match=r"at position 2, 'b' has the token id none"):
        render_views({"b": make_table(("7", " +")), "a": table}, rollout=0)
    with pytest.raises(KeyError, match=r"the table 'b' has no rollout 0; it has \[3\]"):
        render_views({"a": table, "b": make_table(rollout=3)}, rollout=0)
    with pytest.raises(ValueError, match="no tables"):
        render_views({}, rollout=0)


def test_the_table_shows_every_number_of_a_token_and_the_column_that_colours_it():
    table = make_table(label="correct", label_source="human", error_phase="after", step=0).with_columns(clipped=[0.125, 0, 0])
    page = Page(render(table, column="clipped").html)
    start = page.text.index("tokenposition")
    heads, _, row = page.text[start : page.text.index("' +'", start)].partition("'7'")
    assert heads == "".join(["token", "position", "gap", "clipped", *list(NAMES.values())[2:]])
    cells = ["0", "0", "0.125", "0.607", "0.607", "−0.50", "−0.50", "0.25", "0", "0", "1", "1"]
    assert row == "".join([*cells, "✓ correct", "human", "after the first error"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "∅"),
        ("\n", "⏎"),
        ("a\tb", "a⇥b"),
        ("\x00", "U+0000"),
        ("\r\n", "U+000D⏎"),
        ("\u202eabc", "U+202Eabc"),
        ("\u200b", "U+200B"),
        ("\xa0", "U+00A0"),
        ("\udc80", "U+DC80"),
        ("\u0301", "◌\u0301"),
        (" the", " the"),
        ("漢字🙂", "漢字🙂"),
        ("\ufffd", "\ufffd"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("\ufe0f", "U+FE0F"),
        (" \ufe0f", " U+FE0F"),
        ("a\U000e0100\U000e0101b", "aU+E0100U+E0101b"),
        ("葛\U000e0100\U000e0101", "葛\U000e0100U+E0101"),
        ("a\ufe0f1\ufe0f\u20e3", "aU+FE0F1\ufe0f\u20e3"),
        ("\u2800\ufe0f\U0001d159", "U+2800U+FE0FU+1D159"),
        ("a \u0301\n\u20dd", "a ◌\u0301⏎◌\u20dd"),
        ("\U000e0041", "U+E0041"),
        ("👩\u200d🔬", "👩U+200D🔬"),
        ("\u3164\u2800\u034f", "U+3164U+2800U+034F"),
    ],
)
def test_text_that_does_not_print_is_made_visible(text, shown):
    assert visible_text(text) == shown


@settings(max_examples=200, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=6))
def test_tokens_are_only_ever_text(tokens):
    page = Page(render(make_table(tokens), titles=[tokens[0]]).html)
    assert {tag for tag, _ in page.tags} <= OUR_TAGS
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert [token["text"] for token in page.tokens] == [visible_text(token) for token in tokens]


def test_hostile_titles_and_problem_ids_are_only_ever_text():
    hostile = "</style><script>alert(1)</script>\u202e"
    for view in (render(make_table(problem_id=hostile)), render(make_table(), titles=[hostile])):
        assert "<script" not in view.html and "\u202e" not in view.html
        assert "&lt;script&gt;" in view.html


def test_what_matters_is_inline_because_untrusted_notebooks_lose_style_sheets():
    start, _, rest = render(make_table(gaps=[0.1, -0.4, 0.2])).html.partition("<style>")
    page = Page(start + rest.partition("</style>")[2])
    assert all("background:#" in token["style"] for token in page.tokens)
    assert [a for tag, a in page.tags if "white-space:pre-wrap" in a.get("style", "")]
    assert "background:#ffffff;color:#111111" in page.tags[0][1]["style"]


def test_a_column_of_numbers_that_a_method_recorded_can_be_shown_where_every_table_has_it():
    table = make_table()
    odd = TokenTable(table.frame.assign(push=[-1.0, 0.0, 2.0], **{"a <b>": 0.5, "said": "x"}))
    page = render(odd, column="push").html
    assert "the token’s own logit" in page and len(Page(page).tokens) == 3
    assert "a &lt;b&gt;" in render(odd, column="a <b>").html
    live = json.loads(frame_of_view({"one": odd, "two": odd}, {}, "push", None))["columns"]
    assert live["push"]["signed"] and live["push"]["scale"] == 2.0 and live["a <b>"]["meaning"] == "a <b>"
    assert json.loads(rollout_of_view({"one": odd}, 0))["one"]["numbers"] == {"push": [-1.0, 0.0, 2.0], "a <b>": [0.5] * 3}
    for refused in ("said", "gap "):
        with pytest.raises(ValueError, match=f"cannot colour by '{refused}'"):
            render(odd, column=refused)
    with pytest.raises(ValueError, match="explore: cannot colour by 'push'"):
        explore({"one": odd, "two": table}, column="push")


def test_a_saved_view_is_a_page_of_its_own_that_may_load_nothing(tmp_path):
    path = render(make_table(("é", "<b>")), titles=["a < b"]).save(tmp_path / "new" / "view.html")
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in page and '<html lang="en">' in page
    assert "<title>Token view: a &lt; b</title>" in page
    assert "default-src 'none'; style-src 'unsafe-inline'" in page


def test_a_request_that_cannot_be_shown_says_what_to_change():
    with pytest.raises(ValueError, match=r"cannot colour by 'token'.*'gap'"):
        render(make_table(), column="token")
    with pytest.raises(ValueError, match="2 titles for 1 rollouts"):
        render(make_table(), titles=["a", "b"])
    with pytest.raises(ValueError, match="no rows"):
        render(TokenTable(make_table().frame.iloc[:0]))
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="not a positive number"):
            render(make_table(), scale=scale)


def test_numbers_keep_their_sign_and_never_round_to_zero():
    assert [number(v) for v in (0.0, 1.0, -0.004, -12.345, math.inf)] == ["0", "+1.00", "−0.004", "−12.35", "+∞"]


def test_contexts_mark_the_privileged_part_in_words_and_keep_every_character():
    student, solution = "<|user|>\n  2 & 3?<|assistant|>", "2 + 3\n= 5 <b>"
    teacher = student.replace("?", f"?\n{solution}\n\nNow you.")
    view = contexts_view(student, teacher, privileged=solution)
    page = Page(view.html)
    assert {tag for tag, _ in page.tags} <= OUR_TAGS
    assert student in page.text and "only the teacher sees this" in page.text
    marked = view.html.partition("<mark")[2].partition("</mark>")[0]
    assert "2 + 3\n= 5 &lt;b&gt;" in marked and "Now you." not in marked


def test_the_marked_part_is_the_teachers_own_and_not_the_same_text_in_the_question():
    view = contexts_view("Is 12 even?", "Is 12 even? The answer is 12.", privileged="12")
    before = view.html.partition("<mark")[0]
    assert before.endswith("Is 12 even? The answer is ")
    assert contexts_view("same", "same", privileged="").html.count("<mark") == 0


@pytest.mark.parametrize("teacher", ["Is 12 even?", "Is 12 even? Yes."])
def test_a_privileged_part_that_the_teacher_does_not_have_is_an_error(teacher):
    with pytest.raises(ValueError, match="not in the teacher's own part"):
        contexts_view("Is 12 even?", teacher, privileged="12")


# Characters that show nothing, or nothing of their own where they stand alone.
UNSEEN = [
    *"\u115f\u2800\u3164\uffa0\u180b\u180f\u034f\u17b4\u200b\u202e\u00a0\u2003\ufeff\x00\x1b\u00ad",
    "\ufe0f",
    "\U000e0100",
    "\U000e0041",
]
UNSEEN += ["\U0001d159", "\u0301", "\u20dd", "\u0903"]


@pytest.mark.parametrize("character", UNSEEN)
def test_nothing_is_invisible_in_tooltips_tables_and_literals(character):
    table = with_top(make_table([character, f"a {character}", "'\""]))
    top = {field: getattr(table.top, field) for field in ARRAYS}
    view = render(TokenTable(table.frame, TopTokens(**top, texts=dict.fromkeys(table.top.texts, character))))
    escaped = literal(character)
    assert escaped.isascii() and ast.literal_eval(escaped) == character
    page = Page(view.html)
    assert page.tokens[0]["title"].startswith(f"{escaped}  (position 0") and page.tokens[0]["title"].count(escaped) == 7
    assert page.text.count(escaped) >= 4, "the table has the literal too"
    assert character not in "".join(token["title"] for token in page.tokens)
    assert character not in Page(view.html).text.replace(f"◌{character}", "")


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_a_literal_is_the_text_again_and_prints_what_repr_prints(text):
    assert ast.literal_eval(literal(text)) == text
    assert literal(text).isprintable()
    assert literal('what\'s "this"\n\\') == repr('what\'s "this"\n\\')


def test_the_title_of_a_page_has_no_control_characters(tmp_path):
    views = {"a\u202e\x00<b>": make_table(), "half \ud83d": make_table()}
    title = render_views(views, rollout=0).save(tmp_path / "view.html").read_text(encoding="utf-8").partition("<title>")[2]
    assert title.startswith("Token view: aU+202EU+0000&lt;b&gt;, half U+D83D</title>")
    assert render(make_table(), titles=["\ud83d"]).save(tmp_path / "one.html").exists()


def test_what_is_no_table_or_no_title_is_refused_with_what_to_pass():
    class Record:
        table = make_table()

    for wrong, remedy in ((Record(), "not a Record; pass its .table"), (make_table().frame, "not a DataFrame; score_rollouts")):
        with pytest.raises(TypeError, match=f"render: needs a TokenTable, {remedy}"):
            render(wrong)
        with pytest.raises(TypeError, match=f"render_views: 'a': needs a TokenTable, {remedy}"):
            render_views({"a": wrong}, rollout=0)
        with pytest.raises(TypeError, match=f"explore: needs a TokenTable, {remedy}"):
            explore(wrong)
        with pytest.raises(TypeError, match=f"explore: 'a': needs a TokenTable, {remedy}"):
            explore({"a": wrong})
    for wrong in (None, 3):
        with pytest.raises(ValueError, match=rf"title 0 is {wrong}, not text"):
            render(make_table(), titles=[wrong])
        with pytest.raises(ValueError, match=rf"title 0 is {wrong}, not text"):
            explore(make_table(), titles={0: wrong})
        with pytest.raises(ValueError, match=rf"title 0 is {wrong}, not text"):
            explore({wrong: make_table()})


def test_the_live_view_shows_sources_and_names_as_the_static_one_does():
    tables = {"a\u202e": make_table(step=0, label="correct", label_source="me\u202e\u2800"), "\ud83d": make_table()}
    widget = explore(tables).widget
    panel = json.loads(widget.data)["aU+202E"]
    assert panel["source_shown"] == ["meU+202EU+2800"] * 3 and panel["label_source"] == ["me\u202e\u2800"] * 3
    assert json.loads(widget.about)["names"] == ["aU+202E", "U+D83D"]
