import math
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd_lab.token_table import COLUMNS, TokenTable
from opsd_lab.token_view import contexts_view, render
from opsd_lab.token_view.colours import ABOVE, BELOW, TEXT, colour, contrast
from opsd_lab.token_view.details import number, token_details
from opsd_lab.token_view.static import MEANINGS, default_scale
from opsd_lab.token_view.visible import visible_text

OUR_TAGS = {
    *("div", "style", "span", "figure", "figcaption", "bdi", "i", "br", "wbr", "small", "details", "summary", "table"),
    *("caption", "thead", "tbody", "tr", "th", "td", "code", "mark", "strong"),
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


def test_steps_carry_their_verdict_in_words_and_the_sum_of_their_gaps():
    table = make_table(gaps=[0.5, 0.25, -2.0], step=[0, 0, 1], label=["correct", "correct", "incorrect"])
    text = Page(render(table).html).text
    assert "step 1 ✓ correct, Σ gap +0.75" in text
    assert "step 2 ✗ incorrect, Σ gap −2.00" in text
    assert "mean +0.38 nats" in render(table).html
    assert "? unverifiable" in render(make_table(step=0, label="unverifiable")).html
    assert "✓" not in render(make_table()).html


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
